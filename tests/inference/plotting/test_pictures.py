"""Pictures: colours in the paper's order, frames where the parts are."""

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
    parse_figure,
    posterior_figure,
    scaling_figure,
    space_figure,
)
from inference.posterior import query
from pyro_rnp import RNP
from pyro_rnp.affine import compose, matrix
from tests.conftest import tiny


def test_a_share_has_the_colour_of_its_part_on_white():
    shares = torch.zeros(1, 4, 1, 2, 2)
    for part in range(3):
        shares[0, part, 0, part // 2, part % 2] = 1
    shown = coloured(shares, colours=2)[0]
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


@pytest.mark.parametrize("steps", [(3,), (2, 2), (2, 2, 2)])
@pytest.mark.parametrize("given", [True, False])
def test_a_row_for_each_level(tmp_path, steps, given, images):
    rnp = RNP(tiny(steps=steps))
    parse_figure(rnp.parse(images), tmp_path / "parse.png", images if given else None)
    picture = png.imread(tmp_path / "parse.png")
    rows = len(steps) + 1 + given
    assert picture.shape[0] / picture.shape[1] == pytest.approx(rows / 4, rel=0.01)
    assert np.ptp(picture[..., :3]) > 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["parse.png"]


def test_frames_of_many_parts_are_fainter_and_still_there(monkeypatch, tmp_path, images):
    def white(shares, colours):
        return torch.ones(len(shares), *shares.shape[-2:], 3)

    monkeypatch.setattr("pyro_rnp.plotting.parse.coloured", white)
    parse_figure(RNP(tiny(steps=(2, 4))).parse(images), tmp_path / "p.png")
    rows = np.array_split(png.imread(tmp_path / "p.png")[..., :3], 3)
    _, few, many = (np.sort(np.ptp(row, axis=-1).ravel())[-200:].mean() for row in rows)
    assert 0.05 < many < 0.8 * few


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
    boxes = [text.get_window_extent() for text in figure.texts]
    assert len(boxes) == 2, "the note above, and the one on frames below"
    boxes += [axis.get_tightbbox() for axis in figure.axes]
    for a in boxes:
        assert 0 <= a.x0 < a.x1 <= figure.bbox.width
        assert 0 <= a.y0 < a.y1 <= figure.bbox.height
    for text in boxes[:2]:
        assert not any(text.overlaps(box) for box in boxes if box is not text)


def drawn_in(figure):
    """The axes of a figure by the names of its rows, from the left."""
    found = {}
    for axis in figure.axes:
        if axis.get_ylabel():
            row = found.setdefault(axis.get_ylabel(), [])
        row.append(axis)
    return found


def test_frames_of_given_actions_are_where_they_were_given(rnp):
    part = torch.tensor([0.4, 0.3, 0.0, 0.0, 0.5, -0.25])
    below = torch.tensor([[0.25, 0.25, 0.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.0, 0.0, 0.8, 0.0]])
    given = {"a/1": part, "a/1/0": below, "z/0": torch.zeros(3), "a/0/1": below[0]}
    answer = query(rnp, given=given, num_images=2, tolerance=1.0, num_samples=5, steps=2)
    figure = posterior_figure(answer, given=given)
    rows = drawn_in(figure)
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
    names = {"expected": set(wanted), "parts": {"a/1"}, "sub-parts": {"a/1/0", "a/0/1"}}
    for row, axes in rows.items():
        for i, axis in enumerate(axes):
            texts = [text.get_text() for text in axis.texts]
            assert set(texts) == names.get(row, set())
            for name, line in zip(texts, axis.lines, strict=True):
                x, y = np.asarray(line.get_data())
                assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx(
                    wanted[name][i], abs=1e-5
                )
                assert line.get_color() == COLOURS[int(name[-1])]
    assert "given" in figure.get_supxlabel()


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
