"""Training on images with missing pixels (NaN, or a mask an image)."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference import fit
from inference.data import ImageSet, Splits, load_data
from inference.data.augmentation import jitter
from inference.training.diagnostics import coverage_sentence, missing_sentence, problems
from pyro_rnp import RNP
from pyro_rnp.missing import mean_image
from tests.conftest import tiny

QUICK = {"epochs": 2, "batch_size": 16, "progress": False}


def image_set(pixels, masks=None):
    return ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.long), masks=masks)


@pytest.fixture
def seen():
    return torch.rand(48, 1, 8, 8) < 0.7


@pytest.fixture
def images():
    return torch.randint(0, 256, (48, 1, 8, 8), dtype=torch.uint8)


def splits(pixels, masks=None):
    data = image_set(pixels, masks)
    return Splits(data[:32], data[32:40], data[40:])


def scores(run):
    return {k: v for k, v in run.metrics.items() if k.startswith("test_")}


def test_fit_learns_scores_and_draws_and_says_how_many_are_missing(tmp_path, images, seen):
    data = (images / 255).masked_fill(~seen, torch.nan)
    how = {**QUICK, "out": tmp_path / "run", "jitter": 0.05, "patience": 5}
    run = fit(splits(data), tiny(), **how)
    log = (run.path / "log.txt").read_text()
    share = 100 * float((~seen[:32]).double().mean())
    assert f"{share:.3g} % of the training images' pixels are missing, in 32 of 32 images" in log
    assert "nan" not in (json.dumps([run.metrics, run.curve]) + log).lower()
    assert run.metrics["skipped_steps"] == 0
    assert all("val_sse" in row for row in run.curve)
    assert run.picture.exists()
    assert run.load().parse(data).canvas.isfinite().all()


def test_a_mask_an_image_does_what_nan_does(tmp_path, images, seen):
    """As an `ImageSet` of bytes, and from a file."""
    changed = torch.where(seen, images, 255 - images)  # whatever stands where nothing is seen
    data = (images / 255).masked_fill(~seen, torch.nan)
    np.savez(tmp_path / "x.npz", images=changed.numpy()[:, 0], masks=seen.numpy()[:, 0])
    by_nan = fit(splits(data), tiny(), out=tmp_path / "nan", **QUICK)
    by_mask = fit(splits(changed, seen), tiny(), out=tmp_path / "mask", **QUICK)
    assert scores(by_mask) == scores(by_nan)
    first, second = (run.load().state_dict() for run in (by_nan, by_mask))
    assert all(torch.equal(first[k], second[k]) for k in first)
    stored = load_data(tmp_path / "x.npz")
    run = fit(tmp_path / "x.npz", tiny(), out=tmp_path / "file", **QUICK)
    assert "pixels are missing" in (run.path / "log.txt").read_text()
    again = fit(stored, tiny(), out=tmp_path / "again", **QUICK)
    assert scores(run) == scores(again)
    assert stored.train.masks is not None


def test_nothing_is_said_of_whole_images(images):
    assert missing_sentence(image_set(images)) == ""
    assert missing_sentence(image_set(images / 255)) == ""
    seen = torch.ones(48, 1, 8, 8, dtype=torch.bool)
    assert missing_sentence(image_set(images, seen)) == ""
    seen[3, :, :, :4] = False
    said = missing_sentence(image_set(images, seen))
    assert said.startswith("1.04 % of the training images' pixels are missing, in 1 of 48 images")


def test_blank_pixels_are_counted_among_those_seen():
    images = torch.zeros(2, 1, 8, 8)
    images[:, :, :, 4:] = torch.nan
    images[:, :, :, :1] = 1.0
    assert "; 25 % of the training images' pixels are not blank" in coverage_sentence(
        tiny(), images
    )


@pytest.mark.parametrize(("like", "wrong"), [(0.0, "ignored"), (0.2, None), (None, "blank")])
def test_the_watch_looks_at_what_is_seen_alone(images, seen, like, wrong):
    """Canvases are noise where nothing is seen, and elsewhere follow the images or not."""
    rnp, images = RNP(tiny(program="flat")).eval(), (images / 255).masked_fill(~seen, torch.nan)
    run, mean = rnp.model.recursion.forward, mean_image(images)
    shown = 0 * images if like is None else mean + like * (images - mean)
    noise = torch.rand(48, 1, 8, 8)
    rnp.model.recursion.forward = lambda *args: replace(run(*args), canvas=shown.where(seen, noise))
    found = problems(rnp, images)
    assert ("ignored" in found, "blank" in found) == (wrong == "ignored", wrong == "blank")


def test_images_are_moved_with_what_they_miss(images, seen):
    data = (images / 255).masked_fill(~seen, torch.nan)
    moved = jitter(data, 0.1)
    assert moved.isnan().any()
    assert moved.isfinite().any((1, 2, 3)).all()


@pytest.mark.parametrize("bytes_", [True, False])
def test_binarized_images_miss_what_they_missed(images, seen, bytes_):
    data = images if bytes_ else (images / 255).masked_fill(~seen, torch.nan)
    masks = seen if bytes_ else None
    whole = splits(data, masks)
    found = load_data(whole, binarize=True)
    values = found.train.images
    assert torch.equal(values.isnan(), ~seen[:32])
    assert set(values[seen[:32]].unique().tolist()) == {0.0, 1.0}
    assert replace(found.train, masks=None).pixels.shape == (32, 1, 8, 8)
