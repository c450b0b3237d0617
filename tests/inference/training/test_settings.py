"""`fit`: from images to a trained model in a script, in a thread, and twice in one process."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from inference import Run, evaluate, fit, load_data, query
from inference.config import LEARNING, TrainConfig
from inference.data import ImageSet, Splits
from inference.system import Interrupted
from inference.training.settings import settings
from tests.conftest import tiny

SMALL = {"epochs": 1, "batch_size": 8, "progress": False}


def images(n=40):
    return torch.rand(n, 1, 8, 8)


def image_set(pixels):
    return ImageSet(pixels, torch.zeros(len(pixels)).long())


def test_a_script_of_eight_lines_from_a_tensor_to_answers(tmp_path):
    """As in the tutorial on one's own images, from memory and with a smaller model."""
    pictures = images()
    run = fit(pictures, tiny(), out=tmp_path / "run", epochs=1)
    rnp = run.load()
    tree = rnp.parse(pictures[:4])
    posterior = query(rnp, pictures[:4], steps=2)
    scores = evaluate(rnp, pictures)
    assert isinstance(run, Run)
    assert run.path == tmp_path / "run"
    assert run.ended
    assert run.picture.exists()
    assert run.metrics["images_seen"] == len(load_data(pictures).train)
    assert tree.canvas.shape == posterior.mean("canvas").shape == (4, 1, 8, 8)
    assert scores["elbo"] < 0
    assert [row["epoch"] for row in run.curve] == [1]


def test_fit_says_how_well_the_model_explains_unless_it_is_to_be_quiet(tmp_path, capsys):
    fit(images(), tiny(), out=tmp_path / "run", **{**SMALL, "progress": True})
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("The model explains ")
    assert said in (tmp_path / "run" / "log.txt").read_text()
    fit(images(), tiny(), out=tmp_path / "quiet", **SMALL)
    assert not capsys.readouterr().out


def test_the_model_follows_the_images_and_the_options_go_before():
    grey = torch.rand(30, 8, 8).numpy()
    found, splits = settings(grey, None, None, None, {})
    assert (found.model.image_size, found.model.channels, found.data) == (8, 1, "memory")
    assert torch.equal(splits.train.images, load_data(grey).train.images)
    assert (found.optimizer, found.learning_rate) == ("Muon", LEARNING["fast"]["learning_rate"])
    found, _ = settings(
        torch.rand(30, 3, 8, 8), "mnist", None, None,
        {"steps": (2,), "prior": "studentt", "epochs": 3},
    )  # fmt: skip
    assert (found.model.channels, found.model.steps, found.epochs) == (3, (2,), 3)
    assert (found.model.prior, found.preset) == ("studentt", "mnist")
    assert (found.optimizer, found.learning_rate) == ("Adam", LEARNING["mnist"]["learning_rate"])
    config = TrainConfig(epochs=2, batch_size=7, model=tiny())
    found, _ = settings(images(), config, None, None, {"epochs": 5, "program_size": 4})
    assert (found.epochs, found.batch_size, found.model) == (5, 7, tiny(program_size=4))
    found, splits = settings("digits", None, None, None, {"classes": [0, 1]})
    assert (found.data, found.classes) == ("digits", [0, 1])
    assert len(splits.train) == 1257, "training itself leaves out the other classes"
    options = {"size": 12, "channels": 3, "invert": True}
    found, splits = settings(torch.zeros(30, 8, 8) + torch.arange(30)[:, None, None] / 30, None,
                             torch.zeros(2, 8, 8), None, options)  # fmt: skip
    assert (found.model.image_size, found.model.channels) == (12, 3)
    assert splits.train.images.shape[1:] == splits.validation.images.shape[1:] == (3, 12, 12)
    assert (splits.validation.images == 1).all()


def test_splits_are_kept_and_held_out_images_may_be_given():
    data = load_data("digits")
    few = Splits(data.train[:9], data.validation[:3], data.test[:4])
    found = settings(few, None, None, None, {})[1]
    assert found.train is few.train
    assert found.validation is few.validation
    assert found.test is few.test
    _, found = settings(images(20), None, images(3), images(5), {})
    assert [len(s) for s in (found.train, found.validation, found.test)] == [20, 3, 5]
    _, found = settings(images(20), None, images(3), None, {})
    test = len(found.test)
    assert [len(s) for s in (found.train, found.validation)] == [20 - test, 3]


def same_images(first, second):
    return torch.equal(first.images, second.images)


def test_a_set_s_own_split_is_replaced_and_not_learned_from(tmp_path):
    digits, other = load_data("digits"), torch.rand(5, 1, 28, 28)
    few = Splits(digits.train[:9], digits.validation[:3], digits.test[:4])
    for source, own in (("digits", digits), (few, few)):
        _, found = settings(source, None, other, other[:2], {})
        assert same_images(found.train, own.train)
        assert [len(found.validation), len(found.test)] == [5, 2]
    pixels = torch.rand(40, 8, 8)
    _, found = settings(load_data(pixels), None, pixels[:3], None, {})
    assert same_images(found.train, load_data(pixels).train), "Splits are as they were given"
    file = tmp_path / "images.npz"  # whose validation images are kept by hash, and test images not
    np.savez(file, images=pixels.numpy(), split=["train"] * 30 + ["test"] * 10)
    _, found = settings(file, None, pixels[:3], pixels[:2], {})
    assert {x.numpy().tobytes() for x in found.train.images} == {
        x.numpy().tobytes() for x in pixels[:30, None]
    }
    assert [len(found.validation), len(found.test)] == [3, 2]


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (255 * x).byte(), image_set])
def test_held_out_images_are_binarized_as_the_others_are(form):
    _, found = settings(images(), None, form(images(3)), form(images(2)), {"binarize": True})
    for split in (found.train, found.validation, found.test):
        assert set(split.images.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (
            {"epoch": 3},
            TypeError,
            "fit has no option epoch; the closest is epochs; options are the fields",
        ),
        ({"model": 5}, TypeError, "no option model; .* pieces, as prior=MyPrior()"),
        (
            {"masks": torch.ones(40, 8, 8)},
            TypeError,
            r"no option masks; fit\(load_data\(images, masks=\.\.\.\)\) takes them",
        ),
        ({"labels": [0] * 40}, TypeError, r"no option labels; fit\(load_data\(images, labels="),
        ({"callbacks": 3}, TypeError, "callbacks must be functions or Lightning callbacks, got 3"),
        ({"callbacks": Callback}, TypeError, "callbacks must be .* got <class"),
        ({"logger": True}, TypeError, "logger must be a Lightning logger or several, got True"),
        ({"logger": "csv"}, TypeError, "logger must be a Lightning logger or several, got 'csv'"),
        ({"logger": [CSVLogger]}, TypeError, "logger must be .* or several, got <class"),
        ({"config": "huge"}, ValueError, "There is no preset 'huge'"),
        ({"images": [1, 2]}, TypeError, "must be a tensor or an array, got list"),
        ({"images": torch.rand(5, 8)}, ValueError, r"must have shape \(N, C, H, W\)"),
        (
            {"config": tiny(image_size=9)},
            ValueError,
            r"^The images have .* \(N, 1, 9, 9\)",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be positive"),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_leave_no_folder(tmp_path, given, error, match):
    given = {"images": images(), "config": None, **SMALL, **given}
    with pytest.raises(error, match=match):
        fit(given.pop("images"), given.pop("config"), out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_bit_for_bit(tmp_path):
    pictures = images()
    whole = fit(pictures, tiny(), out=tmp_path / "whole", **{**SMALL, "epochs": 2}, seed=3)
    run = fit(pictures, tiny(), out=tmp_path / "run", **SMALL, seed=3, schedule="constant")
    again = fit(pictures, resume=run, epochs=2, progress=False)
    assert again.path == run.path
    once = len(load_data(pictures).train) // 8 * 8
    assert again.metrics["images_seen"] == whole.metrics["images_seen"] == 2 * once
    constant = fit(
        pictures, tiny(), out=tmp_path / "c", **{**SMALL, "epochs": 2}, seed=3, schedule="constant"
    )
    first, second = again.load().state_dict(), constant.load().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(ValueError, match="was trained with seed 3, not 4"):
        fit(pictures, resume=run.path, epochs=3, seed=4, progress=False)
    with pytest.raises(ValueError, match="has gone through 2 epochs already"):
        fit(pictures, resume=str(run.path), progress=False)


class Stop(Callback):
    """Sends the process a signal after some steps, as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, module, *_):
        if module.batches_seen == self.step:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path):
    pictures, out = images(), tmp_path / "run"
    how = {**SMALL, "epochs": 3, "seed": 1}
    whole = fit(pictures, tiny(), out=tmp_path / "whole", **how)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"go on with fit\(images, resume='.*run'\)") as got:
        fit(pictures, tiny(), out=out, callbacks=Stop(5), **how)
    assert isinstance(got.value, Interrupted)
    assert got.value.signal_number == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before
    run = fit(pictures, resume=out, progress=False)
    first, second = whole.load().state_dict(), run.load().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_trains_in_a_thread(tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(fit(images(), tiny(), out=tmp_path / "run", **SMALL))
    )
    thread.start()
    thread.join()
    assert found[0].ended


def test_it_is_silent_if_asked_and_loggers_join(tmp_path, capfd):
    logger = CSVLogger(tmp_path, name="", version="mine")
    run = fit(images(), tiny(), out=tmp_path / "run", logger=logger, **SMALL)
    assert capfd.readouterr() == ("", "")
    assert "val_elbo" in (tmp_path / "mine" / "metrics.csv").read_text()
    assert run.curve[0]["val_elbo"] < 0
    fit(images(), tiny(), out=tmp_path / "loud", **{**SMALL, "progress": True})
    assert "Without a model, val_sse is" in capfd.readouterr().out


@pytest.mark.parametrize("none", [{"callbacks": None, "logger": None}, {"logger": False}])
def test_none_is_no_callback_and_no_logger(tmp_path, none):
    assert fit(images(), tiny(), out=tmp_path / "run", **none, **SMALL).ended


def test_an_error_of_a_logger_is_not_told_as_one_of_the_trainer(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise TypeError("mine")

    monkeypatch.setattr("inference.training.fit.CSVLogger", broken)
    with pytest.raises(TypeError, match="^mine$"):
        fit(images(), tiny(), out=tmp_path / "run", **SMALL)


def test_other_images_than_a_run_s_are_told(tmp_path):
    run = fit(images(), tiny(), out=tmp_path / "run", **SMALL)
    with pytest.raises(ValueError, match="^The images are not those that .* has learned from"):
        fit(images(), resume=run, epochs=2, progress=False)


def test_a_script_without_a_main_that_trains_twice(tmp_path):
    code = f"""
import torch
from inference import fit
from tests.conftest import tiny
for name in "ab":
    run = fit(torch.rand(40, 1, 8, 8), tiny(), out={str(tmp_path)!r} + "/" + name, epochs=1)
    print(run.load().sample(1).canvas.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("torch.Size([1, 1, 8, 8])") == 2
    assert "arning" not in done.stderr
