"""ParseTree: names, paths, views and JSON."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch

from pyro_rnp import RNP, ParseTree
from pyro_rnp.affine import FIELDS, matrix
from tests.conftest import tiny


def test_paths_and_names(rnp, images):
    tree = rnp.parse(images)
    assert tree.level == 2
    assert [path for path, _ in tree.walk()] == [(), (0,), (0, 0), (0, 1), (1,), (1, 0), (1, 1)]
    assert tree[1][0] is dict(tree.walk())[1, 0]
    assert tree[1][0].level == 0
    assert [len(tree.nodes(d)) for d in range(3)] == [1, 2, 4]
    sites = tree.sites()
    assert set(sites) == {
        "canvas", "z", "z/0", "z/1", "z/0/0", "z/0/1", "z/1/0", "z/1/1",
        "a/0", "a/1", "a/0/0", "a/0/1", "a/1/0", "a/1/1",
    }  # fmt: skip
    assert sites["z/1/0"] is tree[1][0].program


def test_matrices_compose_down_the_tree(rnp, images):
    tree = rnp.parse(images)
    assert tree.matrices(2).shape == (4, 4, 2, 3)
    torch.testing.assert_close(tree.matrices(1)[:, 1], matrix(tree[1].action))
    corner = torch.tensor([1.0, -1.0])
    m_part, m_sub, m = matrix(tree[1].action), matrix(tree[1][0].action), tree.matrices(2)[:, 2]
    inner = m_sub[..., :2] @ corner + m_sub[..., 2]
    through = (m_part[..., :2] @ inner.unsqueeze(-1)).squeeze(-1) + m_part[..., 2]
    torch.testing.assert_close(m[..., :2] @ corner + m[..., 2], through)


def by_hand(action, corner):
    """Where an action takes a corner of a part's frame, written out from the units of FIELDS."""
    sx, sy, rotation, shear, x, y = action.double().tolist()
    u, v = sx * corner[0], sy * corner[1]
    u = u + shear * v
    c, s = math.cos(rotation), math.sin(rotation)
    return c * u - s * v + x, s * u + c * v + y


@pytest.mark.parametrize("path", [(), (1,), (1, 0), (0, 1)])
def test_a_pose_has_the_corners_that_the_actions_have(images, path):
    size, image = 16, 2
    tree = RNP(tiny(image_size=size)).parse(images.repeat(1, 1, 2, 2)[..., :size, :size])
    for node in (tree[0], tree[1], tree[1][0], tree[0][1]):  # far from the untrained actions
        node.action[:] = torch.rand(len(node.action), 6) * 0.5 + 0.3
    pose = tree.pose(path, pixels=True)
    x, y, width, height, rotation, shear = (value[image].item() for value in pose)
    for corner in [(-1, -1), (1, -1), (-1, 1), (1, 1)]:
        point = corner
        for depth in range(len(path), 0, -1):
            point = by_hand(dict(tree.walk())[path[:depth]].action[image], point)
        expected = [(1 + value) / 2 * size for value in point]
        half = corner[0] * width / 2 + shear * corner[1] * height / 2, corner[1] * height / 2
        c, s = math.cos(rotation), math.sin(rotation)
        found = [x + c * half[0] - s * half[1], y + s * half[0] + c * half[1]]
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_pose_in_units_of_the_frame(rnp, images):
    tree = rnp.parse(images)
    sx, sy, rotation, shear, x, y = tree[1].action.unbind(-1)
    for path in (1, "1", (1,)):
        for got, wanted in zip(tree.pose(path), (x, y, sx, sy, rotation, shear), strict=True):
            torch.testing.assert_close(got, wanted)
    whole = tree.pose((), pixels=True)
    assert [float(value[0]) for value in whole] == [4, 4, 8, 8, 0, 0]
    inside = tree[1].pose((0,))  # of a sub-part, in its part's frame
    torch.testing.assert_close(inside.width, tree[1][0].action[:, 0])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (2, "There is no part 2: the tree has 2 parts, 0 to 1, as parts count from 0."),
        ((1, 2), "There is no part 1/2: part 1 has 2 parts, 1/0 to 1/1, as parts count from 0."),
        ((-1,), "There is no part -1: the tree has 2 parts"),
        ("1/0/0", "There is no part 1/0/0: part 1/0 has no parts."),
        ("one", "A part is written as 1, a sub-part as 1/3, not 'one'; parts count from 0."),
    ],
)
def test_a_pose_of_no_part_is_refused(rnp, images, path, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        rnp.parse(images).pose(path, pixels=True)


def test_map_takes_images_out_of_the_batch(rnp, images):
    whole, part = rnp.parse(images), rnp.parse(images).map(lambda t: t[1:3])
    assert part.canvas.shape == (2, 1, 8, 8)
    for name, value in part.sites().items():
        assert torch.equal(value, whole.sites()[name][1:3])


def test_a_tree_as_json(rnp, images):
    tree = rnp.parse(images)
    node = json.loads(json.dumps(tree.to_dict(2)))
    assert node["part"] == "image"
    assert node["intensity"] == pytest.approx(tree.canvas[2].sum().item())
    assert "action" not in node
    sub = node["parts"][1]["parts"][0]
    assert sub["part"] == "1/0"
    assert "parts" not in sub
    assert list(sub["action"]) == list(FIELDS)
    torch.testing.assert_close(
        torch.tensor(list(sub["action"].values())), tree[1][0].action[2].detach()
    )
    assert len(sub["program"]) == 3


def test_one_level_deep():
    tree = RNP(tiny(steps=(3,))).sample(2)
    assert (tree.level, len(tree), tree[0].level) == (1, 3, 0)
    assert torch.equal(tree[2].canvas, tree[2].decoding)


@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_a_leaf_is_kept_once(images, feedback):
    tree = RNP(tiny(feedback=feedback)).parse(images)
    halves = tree.split(2)
    for same in (tree, tree.map(torch.clone), *halves, ParseTree.join(halves)):
        assert all(leaf.canvas is leaf.decoding for leaf in same.nodes(2))
        assert all(part.canvas is not part.decoding for part in same)
    c = tiny()
    leaves, parts, top = 4 * c.patch_size**2, 2 * 2 * c.patch_size**2, c.image_size**2
    numbers = leaves + parts + top + 7 * c.program_size + 6 * 6
    assert tree.nbytes == 4 * len(images) * numbers


def test_without_a_renderer_nothing_says_how_parts_share_a_canvas(rnp, images):
    tree = rnp.parse(images)
    bare = ParseTree(tree.program, tree.canvas, children=tree.children)
    with pytest.raises(ValueError, match=r"has parts but no renderer.*renderer=Renderer\(config\)"):
        bare.contributions(1)
    inside = replace(tree, children=tuple(replace(part, renderer=None) for part in tree))
    with pytest.raises(ValueError, match="has parts but no renderer"):
        inside.contributions(2)
    for depth in (0, 3):
        with pytest.raises(ValueError, match=rf"depth must lie in \[1, 2\], got {depth}"):
            tree.contributions(depth)


def test_a_tree_is_shown_in_one_line(rnp, images):
    assert repr(rnp.parse(images)) == "ParseTree(level=2, parts=2, canvas=(4, 1, 8, 8))"


@pytest.mark.parametrize(("former", "present"), [("ink", "appearance"), ("painter", "renderer")])
def test_former_names_of_a_tree_s_fields_are_read_with_a_warning(former, present):
    tree = RNP(tiny()).sample(2)
    for node in (tree, tree[0]):
        with pytest.warns(DeprecationWarning, match=f"ParseTree.{former} is now .*{present}"):
            assert getattr(node, former) is getattr(node, present)
