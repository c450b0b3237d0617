"""Hooks of a training: functions after each validation, early stopping, loggers."""

import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger

from inference import Run, fit
from inference.config import TrainConfig
from inference.data import ImageSet, Splits
from inference.evaluation import evaluate
from inference.system import Interrupted
from inference.training.callbacks import KeepBest
from tests.conftest import tiny

SMALL = {"batch_size": 8, "progress": False}
WORSE = {"optimizer": "Adam", "learning_rate": 0.3, "warmup": 0, "schedule": "constant"}
"""So large a step that the scores go up and down."""


def images(n=40):
    return torch.rand(n, 1, 8, 8)


def image_set(pixels):
    return ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.long))


def splits(train=32):
    """As many training images as said; of a tensor, a hash of each image decides."""
    pixels = torch.rand(train + 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Splits(*map(image_set, pixels.split([train, 8, 8])))


def same(run, other):
    """Whether two runs hold the same weights."""
    first, second = (Run(r).load().state_dict() for r in (run, other))
    return all(torch.equal(first[k], second[k]) for k in first)


def test_a_function_gets_the_run_and_the_scores_after_each_validation(tmp_path):
    seen, weights = [], []

    def look(run, scores):
        assert run.curve[-1] == scores
        seen.append(scores)
        weights.append(run.load().state_dict())

    run = fit(images(), tiny(), out=tmp_path / "run", epochs=3, callbacks=look, **SMALL)
    assert seen == run.curve
    assert [row["epoch"] for row in seen] == [1, 2, 3]
    assert all(torch.equal(v, weights[2][k]) for k, v in run.load().state_dict().items())
    assert any(not torch.equal(v, weights[1][k]) for k, v in run.load().state_dict().items())


def test_a_function_that_returns_true_ends_training_orderly(tmp_path):
    class Count(Callback):
        steps = 0

        def on_train_batch_end(self, *_):
            self.steps += 1

    count = Count()
    both = [lambda _, scores: scores["epoch"] == 2, count, lambda *_: 1]
    run = fit(splits(), tiny(), out=tmp_path / "run", epochs=5, callbacks=both, **SMALL)
    assert run.ended
    assert count.steps == 8
    assert run.metrics["images_seen"] == 64
    assert "best_epoch" not in run.metrics
    longer = fit(splits(), resume=run, epochs=3, progress=False)
    assert longer.metrics["images_seen"] == 96


def test_what_is_no_function_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(TypeError, match=r"callbacks must be functions or .* got 3\."):
        fit(images(), tiny(), out=tmp_path / "run", epochs=1, callbacks=[3])
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_function_leaves_a_run_that_goes_on(tmp_path):
    def fail(run, scores):
        raise ZeroDivisionError("mine")

    data = images()
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit(data, tiny(), out=tmp_path / "run", epochs=2, callbacks=fail, **SMALL)
    assert fit(data, resume=tmp_path / "run", progress=False).ended


def test_training_ends_when_scores_are_no_longer_better_and_keeps_the_best(tmp_path):
    data = splits()
    how = {**SMALL, **WORSE, "epochs": 30, "patience": 2}
    run = fit(data, tiny(), out=tmp_path / "run", **how)
    scores = [row["val_elbo"] for row in run.curve]
    best = run.metrics["best_epoch"]
    assert scores[best - 1] == max(scores)
    assert len(scores) == best + 2 < 30
    kept = evaluate(run.load(), data.validation)["elbo"]
    assert kept == pytest.approx(scores[best - 1], rel=1e-4)
    short = fit(data, tiny(), out=tmp_path / "short", **{**SMALL, **WORSE, "epochs": best})
    assert same(run.path, short.path), "with a constant learning rate"
    assert f"epoch {best}, whose validation score is the best" in (run.path / "log.txt").read_text()
    with pytest.raises(ValueError, match=r"ended after 2 epochs .* more --patience"):
        fit(data, resume=run, progress=False)
    assert len(fit(data, resume=run, patience=3, progress=False).curve) > best + 2


HOW = {"epochs": 6, "batch_size": 16, "patience": 2, "progress": False, "seed": 0, **WORSE}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with patience that nothing stopped."""
    run = fit(splits(), tiny(), out=tmp_path_factory.mktemp("whole") / "run", **HOW)
    assert len(run.curve) == run.metrics["best_epoch"] + 2, "patience ended it"
    assert len(run.curve) in (4, 5), "epochs of two steps each, of which eight are stopped at"
    return run


@pytest.mark.parametrize("step", range(1, 9))
def test_a_run_that_was_stopped_has_the_same_best_weights(tmp_path, step, whole):
    class Stop(Callback):
        def on_train_batch_start(self, trainer, module, *_):
            if module.batches_seen == step - 1:
                signal.raise_signal(signal.SIGTERM)

    called = []
    hooks = [lambda _, scores: called.append(scores["epoch"]), Stop()]
    with pytest.raises(Interrupted):
        fit(splits(), tiny(), out=tmp_path / "run", callbacks=hooks, **HOW)
    run = fit(splits(), resume=tmp_path / "run", callbacks=hooks[0], progress=False)
    assert called == [row["epoch"] for row in run.curve], "once after each validation"
    assert [r["val_elbo"] for r in run.curve] == [r["val_elbo"] for r in whole.curve]
    assert run.metrics["best_epoch"] == whole.metrics["best_epoch"]
    assert run.metrics["images_seen"] == whole.metrics["images_seen"]
    assert same(run.path, whole.path)


def test_patience_works_with_minutes_and_a_guide_that_is_a_point(tmp_path):
    how = {**SMALL, **WORSE, "epochs": None, "minutes": 5.0, "patience": 2}
    run = fit(images(), tiny(guide="map"), out=tmp_path / "run", **how)
    scores = [row["val_sse"] for row in run.curve]
    assert scores[run.metrics["best_epoch"] - 1] == min(scores)
    assert len(scores) == run.metrics["best_epoch"] + 2
    assert run.metrics["seconds"] < 250


@pytest.mark.parametrize("growing", ["depth_growth", "lower_warmup"])
def test_no_validation_counts_while_the_depth_grows_or_levels_come_in(growing, tmp_path):
    how = {**SMALL, "epochs": 6, "patience": 1, growing: 0.7, "learning_rate": 1e-9}
    run = fit(images(), tiny(stochastic="both"), out=tmp_path / "run", **how)
    assert run.metrics["best_epoch"] > 2


def test_the_weight_of_the_kl_counts_in_the_score(tmp_path):
    keeper = []
    own = KeepBest.on_validation_end

    def noted(self, trainer, module):
        own(self, trainer, module)
        keeper.append(self.best)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeepBest, "on_validation_end", noted)
        how = {**SMALL, "epochs": 1, "patience": 1, "kl_weight": 0.25}
        row = fit(images(), tiny(), out=tmp_path / "run", **how).curve[0]
    assert keeper[-1]["score"] == pytest.approx(row["val_elbo"] + 0.75 * row["val_kl"], rel=1e-6)


def test_patience_must_be_positive():
    with pytest.raises(ValueError, match="patience must be positive, got 0"):
        TrainConfig(patience=0)


class Memory(Logger):
    """Keeps all that is logged."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.rows, self.hyper = [], None

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params, *args, **kwargs):
        self.hyper = params


def test_loggers_of_others_get_every_score(tmp_path):
    memory, table = Memory(), CSVLogger(tmp_path, name="", version="mine")
    run = fit(splits(), tiny(), out=tmp_path / "run", epochs=3, logger=[memory, table], **SMALL)
    logged = [row for _, row in memory.rows if "val_sse" in row]
    names = ("images_seen", "seconds", "val_sse", "val_elbo", "val_kl")
    assert [{n: row[n] for n in names} for row in logged] == [
        {n: row[n] for n in names} for row in run.curve
    ]
    assert any("loss" in row for _, row in memory.rows)
    own, other = (next(f.glob("metrics.csv")) for f in (run.path / "curves", tmp_path / "mine"))
    assert own.read_text() == other.read_text()
