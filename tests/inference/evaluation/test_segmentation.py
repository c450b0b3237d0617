"""Segments by parts, against hand-made cases."""

import pytest
import torch

from inference.data import ImageSet
from inference.evaluation.segmentation import (
    adjusted_rand,
    by_position,
    segment,
    segmentation_metrics,
)
from inference.posterior import query
from pyro_rnp import RNP, ParseTree
from pyro_rnp.rendering import Renderer
from tests.conftest import tiny


def halves():
    """A tree that draws the left half as part 0 and the right half as part 1."""
    n, z = 2, torch.zeros(2, 3)
    patch = torch.ones(n, 1, 4, 4)

    def at(x):
        return torch.tensor([[0.5, 1.0, 0, 0, x, 0]]).expand(n, 6)

    parts = tuple(ParseTree(z, patch, at(x), patch) for x in (-0.5, 0.5))
    canvas = torch.ones(n, 1, 8, 8)
    return ParseTree(z, canvas, children=parts, renderer=Renderer(tiny()))


def test_segments_are_the_strongest_parts():
    found = segment(halves(), 1)
    assert found[:, :, :4].eq(0).all()
    assert found[:, :, 4:].eq(1).all()


def test_adjusted_rand_against_known_partitions():
    truth = torch.full((2, 8, 8), -1)
    truth[0, :, :4], truth[0, :, 4:] = 7, 3  # the same halves under other names
    truth[1, :2], truth[1, 2:4] = 0, 1  # across them; the lower half does not count
    scores = adjusted_rand(segment(halves(), 1), truth)
    assert scores[0] == 1
    assert scores[1].abs() < 0.1


def test_the_floor_tells_pixels_apart_by_where_they_are():
    truth = torch.full((3, 8, 8), -1)
    truth[0, 1:3, 1:3], truth[0, 5:7, 5:7], truth[0, 1, 7] = 4, 2, 9
    truth[1, ::2], truth[1, 1::2] = 0, 1  # stripes, which positions do not tell
    found = by_position(truth)
    assert torch.equal(found < 0, truth < 0)
    scores = adjusted_rand(found, truth)
    assert scores[0] == 1
    assert scores[1] < 0.3
    assert scores[2] == 1, "nothing to tell apart"


def test_the_posterior_s_segments_are_its_most_probable_parts(rnp, images):
    truth = torch.randint(-1, 3, (4, 2, 8, 8))
    data = ImageSet(images, torch.zeros(4, dtype=torch.long), truth)
    how = {"num_samples": 5, "seed": 3}
    found = segmentation_metrics(rnp, data, "guide", **how)
    answer = query(rnp, images, method="guide", **how)
    for depth, name in ((1, "ari_parts"), (2, "ari_subparts")):
        chances = answer.part_probabilities(depth)
        chances[:, -1] = 0  # that no part made it
        scores = adjusted_rand(chances.argmax(1), truth[:, depth - 1])
        assert found[name] == pytest.approx(scores.mean().item())
        assert found[f"{name}_error"] == pytest.approx(scores.std().item() / 2)
        floor = adjusted_rand(by_position(truth[:, depth - 1]), truth[:, depth - 1])
        assert found[f"{name}_floor"] == pytest.approx(floor.mean().item())
    with pytest.raises(ValueError, match="flat program has no parts"):
        segmentation_metrics(RNP(tiny(program="flat:units=3")), data)
    with pytest.raises(ValueError, match="true parts of these images are not known"):
        segmentation_metrics(rnp, ImageSet(images, data.labels))
