"""Masks drawn at random."""

import pytest
import torch

from inference.data.masks import random_masks
from inference.posterior import half_mask

SIDES = ("left", "right", "top", "bottom")


def drawn(*kinds, n=200, size=9):
    torch.manual_seed(0)
    masks = random_masks(n, size, kinds)
    assert (masks.shape, masks.dtype) == ((n, 1, size, size), torch.bool)
    return masks[:, 0]


def patterns(masks):
    return {tuple(mask.flatten().tolist()) for mask in masks}


def test_halves_are_the_halves_that_a_query_hides():
    assert patterns(drawn("halves")) == patterns([half_mask(side, 9) for side in SIDES])


def test_quadrants_are_those_where_two_halves_meet_and_what_is_left():
    quadrants = [half_mask(a, 9) & half_mask(b, 9) for a in SIDES[:2] for b in SIDES[2:]]
    assert patterns(drawn("quadrants")) == patterns([*quadrants, *(~q for q in quadrants)])


def test_a_block_is_a_rectangle_that_is_seen_or_hidden():
    seen = 0
    for mask in drawn("blocks"):
        boxes = [
            inside
            for inside in (mask, ~mask)
            if torch.equal(inside, inside.any(1, keepdim=True) & inside.any(0, keepdim=True))
        ]
        assert boxes
        seen += int(torch.equal(boxes[0], mask))
    assert 60 < seen < 140
    assert len(patterns(drawn("blocks"))) > 150


def test_the_share_of_pixels_that_is_seen_is_uniform():
    share = drawn("pixels").float().mean((1, 2))
    low, middle, high = share.quantile(torch.tensor([0.1, 0.5, 0.9]))
    assert low < 0.2 < 0.4 < middle < 0.6 < 0.8 < high


def test_kinds_are_equally_frequent():
    whole = drawn("none", "halves").all((1, 2)).float().mean()
    assert 0.4 < whole < 0.6
    assert drawn("none").all()


@pytest.mark.parametrize("kind", ["halves", "quadrants", "blocks", "pixels", "none"])
def test_masks_repeat_by_seed(kind):
    assert torch.equal(drawn(kind), drawn(kind))
