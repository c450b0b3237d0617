"""Missing pixels (NaN) count in no score."""

import math
from types import SimpleNamespace

import pytest
import torch

from inference.data import ImageSet, Splits, load_data
from inference.evaluation.completion import completion_metrics, nearest_images
from inference.evaluation.metrics import baselines, canvas_variance_ratio, evaluate
from inference.evaluation.reconstruction import reconstruction_metrics
from inference.evaluation.sample_quality import sample_quality_metrics
from inference.evaluation.segmentation import segmentation_metrics
from pyro_rnp import RNP
from pyro_rnp.missing import mean_image, variance
from tests.conftest import tiny

LEFT = (torch.arange(8) < 4).expand(8, 8)


def image_set(images, segments=None):
    return ImageSet(images, torch.arange(len(images)) % 2, segments)


@pytest.fixture
def seen():
    """The first image is whole; no image sees the last corner but the first two."""
    seen = torch.rand(6, 1, 8, 8) < 0.6
    seen[0] = True
    seen[2:, 0, 7, 7] = False
    return seen


@pytest.fixture
def images(seen):
    return torch.rand(6, 1, 8, 8).masked_fill(~seen, torch.nan)


def finite(scores):
    return all(
        finite(value) if isinstance(value, dict) else bool(torch.tensor(value).isfinite().all())
        for value in scores.values()
    )


def test_the_mean_image_and_variances_are_of_what_is_seen(images, seen):
    values = torch.rand(6, 1, 8, 8)
    mean, spread = mean_image(images), variance(values, images)
    for y in range(8):
        for x in range(8):
            there = seen[:, 0, y, x]
            torch.testing.assert_close(mean[0, y, x], images[there, 0, y, x].mean())
            if there.sum() > 1:
                torch.testing.assert_close(spread[0, y, x], values[there, 0, y, x].var())
            else:
                assert spread[0, y, x] == 0
    assert mean_image(images[3:4])[0, 7, 7] == 0, "seen by none"
    assert canvas_variance_ratio(values, values.where(seen, torch.nan)) == pytest.approx(1)


def test_scores_are_sums_over_seen_pixels(images, seen):
    rnp = RNP(tiny()).eval()
    scores = evaluate(rnp, image_set(images), train=image_set(images), per_image=True)
    each = scores.pop("per_image")
    assert finite(scores)
    canvas = rnp.parse(images).canvas
    squares = [float(((canvas - images)[i][seen[i]] ** 2).sum()) for i in range(6)]
    assert each["sse_mean"].tolist() == pytest.approx(squares)
    normaliser = seen.sum((1, 2, 3)) * math.log(0.5 * math.sqrt(2 * math.pi))
    elbo = -each["sse"] / (2 * 0.5**2) - normaliser - each["kl"]
    assert each["elbo"].tolist() == pytest.approx(elbo.tolist(), rel=1e-4)
    assert scores["mse"] == pytest.approx(6 * scores["sse"] / int(seen.sum()))
    blank = float((images[seen] ** 2).sum() / 6)
    assert scores["sse_blank"] == pytest.approx(blank)
    assert scores["explained"] == pytest.approx(1 - scores["sse"] / blank, rel=1e-4)
    apart = float(((mean_image(images) - images)[seen] ** 2).sum() / 6)
    assert scores["sse_mean_image"] == pytest.approx(apart)
    alone = evaluate(rnp, image_set(images[:1]), per_image=True)["per_image"]
    assert float(alone["sse_mean"]) == pytest.approx(float(each["sse_mean"][0])), "a whole image"


def test_baselines_of_whole_images_are_as_without_missing_ones():
    images = torch.rand(6, 1, 8, 8)
    mean = images.mean(0)
    found = baselines(images, image_set(images))
    assert found["sse_mean_image"] == float((images - mean).square().double().sum()) / 6


def test_reconstructions_are_scored_where_pixels_are_seen(images, seen):
    rnp = RNP(tiny()).eval()
    found = reconstruction_metrics(rnp, images, train=image_set(images))
    assert finite(found)
    torch.manual_seed(0)
    left = (rnp.parse(images, sample=True).canvas - images)[seen].square().sum() / 6
    assert found["sse_level_2"] == pytest.approx(float(left), rel=1e-5)


def test_segments_are_compared_where_pixels_are_seen(images, seen):
    rnp = RNP(tiny()).eval()
    segments = torch.randint(-1, 2, (6, 2, 8, 8))
    hidden = segments.masked_fill(~seen, -1)
    scores = [evaluate(rnp, image_set(images, s)) for s in (segments, hidden)]
    names = ("ari_parts", "ari_subparts", "ari_parts_floor")
    assert [scores[0][n] for n in names] == [scores[1][n] for n in names]
    found = [
        segmentation_metrics(rnp, image_set(images, s), "guide", num_samples=3, seed=0)
        for s in (segments, hidden)
    ]
    assert found[0] == found[1]


def test_the_nearest_image_is_told_by_what_both_see(images, seen):
    among = torch.rand(9, 1, 8, 8).where(torch.rand(9, 1, 8, 8) < 0.7, torch.nan)
    among[4] = torch.nan  # shares no pixel with any
    wanted = []
    for image in images:
        squares = [(image - other)[:, LEFT].square().nanmean() for other in among]
        wanted.append(int(torch.stack(squares).nan_to_num(torch.inf).argmin()))
    found = nearest_images(images, LEFT, among)
    assert torch.equal(found.isnan(), among[wanted].isnan())
    assert torch.equal(found.nan_to_num(), among[wanted].nan_to_num())


def test_completions_are_scored_where_hidden_pixels_are_known(images, seen):
    rnp = RNP(tiny()).eval()
    found = completion_metrics(rnp, images, LEFT, images, ("guide",), num_samples=3)
    assert finite(found)
    known = seen & ~LEFT
    assert found["blank"]["sse"] == pytest.approx(float(images[known].square().sum() / 6))
    apart = (mean_image(images) - images)[known].square().sum() / 6
    assert found["mean_image"]["sse"] == pytest.approx(float(apart))


def test_samples_miss_the_pixels_that_test_images_miss():
    """Samples that are the test images themselves are at distance 0 of them."""
    digits = load_data("digits").train.images[:90]
    digits = digits.where(torch.rand(digits.shape) < 0.8, torch.nan)
    data = image_set(digits)
    splits = Splits(data[:50], data[50:70], data[70:])

    rnp, canvas = RNP(tiny(image_size=28)), digits[70:80].nan_to_num(0.7)
    rnp.sample = lambda num: SimpleNamespace(canvas=canvas)
    found = sample_quality_metrics(rnp, splits, 10)
    assert finite(found)
    assert found["frechet"] == pytest.approx(0, abs=1e-6)
