"""The picture of a program's steps: its tiles hold what the program places, step by step."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from torch.nn import functional as F

from inference.plotting import COLOURS, coloured, grey, program_figure
from pyro_rnp import RNP
from pyro_rnp.affine import matrix
from pyro_rnp.plotting import shades
from tests.conftest import tiny


def blocks(figure, columns):
    """The tiles of each image: rows of columns of pictures, frames and borders."""
    (axis,) = figure.axes
    found = {}
    for kind, artists in (("frames", axis.collections), ("borders", axis.patches)):
        for artist in artists:
            found.setdefault((kind, artist.get_gid()), []).append(artist)
    rows = {}
    for image in axis.images:
        row, _, i = image.get_gid().rpartition("/")
        own = [found.get((kind, image.get_gid()), []) for kind in ("frames", "borders")]
        rows.setdefault(row, {})[int(i)] = (image, *own)
    count = max(map(len, rows.values())) // columns
    return [
        {row: [tiles[i * columns + c] for c in range(columns)] for row, tiles in rows.items()}
        for i in range(count)
    ]


def placed(node, size):
    """A part on an empty canvas, by torch's own functions."""
    square = torch.cat([matrix(node.action), torch.tensor([[[0.0, 0, 1]]]).expand(4, 1, 3)], 1)
    grid = F.affine_grid(square.inverse()[:, :2], [4, 1, size, size], align_corners=False)
    return F.grid_sample(node.canvas, grid, align_corners=False)


def shown(tile):
    return torch.as_tensor(np.asarray(tile[0].get_array()))


def test_tiles_are_the_partial_sums_of_placed_parts(images):
    tree = RNP(tiny(steps=(3, 2))).eval().parse(images)
    found = blocks(program_figure(tree, images=images), columns=4)
    parts = [placed(node, 8) for node in tree]
    close = {"rtol": 0, "atol": 1e-5}
    assert len(found) == 4
    for i, block in enumerate(found):
        assert list(block) == ["canvas so far", "parts", "sub-parts"]
        torch.testing.assert_close(shown(block["canvas so far"][0]), grey(images)[i], **close)
        for t, node in enumerate(tree):
            so_far = grey(sum(parts[: t + 1]))[i]
            torch.testing.assert_close(shown(block["canvas so far"][t + 1]), so_far, **close)
            ink = torch.tensor([to_rgb(COLOURS[t])])
            alone = 1 - parts[t][i, 0].clamp(0, 1).unsqueeze(-1) * (1 - ink)
            torch.testing.assert_close(shown(block["parts"][t + 1]), alone, **close)
            own = sum(
                placed(leaf, 5)[i, 0].unsqueeze(-1) * (1 - torch.tensor(colour))
                for leaf, colour in zip(node, shades(tree, 2)[2 * t :], strict=False)
            )
            below = (1 - own).clamp(0, 1)
            torch.testing.assert_close(shown(block["sub-parts"][t + 1]), below, **close)
        last = grey(tree.canvas)[i]
        torch.testing.assert_close(shown(block["canvas so far"][3]), last, **close)


def test_frames_and_borders_tell_where_a_part_is_and_whose_canvas_one_sees(images):
    tree = RNP(tiny(steps=(3, 2))).eval().parse(images)
    for i, block in enumerate(blocks(program_figure(tree, images=images), columns=4)):
        assert not any(frames for _, frames, _ in block["canvas so far"])
        assert len(block["parts"][0][1][0].get_segments()) == 3
        for t, node in enumerate(tree):
            colour = to_rgb(COLOURS[t])
            for row, step, maps in (("parts", 1, matrix(node.action).unsqueeze(1)),
                                    ("sub-parts", 2, node.matrices(1))):  # fmt: skip
                image, (lines,), (border,) = block[row][t + 1]
                left, right, bottom, top = image.get_extent()
                centre = np.array([left + right, top + bottom]) / 2
                for corners, own in zip(lines.get_segments(), maps[i], strict=True):
                    middle = 2 * (corners[:4].mean(0) - centre)
                    np.testing.assert_allclose(middle, own[:, 2], atol=1e-5)
                framed = border.get_edgecolor()[:3] == colour
                assert framed == (step == 2), "the border of its own canvas"
            np.testing.assert_allclose(block["parts"][t + 1][1][0].get_colors()[0, :3], colour)


@pytest.mark.parametrize("composition", ["sum", "noisy_or", "over"])
@pytest.mark.parametrize("changes", [{}, {"composed": True, "placement": "continuous"}])
def test_the_last_step_is_the_canvas(images, composition, changes):
    tree = RNP(tiny(composition=composition, **changes)).eval().parse(images)
    for i, block in enumerate(blocks(program_figure(tree), columns=3)):
        first, *_, last = map(shown, block["canvas so far"])
        torch.testing.assert_close(first, last, msg="without images")
        torch.testing.assert_close(last, grey(tree.canvas)[i])
        alone = coloured(1 - shown(block["canvas so far"][1])[None, None, None, ..., 0], COLOURS)
        torch.testing.assert_close(shown(block["parts"][1]), alone[0], msg="the first part")


@pytest.mark.parametrize("steps", [(3,), (2, 2), (2, 2, 2)])
@pytest.mark.parametrize("depth", [None, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_for_each_level_of_any_tree(steps, depth, channels):
    tree = RNP(tiny(steps=steps, channels=channels)).parse(torch.rand(2, channels, 8, 8))
    figure = program_figure(tree, depth=depth, titles=["a.png", "b.png"], width=3.4)
    rows = ["canvas so far", "parts", "sub-parts", "sub-sub-parts"][: 1 + len(steps)]
    rows = [*rows[:2], "own canvas"] if depth == 1 or len(steps) == 1 else rows
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert [name.partition("\n")[0] for name in names] == 2 * rows
    assert [f"level {len(steps)}" in names[0], f"level {len(steps) - 1}" in names[1]] == [True] * 2
    heads = [text.get_text() for text in axis.texts]
    parts = [f"part {i}" for i in range(steps[0])]
    assert heads == ["a.png", *parts, "b.png", *parts]
    for block in blocks(figure, columns=1 + steps[0]):
        for column, node in zip(block[rows[-1]][1:], tree, strict=True):
            assert shown(column).shape[0] == node.canvas.shape[-1], "its own canvas"
    figure.draw_without_rendering()
    assert all(label.get_window_extent().x0 > 2 for label in axis.get_yticklabels()), "not cut"


def test_of_colour_images_parts_keep_their_colours():
    tree = RNP(tiny(channels=3)).parse(torch.rand(2, 3, 8, 8))
    for i, block in enumerate(blocks(program_figure(tree), columns=3)):
        for t, node in enumerate(tree):
            torch.testing.assert_close(shown(block["sub-parts"][t + 1]), grey(node.canvas)[i])
            assert len(block["parts"][t + 1][1]) == 2, "a dark line below the coloured one"


def test_a_part_draws_its_own_program_and_a_leaf_none(images):
    tree = RNP(tiny()).parse(images)
    block, *_ = blocks(program_figure(tree[1]), columns=3)
    torch.testing.assert_close(shown(block["canvas so far"][2]), grey(tree[1].canvas)[0])
    for given in ((tree[0][0], None), (tree, 0)):
        with pytest.raises(ValueError, match="A program is drawn with its parts: got a tree of"):
            program_figure(given[0], depth=given[1])
    with pytest.raises(ValueError, match=r"^images must have shape \(4, 1 or 3, H, W\), got"):
        program_figure(tree, images=images[:2])
