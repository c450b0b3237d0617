"""Numbers of parses, against trees made by hand."""

import math
from dataclasses import replace

import pytest
import torch

from inference.data import ImageSet
from inference.evaluation.reconstruction import expected, reconstruction_metrics
from pyro_rnp import RNP, ParseTree
from pyro_rnp.rendering import Renderer
from tests.conftest import tiny


def at(x):
    return torch.tensor([[0.5, 1.5, 0, 0, x, 0]]).expand(2, 6)


class Drawn(torch.nn.Module):
    """A recursion that draws squares at the places that are given, whatever the program."""

    def __init__(self, places):
        super().__init__()
        self.places, self.levels = places, 1

    def forward(self, z, sites=None, target=None):
        patch, z = torch.ones(2, 1, 4, 4), torch.zeros(2, 3)
        parts = tuple(ParseTree(z, patch, at(x), patch) for x in self.places)
        blank = ParseTree(z, torch.zeros(2, 1, 8, 8), children=parts, renderer=Renderer(tiny()))
        return replace(blank, canvas=blank.contributions(1).sum(1))


@pytest.mark.parametrize(
    ("places", "image", "steps", "overlap"),
    [
        ((-0.5, 0.5), torch.ones(8), [0.5, 0.5], 0.0),  # the left half, then the right
        ((-0.5, -0.5), torch.ones(8), [0.5, -0.5], 0.5),  # twice the same
        ((0.5, -0.5), torch.tensor([1.0] * 4 + [0.0] * 4), [-1.0, 1.0], 0.0),
    ],
)
def test_steps_explain_what_they_add(places, image, steps, overlap):
    rnp = RNP(tiny(steps=(2,)))
    rnp.model.recursion = Drawn(places)
    images = image.expand(2, 1, 8, 8)
    found = reconstruction_metrics(rnp, images)
    assert found["explained_by_step"] == pytest.approx(steps, abs=1e-5)
    assert found["overlap"] == pytest.approx(overlap, abs=1e-5)
    explained = 1 - found["sse_level_1"] / images[0].square().sum().item()
    assert sum(found["explained_by_step"]) == pytest.approx(explained, abs=1e-5)


def test_where_nothing_is_drawn_there_is_no_overlap_to_speak_of(images):
    rnp = RNP(tiny())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParseTree, "contributions", lambda tree, depth: torch.zeros(4, 2, 1, 8, 8))
        assert math.isnan(reconstruction_metrics(rnp, images)["overlap"])


def test_where_frames_overlap_the_mean_of_what_is_expected():
    full, z = torch.ones(1, 1, 4, 4), torch.zeros(1, 3)
    place = torch.tensor([[1.0, 1.0, 0, 0, 0, 0]])
    right = torch.tensor([[0.5, 1.0, 0, 0, 0.5, 0]])
    leaf = (ParseTree(z, full, place, full),)
    parts = (
        ParseTree(z, full, place, full, leaf),  # all of the image, of which all is ink
        ParseTree(z, full, right, 0.5 * full, leaf),  # the right half, of which half is
    )
    tree = ParseTree(z, torch.zeros(1, 1, 8, 8), None, None, parts)
    row = torch.tensor([1.0, 1, 0.75, 0.75])  # the mean of both on the right, edges left out
    found = expected(tree, 1)[0, 0, 3]
    torch.testing.assert_close(found[[1, 2, 5, 6]], row)
    apart = ParseTree(z, tree.canvas, None, None, parts[1:])
    torch.testing.assert_close(expected(apart, 1)[0, 0, 3, [0, 1, 6]], torch.tensor([0, 0, 0.5]))


def test_a_number_for_each_level(images):
    rnp = RNP(tiny()).train()
    train = ImageSet(torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.long))
    found = reconstruction_metrics(rnp, images, batch_size=3, train=train)
    without = {"sse_blank", "sse_mean_image", "explained_mean_image"}
    own = {"sse_level_1", "sse_level_2", "explained_by_step", "overlap"}
    assert found.keys() == own | without
    assert found["sse_blank"] == pytest.approx(images.square().sum().item() / 4, rel=1e-5)
    mean = (images - train.images.mean(0)).square().sum().item() / 4
    assert found["sse_mean_image"] == pytest.approx(mean, rel=1e-5)
    assert found["sse_level_1"] != found["sse_level_2"]
    assert rnp.training
