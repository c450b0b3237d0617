"""Placement and composition: from patches to a canvas."""

import math

import pytest
import torch

from pyro_rnp import RNP
from pyro_rnp.affine import compose, inverse_matrix, place, points, warp
from pyro_rnp.compositions import NoisyOr, Over
from pyro_rnp.placements import Continuous
from pyro_rnp.recursion import Recursion
from tests.conftest import tiny


def tree(**changes):
    recursion = Recursion(tiny(**changes)).double()
    with torch.no_grad():
        for p in recursion.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return recursion(torch.randn(3, 3, dtype=torch.float64))


def test_a_sum_is_the_sum_of_what_is_placed():
    found = tree()
    wanted = sum(place(part.canvas, part.action, 8) for part in found)
    torch.testing.assert_close(found.canvas, wanted)


def test_bicubic_reads_a_smooth_picture_closer_than_bilinear():
    found = tree(placement="bicubic", steps=(1,))
    wanted = warp(found[0].canvas, inverse_matrix(found[0].action), 8, "bicubic")
    torch.testing.assert_close(found.canvas, wanted)
    x = (2 * torch.arange(12, dtype=torch.float64) + 1) / 12 - 1
    image = (3 * x).cos().expand(1, 1, 12, 12)
    half = torch.tensor([[[0.3, 0, 0.1], [0, 0.3, 0]]], dtype=torch.float64)
    exact = (3 * points(half, 5)[0, ..., 0]).cos()
    cubic, linear = (
        (warp(image, half, 5, mode)[0, 0] - exact).abs().max() for mode in ("bicubic", "bilinear")
    )
    assert cubic < 0.7 * linear


def test_noisy_or_is_one_minus_the_product():
    placed = torch.rand(4, 2, 1, 5, 5, dtype=torch.float64)
    seen = NoisyOr(tiny())(placed, None)
    torch.testing.assert_close((placed * seen).sum(0), 1 - (1 - placed).prod(0))
    assert seen[0].eq(1).all()
    found = tree(composition="noisy_or")
    placed = torch.stack([place(part.canvas, part.action, 8) for part in found])
    torch.testing.assert_close(found.canvas, 1 - (1 - placed).prod(0))


def test_over_shows_the_last_sheet_whole_and_others_where_it_is_not():
    covers = torch.zeros(2, 1, 1, 3, 3, dtype=torch.float64)
    covers[0, ..., :2], covers[1, ..., 1:] = 1, 1
    placed = torch.tensor([0.7, 0.2]).double().view(2, 1, 1, 1, 1) * covers
    shown = (placed * Over(tiny())(placed, covers)).sum(0)
    torch.testing.assert_close(shown[0, 0, 0], torch.tensor([0.7, 0.2, 0.2]).double())
    found = tree(composition="over", steps=(2,))
    last = place(found[1].canvas, found[1].action, 8)
    inside = place(torch.ones_like(found[1].canvas), found[1].action, 8) > 1 - 1e-9
    assert inside.any()
    torch.testing.assert_close(found.canvas[inside], last[inside])


@pytest.mark.parametrize("placement", ["bilinear", "bicubic", "continuous"])
def test_composed_leaves_go_straight_to_the_image(placement):
    found = tree(composed=True, placement=placement, steps=(2, 2))
    canvas = torch.zeros_like(found.canvas)
    for part in found:
        for leaf in part:
            back = compose(inverse_matrix(leaf.action), inverse_matrix(part.action))
            placement_ = found.renderer.placement
            if placement == "continuous":
                canvas = canvas + placement_.leaf(leaf.appearance, back, 8)
            else:
                canvas = canvas + warp(leaf.canvas, back, 8, placement)
    torch.testing.assert_close(found.canvas, canvas)
    maps = found.matrices(2)  # the same place, by the forward maps
    corner = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    there = maps[:, 3] @ corner
    homogeneous = torch.cat([there, torch.ones(3, 1, dtype=torch.float64)], 1)
    back = compose(inverse_matrix(found[1][1].action), inverse_matrix(found[1].action))
    returned = (back @ homogeneous.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(returned, corner[:2].expand(3, 2))


def test_a_continuous_patch_is_a_sum_of_cosines():
    placement = Continuous(tiny(patch_size=4, channels=2)).double()
    appearance = torch.randn(3, placement.appearance_size, dtype=torch.float64)
    centres = [(2 * i + 1) / 4 - 1 for i in range(4)]
    patch = placement.patch(appearance)
    for n, c, row, column in ((0, 0, 0, 0), (1, 1, 2, 3), (2, 0, 3, 1)):
        coefficients = appearance[n].view(2, 4, 4)[c]
        logit = sum(
            coefficients[i, j]
            * math.cos(math.pi * j * (centres[row] + 1) / 2)
            * math.cos(math.pi * i * (centres[column] + 1) / 2)
            for i in range(4)
            for j in range(4)
        )
        assert patch[n, c, row, column].item() == pytest.approx(
            1 / (1 + math.exp(-logit * 2 / 4)), abs=1e-9
        )


def test_a_continuous_leaf_lands_without_interpolation():
    placement = Continuous(tiny(patch_size=12)).double()
    appearance = torch.randn(1, placement.appearance_size, dtype=torch.float64)
    action = torch.tensor([[0.8, 0.7, 0.4, 0.2, 0.1, -0.1]], dtype=torch.float64)
    fine = placement.leaf(appearance, inverse_matrix(action), 101)
    same = torch.eye(2, 3, dtype=torch.float64).unsqueeze(0)
    sizes = (12, 48, 192)  # read through ever finer pixels
    coarse = [place(placement.leaf(appearance, same, size), action, 101) for size in sizes]
    far = points(inverse_matrix(action), 101).abs().amax(-1).unsqueeze(1)
    inside = far < 0.7  # of its edge, where it fades
    errors = [(c - fine)[inside].abs().max().item() for c in coarse]
    assert errors[2] < errors[1] / 4 < errors[0] / 16


@pytest.mark.parametrize("placement", ["bilinear", "bicubic", "continuous"])
def test_parts_start_near_blank(placement):
    rnp = RNP(tiny(placement=placement, patch_size=12, image_size=16))
    assert rnp.sample(50)[0][0].canvas.mean() < 0.15


def test_a_cover_is_where_a_patch_of_ones_lands():
    rnp = RNP(tiny())
    action = torch.tensor([[0.5, 0.4, 0.3, 0.2, 0.1, -0.2]])
    cover = rnp.model.recursion.renderer.placement.cover(inverse_matrix(action), 40)
    ones = place(torch.ones(1, 1, 5, 5), action, 40)
    torch.testing.assert_close(cover, ones, rtol=0, atol=1e-5)
