"""The laws of the actions: identity, inverse, composition, area."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_rnp import RNPConfig
from pyro_rnp.affine import (
    Bounded,
    area,
    bounded,
    codomain,
    compose,
    coverage,
    glimpse,
    inverse_matrix,
    matrix,
    place,
    points,
    unbounded,
    warp,
)

IDENTITY = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


def number(low, high):
    return st.floats(low, high, allow_nan=False)


def action_within(low, high, reach):
    """Random actions with scales between `low` and `high` and translations up to `reach`."""
    scale, place, turn = number(low, high), number(-reach, reach), number(-math.pi, math.pi)
    fields = st.tuples(scale, scale, turn, number(-1, 1), place, place)
    return fields.map(lambda a: torch.tensor([a], dtype=torch.float64))


actions = action_within(0.1, 2, 1)
raw = st.lists(number(-50, 50), min_size=6, max_size=6).map(
    lambda r: torch.tensor([r], dtype=torch.float64)
)


def square(m):
    """The 2x3 map as a 3x3 matrix."""
    last = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=m.dtype).expand(len(m), 1, 3)
    return torch.cat([m, last], 1)


def smooth(size, dtype=torch.float64):
    """A blurred spot in the middle of an image, blank at the border."""
    at = (torch.arange(size, dtype=dtype) + 0.5) * 2 / size - 1
    spot = torch.exp(-4 * (at[:, None] - 0.1) ** 2 - 6 * (at[None] + 0.05) ** 2)
    edge = (1 - at[:, None] ** 2) * (1 - at[None] ** 2)
    return (spot * edge)[None, None]


def test_the_identity_changes_nothing():
    image = torch.rand(1, 2, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(place(image, IDENTITY, 9), image)
    torch.testing.assert_close(glimpse(image, IDENTITY, 9), image)


@given(actions)
@settings(deadline=None)
def test_the_closed_form_inverse_is_the_inverse(action):
    torch.testing.assert_close(
        square(inverse_matrix(action)),
        torch.linalg.inv(square(matrix(action))),
        rtol=1e-8,
        atol=1e-8,
    )


@given(actions)
@settings(deadline=None)
def test_area_is_the_determinant(action):
    torch.testing.assert_close(area(action), torch.linalg.det(matrix(action)[..., :2]))


@given(actions, actions)
@settings(deadline=None)
def test_composition_is_the_matrix_product(outer, inner):
    composed = compose(matrix(outer), matrix(inner))
    torch.testing.assert_close(square(composed), square(matrix(outer)) @ square(matrix(inner)))


@given(raw)
@settings(deadline=None)
def test_actions_stay_within_their_bounds(values):
    c = RNPConfig()
    sx, sy, rotation, shear, x, y = bounded(values, c).squeeze(0).tolist()
    assert all(c.min_scale <= s <= c.max_scale for s in (sx, sy))
    assert abs(rotation) <= c.max_rotation
    assert abs(shear) <= c.max_shear
    assert max(abs(x), abs(y)) <= c.max_translation


@given(raw)
@settings(deadline=None)
def test_bounds_can_be_undone(values):
    c = RNPConfig()
    small = values.clamp(-5, 5)
    torch.testing.assert_close(unbounded(bounded(small, c), c), small, rtol=1e-6, atol=1e-6)
    assert unbounded(bounded(1e3 * values, c), c).isfinite().all()


@given(raw)
@settings(deadline=None)
def test_the_bounds_log_derivative_is_that_of_the_map(values):
    c = RNPConfig()
    transform, values = Bounded(c), values.clamp(-8, 8)
    jacobian = torch.autograd.functional.jacobian(lambda v: bounded(v, c).sum(0), values)
    slopes = torch.stack([jacobian[i, :, i] for i in range(6)], 1)
    found = transform.log_abs_det_jacobian(values, transform(values))
    torch.testing.assert_close(found, slopes.log(), rtol=1e-5, atol=1e-5)
    far = torch.full((1, 6), 500.0)
    assert transform.log_abs_det_jacobian(far, transform(far)).isfinite().all()


def test_units_mean_what_they_say():
    patch = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    half = torch.tensor([[0.5, 0.5, 0, 0, 0.5, -0.5]], dtype=torch.float64)
    canvas = place(patch, half, 16)[0, 0]
    assert canvas[1:7, 9:15].eq(1).all(), "right of the centre, above it, half as large"
    assert canvas[:, :7].eq(0).all()
    assert canvas[9:].eq(0).all()
    right = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    right[0, 0, 4, 8] = 1
    turned = torch.tensor([[1, 1, math.pi / 2, 0, 0, 0]], dtype=torch.float64)
    assert place(right, turned, 9)[0, 0, 8, 4] == pytest.approx(1), "clockwise: right goes down"
    top = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    top[0, 0, 8, 4] = 1
    leaning = torch.tensor([[1, 1, 0, 0.5, 0, 0]], dtype=torch.float64)
    assert place(top, leaning, 9)[0, 0, 8, 6] == pytest.approx(1), "below: half a height right"


@given(action_within(0.2, 0.5, 0.2))
@settings(deadline=None, max_examples=30)
def test_a_glimpse_returns_what_was_placed(action):
    patch = smooth(40)
    back = glimpse(place(patch, action, 400), action, 40)
    torch.testing.assert_close(back, patch, rtol=0, atol=0.02)


def test_composed_placement_equals_placing_twice():
    patch = smooth(60)
    outer = torch.tensor([[0.6, 0.5, 0.4, 0.2, 0.1, -0.2]], dtype=torch.float64)
    inner = torch.tensor([[0.5, 0.7, -0.3, 0.1, -0.1, 0.2]], dtype=torch.float64)
    twice = place(place(patch, inner, 300), outer, 100)
    back = torch.linalg.inv(square(compose(matrix(outer), matrix(inner))))[:, :2]
    torch.testing.assert_close(warp(patch, back, 100), twice, rtol=0, atol=0.01)


def test_placed_ink_scales_with_the_area():
    patch = smooth(50)
    action = torch.tensor([[0.4, 0.3, 0.5, 0.3, 0.1, 0.2]], dtype=torch.float64)
    ink = place(patch, action, 200).mean() / patch.mean()
    assert ink.item() == pytest.approx(area(action).item(), rel=1e-3)


def test_gradcheck():
    patch = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    config = RNPConfig()
    assert torch.autograd.gradcheck(lambda p, v: place(p, bounded(v, config), 7), (patch, values))
    assert torch.autograd.gradcheck(lambda p, v: glimpse(p, bounded(v, config), 5), (patch, values))


def test_geometry_is_in_full_precision():
    action = torch.tensor([[0.4, 0.3, 0.5, 0.3, 0.1, 0.2]])
    maps = matrix(action)

    def computed():
        return compose(maps, maps), points(maps, 9)

    wanted = computed()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = computed()
    for x, y in zip(found, wanted, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(
    "changes",
    [{}, {"steps": (3,)}, {"max_translation": 0.1}, {"steps": (9, 9), "max_translation": 0.2}],
)
def test_no_parts_cover_more_than_the_bound(changes):
    """Parts at random and at their largest: full patches, at each level on their parents'."""
    config = RNPConfig(**changes)
    torch.manual_seed(0)
    n, size, below = 200, 40, torch.ones(200, 1, 40, 40)
    shares = []
    for steps in reversed(config.steps):  # full sub-parts first
        raw = 3 * torch.randn(n, steps, 6)
        raw[..., :2] = 20  # the largest scales
        placed = [place(below, bounded(raw[:, t], config), size) for t in range(steps)]
        below = torch.stack(placed).sum(0).clamp(max=1)
        shares.append(float((below > 0.5).float().mean((1, 2, 3)).max()))
    assert shares[-1] <= coverage(config)[-1] + 0.03  # half a pixel all around


def test_the_bound_of_parts_in_one_place_is_tight():
    config = RNPConfig(steps=(9,), max_translation=0.0, max_rotation=0.0, max_shear=0.0)
    assert coverage(config) == (pytest.approx(config.max_scale**2),)


def test_composed_leaves_may_leave_their_part_s_frame():
    near = {"steps": (1, 16), "max_translation": 0.0, "max_rotation": 0.0, "max_shear": 0.0}
    inside = coverage(RNPConfig(**near))
    outside = coverage(RNPConfig(**near, composed=True))
    assert inside[1] < outside[1] <= 1


@pytest.mark.parametrize("bounds", [(0.25, 0.27), (0.49, 0.54), (0.5, 0.55), (0.5, 0.501)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_actions_lie_within_narrow_bounds(bounds, dtype):
    config = RNPConfig(min_scale=bounds[0], max_scale=bounds[1])
    raw = torch.tensor([-50.0, -1e9, 50.0, 1e9], dtype=dtype).unsqueeze(1).expand(-1, 6)
    action = bounded(raw, config)
    assert codomain(config, action).check(action).all()
    torch.testing.assert_close(action[[0, 2], 0], torch.tensor(bounds, dtype=dtype))


def test_constants_that_are_made_in_inference_mode_serve_training():
    config = RNPConfig(min_scale=0.123, max_scale=0.234)  # of no other test
    with torch.inference_mode():
        place(torch.rand(2, 1, 5, 5), bounded(torch.randn(2, 6), config), 23)
    raw = torch.randn(2, 6, requires_grad=True)
    place(torch.rand(2, 1, 5, 5), bounded(raw, config), 23).sum().backward()
    assert raw.grad.isfinite().all()
