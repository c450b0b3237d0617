"""Numbers of parses, against trees made by hand."""

import pytest
import torch

from inference.parses import levels, parse_numbers
from pyro_rnp import RNP, ParseTree
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
        canvas = parts and ParseTree(z, torch.zeros(2, 1, 8, 8), children=parts).contributions(1)
        return ParseTree(z, canvas.sum(1), None, None, parts)


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
    found = parse_numbers(rnp, images)
    assert found["explained_by_step"] == pytest.approx(steps, abs=1e-5)
    assert found["overlap"] == pytest.approx(overlap, abs=1e-5)
    explained = 1 - found["sse_level_1"] / images[0].square().sum().item()
    assert sum(found["explained_by_step"]) == pytest.approx(explained, abs=1e-5)


def test_fewer_levels_draw_what_parents_expect(images):
    rnp = RNP(tiny()).train()
    found = parse_numbers(rnp, images, batch_size=3)
    assert found.keys() == {"sse_level_1", "sse_level_2", "explained_by_step", "overlap"}
    assert found["sse_level_1"] != found["sse_level_2"]
    assert rnp.training
    assert rnp.model.recursion.levels == 2
    with levels(rnp, 1):
        tree = rnp.parse(images)
    assert all(torch.equal(part.canvas, part.decoding) and not len(part) for part in tree)
