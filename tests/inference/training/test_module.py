"""The Lightning module: rates, weights and depth at each step, and what validation logs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import inference.training.fit
import inference.training.module
from inference.cli import train_config
from inference.training import train
from inference.training.callbacks import Progress
from inference.training.module import SkippedSteps, Training
from inference.training.schedules import schedule
from pyro_rnp import RNP, load
from pyro_rnp.checkpoint import load_config
from tests.inference.training.conftest import CONFIG, config


def test_the_learning_rate_can_stay_constant(few, tmp_path, monkeypatch):
    assert [schedule(s, 2, s / 4, "constant") for s in range(5)] == [0.5, 1, 1, 1, 1]
    seen = []
    start = Training.on_train_batch_start

    def note(self, batch, batch_idx):
        start(self, batch, batch_idx)
        seen.append(self.optimizers().param_groups[0]["lr"])

    monkeypatch.setattr(Training, "on_train_batch_start", note)
    how = {"learning_rate": 4e-5, "warmup": 0, "schedule": "constant"}
    folder = train(config(tmp_path / "run", epochs=2, **how))
    train(train_config(["--resume", str(folder), "--epochs=3"]))
    assert seen == [4e-5] * 12
    assert load_config(folder)[1]["training"]["schedule"] == "constant"


def test_the_kl_s_weight_and_the_depth_grow_with_training(few, tmp_path, monkeypatch):
    seen = []
    step = Training.training_step

    def note(self, batch, batch_idx):
        seen.append((self.kl_weight, self.rnp.model.recursion.levels))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", note)
    folder = train(
        config(
            tmp_path / "run",
            epochs=2,  # of 4 steps
            kl_weight=2.0,
            kl_warmup=0.5,
            depth_growth=0.75,
            model=replace(CONFIG, steps=(2, 1, 1)),
        )
    )
    weights, levels = zip(*seen, strict=True)
    assert weights[0] == pytest.approx(0, abs=1e-3)
    assert weights[1:] == pytest.approx((0.5, 1.0, 1.5, 2, 2, 2, 2))
    assert levels == (1, 1, 1, 2, 2, 2, 3, 3)
    assert load(folder).sample(1).level == 3


def test_random_levels_come_in_over_a_share_of_training(few, tmp_path, monkeypatch):
    seen, step = [], Training.training_step

    def note(self, batch, batch_idx):
        seen.append(self.rnp.guide.settled_share)
        return step(self, batch, batch_idx)

    def ended(callback, trainer, module):
        seen.append(module.rnp.guide.settled_share)

    monkeypatch.setattr(Training, "training_step", note)
    monkeypatch.setattr(Progress, "on_train_end", ended)
    model = replace(CONFIG, stochastic="both")
    train(config(tmp_path / "run", epochs=2, lower_warmup=0.5, model=model))  # of 4 steps
    assert seen[:-1] == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0, 0, 0], abs=1e-5)
    train(config(tmp_path / "plain", model=model))
    assert seen[-1] is None


def test_all_processes_tell_what_validation_gives_in_one_order(monkeypatch):
    told = []
    process = SimpleNamespace(
        rnp=SimpleNamespace(guide=SimpleNamespace(masked=None)),
        images_seen=3,
        timer=SimpleNamespace(time_elapsed=lambda: 1.0),
        log=lambda name, *_, **__: told.append(name),
    )
    for names in (("sse", "kl", "elbo", "sse_mean"), ("elbo", "sse_mean", "sse", "kl")):
        scores = dict.fromkeys(names, 1.0)
        monkeypatch.setattr(inference.training.module, "evaluate", lambda *_, found=scores: found)
        Training.validation_step(process, torch.zeros(2, 1, 8, 8), 0)
    assert len(told) == 12
    assert told[:6] == told[6:]


def test_some_classes_are_learned_from(tmp_path, monkeypatch):
    seen = []

    def note(callback, trainer, module):
        seen.append(module.splits.train.labels.unique().tolist())

    monkeypatch.setattr(Progress, "on_train_start", note)
    train(config(tmp_path / "run", classes=[1, 7], batch_size=200))
    assert seen == [[1, 7]]


def test_skipped_steps_are_counted_in_all_and_in_a_row():
    skipped, counts = SkippedSteps(), []
    for step, bad in enumerate([False, True, True, False, True]):
        skipped.count(torch.tensor(bad), step)
        skipped.read()
        counts.append((skipped.total, skipped.in_a_row, skipped.began))
    assert counts == [(0, 0, 0), (1, 1, 1), (2, 2, 1), (2, 0, 1), (3, 1, 4)]
    again = SkippedSteps(skipped.counts)
    assert (again.total, again.in_a_row, again.began) == counts[-1]


def test_training_compiles_what_learns_and_says_so(few, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(RNP, "compile", lambda rnp, inference: compiled.append(inference))
    folder = train(config(tmp_path / "compiled", compile=True))
    assert compiled == [False], "once, and not for what takes no gradient"
    assert "is being compiled" in (folder / "log.txt").read_text()
    train(config(tmp_path / "plain", compile=False))
    assert compiled == [False]
