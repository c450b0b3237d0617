"""Pictures: colours in the paper's order, frames where the parts are."""

from dataclasses import replace

import matplotlib.colors
import numpy as np
import pytest
import torch
from matplotlib import image as png

import inference.figures
from inference.dictionary import collect, primitives
from inference.figures import (
    COLOURS,
    answer_figure,
    coloured,
    curves_figure,
    dictionary_figure,
    grey,
    parse_figure,
    space_figure,
)
from inference.posterior import query
from pyro_rnp import RNP
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

    monkeypatch.setattr(inference.figures, "coloured", white)
    parse_figure(RNP(tiny(steps=(2, 4))).parse(images), tmp_path / "p.png")
    rows = np.array_split(png.imread(tmp_path / "p.png")[..., :3], 3)
    _, few, many = (np.sort(np.ptp(row, axis=-1).ravel())[-200:].mean() for row in rows)
    assert 0.05 < many < 0.8 * few


def test_answers_that_are_not_to_be_trusted_are_framed_in_red(tmp_path, rnp, images):
    answer = query(rnp, images, method="importance", num_samples=40)
    few = torch.tensor([1.0, 40.0, 40.0, 40.0])
    zero = torch.zeros(4)
    for name, enough in (("bad", few), ("good", few + 40)):
        answer_figure(
            replace(answer, effective_samples=enough, pareto_k=zero), tmp_path / f"{name}.png"
        )
    red = {}
    for name in ("bad", "good"):
        picture = png.imread(tmp_path / f"{name}.png")[..., :3]
        pure = (picture[..., 0] > 0.95) & (picture[..., 1:] < 0.1).all(-1)
        red[name] = np.flatnonzero(pure.any(0))
    assert len(red["good"]) == 0
    assert len(red["bad"]) > 0


def test_a_dictionary_has_a_row_for_each_primitive(tmp_path, rnp, images):
    parts = collect(rnp, images, depth=2)
    found = primitives(parts, 3)
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
