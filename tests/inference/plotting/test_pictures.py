"""Pictures: colours in the paper's order, frames where the parts are."""

import math
from dataclasses import replace
from itertools import pairwise

import matplotlib.colors
import numpy as np
import pytest
import torch
from matplotlib import image as png

from inference.evaluation.part_dictionary import build_dictionary, collect_parts
from inference.plotting import (
    COLOURS,
    coloured,
    curves_figure,
    dictionary_figure,
    grey,
    grid_figure,
    parse_figure,
    posterior_figure,
    scaling_figure,
    space_figure,
)
from inference.posterior import query
from pyro_rnp import RNP
from pyro_rnp.affine import compose, matrix
from pyro_rnp.plotting import shades
from tests.conftest import tiny


def test_a_share_has_the_colour_of_its_part_on_white():
    shares = torch.zeros(1, 4, 1, 2, 2)
    for part in range(3):
        shares[0, part, 0, part // 2, part % 2] = 1
    shown = coloured(shares, COLOURS[:2])[0]
    wanted = [matplotlib.colors.to_rgb(COLOURS[i]) for i in (0, 1, 0)]
    torch.testing.assert_close(shown[0, 0], torch.tensor(wanted[0]))
    torch.testing.assert_close(shown[0, 1], torch.tensor(wanted[1]))
    torch.testing.assert_close(shown[1, 0], torch.tensor(wanted[2]))
    assert shown[1, 1].eq(1).all()
    assert COLOURS[:4] == ("tab:blue", "tab:red", "tab:green", "tab:orange")


def test_ink_is_black_on_white():
    assert grey(torch.ones(1, 1, 2, 2)).eq(0).all()
    assert grey(torch.zeros(1, 1, 2, 2)).eq(1).all()
    colour = torch.rand(1, 3, 2, 2)
    assert torch.equal(grey(colour), colour.permute(0, 2, 3, 1))


def rows(figure):
    """The tiles of a picture by the names of its rows, and their collections of frames."""
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    tiles = {name: [] for name in names}
    frames = {name: [] for name in names}
    for found, artists in ((tiles, axis.images), (frames, axis.collections)):
        for artist in artists:
            row = artist.get_gid().rpartition("/")[0]
            found[next(name for name in names if name.partition("\n")[0] == row)].append(artist)
    return tiles, frames


def key(figure):
    (legend,) = figure.legends
    return [text.get_text().replace("\n", " ") for text in legend.get_texts()]


@pytest.mark.parametrize("steps", [(3,), (2, 2), (2, 2, 2)])
@pytest.mark.parametrize("given", [True, False])
def test_a_row_for_each_level(tmp_path, steps, given, images):
    rnp = RNP(tiny(steps=steps))
    figure = parse_figure(rnp.parse(images), tmp_path / "parse.png", images if given else None)
    picture = png.imread(tmp_path / "parse.png")
    assert np.ptp(picture[..., :3]) > 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["parse.png"]
    tiles, frames = rows(figure)
    top = len(steps)
    parts = ["parts", "sub-parts", "sub-sub-parts"][:top]
    names = [*(["image"] if given else []), f"{'parse' if given else 'sample'}\nlevel {top}"]
    names += [f"{name}\nlevel {top - 1 - i}" for i, name in enumerate(parts)]
    assert list(tiles) == names, "level K is the image's program, as in the paper"
    assert all(len(row) == 4 for row in tiles.values())
    assert [len(row) for row in frames.values()] == [0] * (1 + given) + [4, 8, 8][:top]
    assert key(figure)[: steps[0]] == [f"part {i}" for i in range(steps[0])]


def test_sub_parts_have_shades_of_their_part_and_its_frame(images):
    tree = RNP(tiny(steps=(2, 3))).parse(images)
    _, frames = rows(parse_figure(tree))
    hues = matplotlib.colors.to_rgba_array(COLOURS[:2])
    above = frames["parts\nlevel 1"][0]
    np.testing.assert_allclose(above.get_colors()[:, :3], hues[:, :3])
    parents, own = frames["sub-parts\nlevel 0"][:2]
    np.testing.assert_allclose(parents.get_colors()[:, :3], hues[:, :3])
    assert parents.get_linestyle() != own.get_linestyle(), "dashed"
    down = parents.get_segments()[0] - above.get_segments()[0]
    assert np.ptp(down[:, 1]) < 1e-5, "where it is in the row above"
    shown = matplotlib.colors.rgb_to_hsv(own.get_colors()[:, :3])
    wanted = matplotlib.colors.rgb_to_hsv(hues[:, :3]).repeat(3, 0)
    np.testing.assert_allclose(shown[:, 0], wanted[:, 0], atol=1e-5)
    lightness = own.get_colors()[:, :3].mean(1).reshape(2, 3)
    assert (np.diff(lightness) > 0.1).all(), "from dark to light"
    assert shades(tree, 2, ["black"])[5] == pytest.approx((0.4, 0.4, 0.4))


def test_each_frame_is_where_its_part_is(images):
    tree = RNP(tiny()).parse(images)
    tiles, frames = rows(parse_figure(tree, images=images))
    for name, depth in (("parts\nlevel 1", 1), ("sub-parts\nlevel 0", 2)):
        drawn = frames[name][depth - 1 :: depth]
        for i, (tile, lines) in enumerate(zip(tiles[name], drawn, strict=True)):
            left, right, bottom, top = tile.get_extent()
            ends = np.array([left, top]), np.array([right, bottom])
            for corners, own in zip(lines.get_segments(), tree.matrices(depth)[i], strict=True):
                middle = 2 * (corners[:4].mean(0) - ends[0]) / (ends[1] - ends[0]) - 1
                np.testing.assert_allclose(middle, own[:, 2], atol=1e-5)
                corner = 2 * (corners[2] - ends[0]) / (ends[1] - ends[0]) - 1
                np.testing.assert_allclose(corner, own.sum(1), atol=1e-5)
            inside = lines.axes.transData.transform(ends)
            found = np.sort(lines.get_clip_box().get_points(), 0)
            np.testing.assert_allclose(found, np.sort(inside, 0), err_msg="cut at the border")


@pytest.mark.parametrize("title", ["a long title", "a_rather_long_name_of_a_file", 9 * "letters"])
@pytest.mark.parametrize("num", [1, 12, 13, 40])
@pytest.mark.parametrize("width", [None, 3.3, 7.0])
def test_many_images_go_into_further_blocks(num, width, title):
    tree = RNP(tiny()).parse(torch.rand(num, 1, 8, 8))
    figure = parse_figure(tree, titles=[f"{title} {i}" for i in range(num)], width=width)
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    blocks = len(names) // 3
    assert blocks == math.ceil(num / 12) if width != 3.3 else blocks >= num / 7
    assert names == blocks * names[:3]
    assert figure.get_size_inches()[0] == (width or pytest.approx(7 if num > 1 else 2.4))
    figure.draw_without_rendering()
    places = {tuple(np.round(image.get_extent(), 3)) for image in axis.images}
    assert len(places) == 3 * num, "none hides another"
    boxes = [text.get_window_extent() for text in axis.texts]
    assert all(not a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    labels = [label.get_window_extent() for label in axis.get_yticklabels()]
    assert all(not a.overlaps(b) for a, b in pairwise(labels))
    legend = figure.legends[0].get_window_extent()
    inside = axis.get_window_extent()
    for box in (*boxes, *labels, legend, inside):
        assert -1 < box.x0 < box.x1 < figure.bbox.width + 1
        assert -1 < box.y0 < box.y1 < figure.bbox.height + 1
    assert legend.y1 < inside.y0 + 1, "the key is below the tiles"


def test_parts_of_colour_images_keep_their_colours():
    tree = RNP(tiny(channels=3)).parse(torch.rand(2, 3, 8, 8))
    tiles, frames = rows(parse_figure(tree))
    for row in ("parts\nlevel 1", "sub-parts\nlevel 0"):
        for i, tile in enumerate(tiles[row]):
            np.testing.assert_allclose(tile.get_array(), grey(tree.canvas)[i], atol=1e-6)
    under, over = frames["parts\nlevel 1"][:2]
    assert under.get_colors()[:, :3].max() == 0, "dark lines below the coloured ones"
    assert under.get_linewidth()[0] > over.get_linewidth()[0]


def test_frames_on_colour_images_are_light_enough_for_dark_ones():
    trees = [RNP(tiny(channels=c)).parse(torch.rand(1, c, 8, 8)) for c in (1, 3)]
    dark, light = (torch.tensor(shades(tree, 2)).amax(1).min() for tree in trees)
    assert dark < 0.6 < light
    _, frames = rows(parse_figure(trees[1]))
    drawn = frames["sub-parts\nlevel 0"][-1].get_colors()[:, :3]
    np.testing.assert_allclose(drawn, shades(trees[1], 2), atol=1e-6)


def test_missing_pixels_have_their_colour_and_an_entry_in_the_key(images):
    tree, known = RNP(tiny()).parse(images), images.clone()
    known[0, :, :3] = torch.nan
    figure = parse_figure(tree, images=known)
    shown = rows(figure)[0]["image"][0].get_array()
    blue = matplotlib.colors.to_rgb("lightsteelblue")
    np.testing.assert_allclose(shown[:3], np.broadcast_to(blue, (3, 8, 3)))
    np.testing.assert_allclose(shown[3:], 1 - images[0, 0, 3:, :, None].expand(-1, -1, 3))
    assert "missing pixels" in key(figure)
    assert "missing pixels" not in key(parse_figure(tree, images=images))
    assert key(grid_figure([("row", known)])) == ["missing pixels"]


def test_a_palette_colours_parts_and_the_key(images):
    tree = RNP(tiny(steps=(3,))).parse(images)
    figure = parse_figure(tree, palette=["black", "gold"])
    colours = rows(figure)[1]["parts\nlevel 0"][0].get_colors()
    assert [matplotlib.colors.to_hex(c) for c in colours] == ["#000000", "#ffd700", "#000000"]
    assert key(figure)[:2] == ["part 0, 2", "part 1"]


def test_tiles_are_sharp_in_every_file(tmp_path):
    """A pixel is one colour throughout: no picture is smoothed, and none is merged in another."""
    board = (torch.arange(4).unsqueeze(1) + torch.arange(4)).remainder(2).float()
    figure = grid_figure([("row", board.expand(3, 1, 4, 4))], tmp_path / "a.png")
    grid_figure([("row", board.expand(3, 1, 4, 4))], tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("<image") == 3
    assert all(image.get_interpolation() == "nearest" for image in figure.axes[0].images)
    assert 'id="row/2"' in (tmp_path / "a.svg").read_text()
    picture = png.imread(tmp_path / "a.png")[..., 0]
    black, white = (picture < 0.01).sum(), (picture > 0.99).sum()
    assert black > 3 * 7 * 25**2
    assert black + white > 0.95 * picture.size


def test_frames_of_many_parts_are_fainter_and_still_there(images):
    tree = RNP(tiny(steps=(2, 4))).parse(images)
    _, frames = rows(parse_figure(tree))
    few, (_, many) = frames["parts\nlevel 1"][0], frames["sub-parts\nlevel 0"][:2]
    for faint, strong in ((many.get_alpha(), few.get_alpha()), (*many.get_lw(), *few.get_lw())):
        assert 0.3 < faint < 0.8 * strong


def test_answers_that_are_not_to_be_trusted_are_framed_in_red(tmp_path, rnp, images):
    answer = query(rnp, images, method="importance", num_samples=40)
    few = torch.tensor([1.0, 40.0, 40.0, 40.0])
    zero = torch.zeros(4)
    for name, enough in (("bad", few), ("good", few + 40)):
        posterior_figure(
            replace(answer, effective_samples=enough, pareto_k=zero), tmp_path / f"{name}.png"
        )
    red = {}
    for name in ("bad", "good"):
        picture = png.imread(tmp_path / f"{name}.png")[..., :3]
        pure = (picture[..., 0] > 0.95) & (picture[..., 1:] < 0.1).all(-1)
        red[name] = np.flatnonzero(pure.any(0))
    assert len(red["good"]) == 0
    assert len(red["bad"]) > 0


@pytest.mark.parametrize("num", [1, 4, 5, 12])
def test_the_note_on_answers_fits_into_the_picture(rnp, num):
    answer = query(rnp, torch.rand(num, 1, 8, 8), method="importance", num_samples=2)
    figure = posterior_figure(answer, given={"a/1": answer.mean("a/1")})
    figure.draw_without_rendering()
    assert "frames with names: the actions that are given" in key(figure)
    (note,), (legend,), (axis,) = figure.texts, figure.legends, figure.axes
    boxes = [note.get_window_extent(), legend.get_window_extent(), axis.get_tightbbox()]
    for i, a in enumerate(boxes):
        assert -1 <= a.x0 < a.x1 <= figure.bbox.width + 1
        assert -1 <= a.y0 < a.y1 <= figure.bbox.height + 1
        assert not any(a.overlaps(b) for b in boxes[:i])


def test_frames_of_given_actions_are_where_they_were_given(rnp):
    part = torch.tensor([0.4, 0.3, 0.0, 0.0, 0.5, -0.25])
    below = torch.tensor([[0.25, 0.25, 0.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.0, 0.0, 0.8, 0.0]])
    given = {"a/1": part, "a/1/0": below, "z/0": torch.zeros(3), "a/0/1": below[0]}
    answer = query(rnp, given=given, num_images=2, tolerance=1.0, num_samples=5, steps=2)
    figure = posterior_figure(answer, given=given)
    tiles, frames = rows(figure)
    (axis,) = figure.axes
    wanted = {  # left, right, top and bottom
        "a/1": [(0.1, 0.9, -0.55, 0.05)] * 2,
        "a/1/0": [(0.4, 0.6, -0.325, -0.175), (0.72, 0.92, -0.325, -0.175)],
    }
    mean = answer.mean("a/0")
    for i in range(2):
        frame = compose(matrix(mean[i]), matrix(below[0]))
        reach = frame[:, :2].abs().sum(1)
        ends = torch.stack([frame[:, 2] - reach, frame[:, 2] + reach], 1).flatten().tolist()
        wanted.setdefault("a/0/1", []).append(tuple(ends))
    names = {"expected": list(wanted), "parts\nlevel 1": ["a/1"]}
    names["sub-parts\nlevel 0"] = ["a/1/0", "a/0/1"]
    for row, found in frames.items():
        assert len(found) == 2 * len(names.get(row, ()))
        for j, name in enumerate(sorted(names.get(row, ()), key=list(given).index)):
            for i, tile in enumerate(tiles[row]):
                own = [c for c in found if c.get_gid() == tile.get_gid()][j]
                left, right, bottom, top = tile.get_extent()
                x, y = own.get_segments()[0].T
                x, y = 2 * (x - left) / (right - left) - 1, 2 * (y - top) / (bottom - top) - 1
                assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx(
                    wanted[name][i], abs=1e-5
                )
                hue = matplotlib.colors.to_rgb(COLOURS[int(name.split("/")[1])])
                np.testing.assert_allclose(own.get_colors()[0, :3], hue, err_msg="of its part")
                texts = [t.get_text() for t in axis.texts if t.get_gid() == tile.get_gid()]
                assert texts[j] == name
    assert len(axis.texts) == 2 * sum(map(len, names.values()))


@pytest.mark.parametrize("most", [3.0, 60.0, 4000.0])
def test_ticks_of_the_cost_stand_apart(most):
    costs = {"levels": ((1, 2, 3, 4), 3), "batch size": ((16, 64, 128, 256, 512), 1)}
    costs["recompute levels"] = ((0, 1, 2, 3), 1)
    rows = [
        {"sweep": sweep, "value": value, "nodes": nodes**i, "ms_per_image": most ** (i / 3),
         "mib_per_image": 1.0 + i / 10}
        for sweep, (values, nodes) in costs.items() for i, value in enumerate(values)
    ]  # fmt: skip
    figure = scaling_figure(rows)
    figure.draw_without_rendering()
    for axis in figure.axes:
        for ticks in (axis.xaxis, axis.yaxis):
            shown = [t for t in ticks.get_ticklabels(which="both") if t.get_text()]
            low, high = sorted(ticks.get_view_interval())
            at = ticks.get_ticklocs(), ticks.get_ticklocs(minor=True)
            inside = [
                t for t, where in zip(shown, [*at[0], *at[1]], strict=False)
                if low <= where <= high
            ]  # fmt: skip
            assert all(float(t.get_text()) >= 0 for t in inside), "1, 2, 5 and no powers"
            boxes = [t.get_window_extent() for t in inside]
            side = (lambda b: (b.x0, b.x1)) if ticks is axis.xaxis else (lambda b: (b.y0, b.y1))
            ends = sorted(map(side, boxes))
            assert all(a[1] <= b[0] for a, b in pairwise(ends)), [t.get_text() for t in inside]


def test_a_dictionary_has_a_row_for_each_primitive(tmp_path, rnp, images):
    parts = collect_parts(rnp, images, depth=2)
    found = build_dictionary(parts, 3)
    dictionary_figure(found, parts, tmp_path / "d.png", members=5)
    picture = png.imread(tmp_path / "d.png")
    assert picture.shape[1] > picture.shape[0]
    assert np.ptp(picture[..., :3]) > 0.5


def test_pictures_of_programs_lie_on_their_dots_and_hide_none(tmp_path):
    plane = torch.tensor([[0.0, 0.0], [4.0, 2.0], [1.0, 1.0], [1.0, 1.0]])
    kinds = torch.tensor([0, 0, 1, 1])

    def ink(shown):
        pictures = [(i, "", torch.ones(1, 4, 4)) for i in shown]
        space_figure(plane, kinds, ["a", "b"], pictures, tmp_path / "s.png")
        picture = png.imread(tmp_path / "s.png")[..., :3]
        black = (picture < 0.05).all(-1)
        inner = black[20:-20, 20:-20]  # without the frame of the whole
        for kind in (0, 1):  # dots are half transparent, frames of pictures are not
            colour = np.array(matplotlib.colors.to_rgb(f"C{kind}"))
            framed = (np.abs(picture - colour).max(-1) < 0.02).sum() > 100
            assert framed == (kind in kinds[list(shown)])
        return 20 + np.argwhere(inner), picture.shape

    one, (height, width, _) = ink([2])
    y, x = one.mean(0)
    assert 0.25 < x / width < 0.3  # 1/4 of the way between dots that are 1/22 from the sides
    assert 0.45 < y / height < 0.55
    two, _ = ink([2, 3])
    assert len(two) > 1.8 * len(one), "beside each other"
    assert abs(two.mean(0) - one.mean(0)).max() < 0.02 * width
    near, _ = ink([0, 1])
    assert len(near) > 1.8 * len(one), "none is cut"


@pytest.mark.parametrize("falling", [True, False])
def test_curves_go_where_their_values_go(tmp_path, falling):
    values = [9.0, 5.0, 1.5] if falling else [1.5, 5.0, 9.0]
    theirs, ours = {1.0: 4.0, 8.0: 4.0}, dict(zip((1.0, 3.0, 8.0), values, strict=True))
    curves_figure({"theirs": theirs, "ours": ours}, [1, 8], "error", tmp_path / "c.png")
    picture = png.imread(tmp_path / "c.png")[..., :3]
    colour = np.array(matplotlib.colors.to_rgb("C0"))
    rows, columns = np.nonzero(np.abs(picture - colour).max(-1) < 0.02)
    below = picture.shape[0] // 4  # the legend is above
    line = columns[rows > below], rows[rows > below]
    left, right = (line[1][line[0] == end(line[0])].mean() for end in (min, max))
    assert (right - left > 50) == falling
    black = (picture < 0.1).all(-1)
    assert black[below:].sum() > 100
