"""Frames in the image, and what their handles do."""

import math

import pytest
import torch

from inference.explore import COLOUR_BLIND, HANDLES, dragged, handles, parts
from inference.posterior import intervene
from pyro_rnp import RNP
from pyro_rnp.affine import FIELDS, UNITS
from pyro_rnp.parse_tree import ParseTree
from tests.conftest import tiny

PLAIN = (0.3, 0.3, 0.0, 0.0, 0.0, 0.0)
SKEW = (0.3, 0.35, 0.4, -0.2, 0.1, -0.3)
CONFIG = tiny(steps=(2, 2), image_size=32, patch_size=16)


def tree_of(action, below=PLAIN):
    """A tree whose parts and sub-parts have these actions."""
    blank = torch.zeros(1, 1, 16, 16)

    def node(action, children=()):
        return ParseTree(torch.zeros(1, 3), blank, torch.tensor([action]), children=children)

    leaves = (node(below), node(below))
    return ParseTree(torch.zeros(1, 3), blank, children=(node(action, leaves), node(PLAIN, leaves)))


def first(action, below=PLAIN):
    return {part.path: part for part in parts(tree_of(action, below), CONFIG)}


def test_every_part_has_its_frame_colour_and_numbers():
    found = parts(tree_of(SKEW), CONFIG)
    assert [part.path for part in found] == ["0", "1", "0/0", "0/1", "1/0", "1/1"]
    assert [(part.depth, part.level) for part in found] == [(1, 1)] * 2 + [(2, 0)] * 4
    assert [part.label for part in found[1:3]] == ["part 1", "sub-part 0/0"]
    assert (found[2].site, found[2].program) == ("a/0/0", "z/0/0")
    assert [part.colour for part in found[:2]] == ["#1f77b4", "#d62728"]  # the paper's blue and red
    assert len({part.colour for part in found}) == 6
    assert found[0].action == pytest.approx(SKEW)
    assert tuple(number.field for number in found[0].numbers) == FIELDS
    assert all(number.unit == UNITS[number.field] for number in found[0].numbers)
    assert [(n.low, n.high) for n in found[0].numbers[2:]] == [
        pytest.approx((-high, high)) for high in (math.pi / 4, 0.5, 0.8, 0.8)
    ]
    other = parts(tree_of(SKEW), CONFIG, COLOUR_BLIND)
    assert [part.colour for part in other[:2]] == [colour.lower() for colour in COLOUR_BLIND[:2]]


def test_corners_are_shares_of_the_image():
    found = first((0.5, 0.25, 0.0, 0.0, 0.5, 0.0), (0.5, 0.5, 0.0, 0.0, 0.0, 0.0))
    corners = ((0.5, 0.375), (1.0, 0.375), (1.0, 0.625), (0.5, 0.625))
    assert found["0"].corners == tuple(pytest.approx(corner) for corner in corners)
    assert found["0/0"].corners[0] == pytest.approx((0.625, 0.4375))
    turned = first((0.5, 0.5, math.pi / 2, 0.0, 0.0, 0.0))["0"]
    assert turned.corners[0] == pytest.approx((0.75, 0.25))  # clockwise


@pytest.mark.parametrize("path", ["0", "0/1"])
@pytest.mark.parametrize("handle", HANDLES)
def test_a_handle_follows_the_pointer(handle, path):
    before = first(SKEW, (0.3, 0.4, -0.2, 0.1, 0.2, 0.1))[path]
    start = dict(handles(before))
    by = 0.01 if path == "0" else 0.004
    action = dragged(before, handle, by, by / 2)
    actions = {path: tuple(action)}
    after = first(actions.get("0", SKEW), actions.get("0/1", (0.3, 0.4, -0.2, 0.1, 0.2, 0.1)))[path]
    end, wanted = handles(after), (start[handle][0] + by, start[handle][1] + by / 2)
    assert after.action != pytest.approx(before.action, abs=1e-4)
    if handle in ("move", "scale"):
        assert end[handle] == pytest.approx(wanted, abs=1e-5)
    if handle != "move":
        assert end["move"] == pytest.approx(start["move"], abs=1e-6)
    changed = {
        "move": {"x", "y"},
        "scale": {"scale_x", "scale_y"},
        "rotate": {"rotation"},
    }.get(handle, {handle})
    for number, value in zip(before.numbers, action, strict=True):
        if number.field not in changed:
            assert value == pytest.approx(number.value, abs=1e-6)
    if handle == "rotate":  # it points to where the pointer is
        (cx, cy), (x, y) = end["move"], end["rotate"]
        angle = math.atan2(wanted[1] - cy, wanted[0] - cx)
        assert math.atan2(y - cy, x - cx) == pytest.approx(angle, abs=1e-5)


@pytest.mark.parametrize("handle", HANDLES)
@pytest.mark.parametrize("by", [(9.0, -7.0), (-9.0, 7.0), (0.0, 9.0), (-9.0, 0.0)])
def test_numbers_stop_at_their_bounds(handle, by):
    part = first(SKEW)["0/0"]
    for number, value in zip(part.numbers, dragged(part, handle, *by), strict=True):
        assert number.low <= value <= number.high


def test_a_part_that_was_removed_is_taken_back_within_bounds():
    part = first((*SKEW[:4], 3.0, 0.0))["0"]
    assert dragged(part, "move", 0.0, 0.0)[4] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("handle", "dx", "sentence"),
    [
        ("twist", 0.0, "no handle 'twist'; there are move, scale"),
        ("move", math.nan, "by finite numbers, got nan"),
        ("move", math.inf, "by finite numbers, got inf"),
    ],
)
def test_bad_drags_get_one_sentence(handle, dx, sentence):
    with pytest.raises(ValueError, match=sentence):
        dragged(first(PLAIN)["0"], handle, dx, 0.0)


def test_pixels_move_as_far_as_the_frame():
    rnp = RNP(CONFIG).eval()
    tree = rnp.parse(torch.rand(1, 1, 32, 32))
    tree = intervene(rnp, tree, {"a/1": torch.tensor([0.4, 0.4, 0.1, 0.0, -0.25, 0.0])})
    part = {part.path: part for part in parts(tree, CONFIG)}["1"]
    action = dragged(part, "move", 4 / 32, 2 / 32)
    after = intervene(rnp, tree, {"a/1": torch.tensor(action)})
    alone, moved = tree.contributions(1)[0, 1, 0], after.contributions(1)[0, 1, 0]
    assert alone.any()
    assert torch.allclose(moved, alone.roll((2, 4), (0, 1)), atol=1e-5)
    assert torch.allclose(after.contributions(1)[0, 0], tree.contributions(1)[0, 0], atol=1e-6)
    frame = {part.path: part for part in parts(after, CONFIG)}["1"].corners[0]
    assert frame == pytest.approx((part.corners[0][0] + 4 / 32, part.corners[0][1] + 2 / 32))


def test_a_flat_program_has_no_parts():
    rnp = RNP(tiny(program="flat"))
    assert parts(rnp.sample(1), rnp.config) == []
