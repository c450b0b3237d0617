"""Callbacks: steps that are skipped, threads, and what is said while a model learns."""

import json

import pytest
import torch

from inference.data import ImageSet, Splits
from inference.training import TrainingFailed, train
from inference.training.module import MAX_SKIPS, Training
from inference.training.threads import Threads
from pyro_rnp import RNP, load
from tests.inference.training.conftest import CONFIG, config, splits


def overflowing(images):
    """Images whose squared error is infinite in float32."""
    return ImageSet(torch.full_like(images.images, 1e30), images.labels)


def test_a_step_that_is_not_finite_is_counted_reported_and_not_applied(
    monkeypatch, tmp_path, capsys
):
    data = splits(16)
    bad = overflowing(data.train[:4])
    together = ImageSet(
        torch.cat([data.train.images[:4], bad.images]), torch.zeros(8, dtype=torch.long)
    )
    mixed = Splits(together, data.validation, data.test)
    monkeypatch.setattr("inference.config.load_data", lambda *_, **__: mixed)
    monkeypatch.setattr(RNP, "check", lambda _, images, first=0: images)
    folder = train(config(tmp_path / "run", batch_size=1, epochs=2))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["skipped_steps"] == 8
    said = capsys.readouterr().out.count("the loss or gradient is not finite")
    assert said == (folder / "log.txt").read_text().count("the loss or gradient is not finite") == 2
    assert all(t.isfinite().all() for t in load(folder).state_dict().values())


def test_training_that_cannot_recover_stops_with_the_last_good_weights(monkeypatch, tmp_path):
    data = splits(100)
    hopeless = Splits(overflowing(data.train), data.validation, data.test)
    monkeypatch.setattr("inference.config.load_data", lambda *_, **__: hopeless)
    monkeypatch.setattr(RNP, "check", lambda _, images, first=0: images)
    with pytest.raises(TrainingFailed, match=f"last {MAX_SKIPS} steps had .* first of them step"):
        train(config(tmp_path / "run", batch_size=1, epochs=1, seed=3))
    torch.manual_seed(0)
    saved = load(tmp_path / "run").state_dict()
    import lightning

    lightning.seed_everything(3, workers=True, verbose=False)
    fresh = RNP(CONFIG).state_dict()
    assert all(torch.equal(saved[k], fresh[k]) for k in fresh)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_steps_that_fail_for_long_are_a_failure_though_some_images_still_have_a_loss(
    monkeypatch, tmp_path
):
    """The first image alone is fine; when it is looked at, the row is longer than need be."""
    data = splits(100)
    pixels = overflowing(data.train).images
    pixels[0] = data.train.images[0]
    mostly = Splits(ImageSet(pixels, data.train.labels), data.validation, data.test)
    monkeypatch.setattr("inference.config.load_data", lambda *_, **__: mostly)
    monkeypatch.setattr(RNP, "check", lambda _, images, first=0: images)
    with pytest.raises(TrainingFailed, match=r"last 24 steps had .* step 16;"):
        train(config(tmp_path / "run", batch_size=1, epochs=1, seed=4))
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_weights_that_an_update_broke_are_not_the_ones_kept(few, tmp_path):
    with pytest.raises(TrainingFailed, match="no finite loss and gradient"):
        train(config(tmp_path / "run", batch_size=2, learning_rate=1e25, warmup=0))
    kept = load(tmp_path / "run").state_dict()
    import lightning

    lightning.seed_everything(0, workers=True, verbose=False)
    fresh = RNP(CONFIG).state_dict()
    assert all(torch.equal(kept[k], fresh[k]) for k in fresh), "the weights before that update"


def test_weights_that_broke_shortly_before_the_end_are_not_the_ones_kept(few, tmp_path):
    with pytest.raises(TrainingFailed, match="last 3 steps had no finite loss"):
        train(config(tmp_path / "run", learning_rate=1e25, warmup=0))
    assert all(p.isfinite().all() for p in load(tmp_path / "run").parameters())
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_fewer_threads_are_taken_said_and_given_back(few, tmp_path, monkeypatch, capsys):
    """By times that say that one thread is faster; the machine's own do not matter."""
    used = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(Training, "time_step", lambda self, batch: 1e-9 * used[-1])
    folder = train(config(tmp_path / "run", epochs=2))
    said = "After 3 steps training goes on with 1 thread instead of 4"
    assert said in capsys.readouterr().out
    assert said in (folder / "log.txt").read_text()
    assert json.loads((folder / "metrics.json").read_text())["hardware"].endswith(", 1 core")
    assert used[-1] == 4
    seen = used[:]
    monkeypatch.setattr(Training, "time_step", lambda self, batch: pytest.fail("measured again"))
    train(config(None, resume=str(folder), epochs=3))
    assert used[len(seen) :] == [1, 4], "it goes on with the one thread that it had"


def test_measuring_threads_changes_nothing_that_is_learned(few, tmp_path, monkeypatch):
    plain = load(train(config(tmp_path / "plain"))).state_dict()
    monkeypatch.setattr(
        Threads, "step", lambda self, seconds, trial: "" if trial() > 0 else "never"
    )
    measured = load(train(config(tmp_path / "measured"))).state_dict()
    assert all(torch.equal(plain[name], measured[name]) for name in plain)


def test_the_error_while_training_stands_beside_that_of_no_model(few, tmp_path, capsys):
    folder = train(config(tmp_path / "run"))
    images = few.validation.images
    mean = (images - few.train.images.mean(0)).square().flatten(1).sum(1).mean()
    blank = images.square().flatten(1).sum(1).mean()
    said = f"val_sse is {mean:.1f} by the mean training image and {blank:.1f} by a blank canvas"
    assert said in capsys.readouterr().out
    assert (folder / "log.txt").read_text().count(said) == 1
