"""Learning curves and comparisons of runs."""

import json

import numpy as np
import pytest

from inference import Run
from inference.plotting import COLOURS, comparison_figure, learning_figure

ERRORS = {"test_sse_error": 0.3, "test_elbo_error": 1.0}


def folder(path, *, scale=1.0, curve=True, metrics=True, **more):
    """The folder of a run of three epochs, as `scale` says how good."""
    path.mkdir()
    rows = [
        {"epoch": e, "images_seen": 1000.0 * e, "seconds": 120.0 * e, "val_sse": scale * 30 / e,
         "val_sse_mean": scale * 27 / e, "val_kl": 10.0 + e, "val_elbo": -100 / e}
        for e in (1, 2, 3)
    ]  # fmt: skip
    if curve:
        (path / "curve.json").write_text(json.dumps(rows))
    if metrics:
        found = {"test_sse": scale * 10, "test_elbo": -30.0, "test_kl": 13.0, **ERRORS, **more}
        (path / "metrics.json").write_text(json.dumps(found))
    return Run(path, shipped=False)


def lines(axis):
    return {line.get_label(): np.asarray(line.get_xydata()) for line in axis.lines}


def test_curves_go_over_images_and_minutes_with_references(tmp_path):
    blank = {"test_sse_blank": 88.0, "test_sse_mean_image": 52.0}
    figure = folder(tmp_path / "a", **blank).plot(tmp_path / "a.svg")
    images, minutes = (axis for axis in figure.axes if "squared" in axis.get_ylabel())
    assert images.get_xlabel() == "training images (thousands)"
    assert minutes.get_xlabel() == "minutes"
    for axis, x in ((images, [1, 2, 3]), (minutes, [2, 4, 6])):
        drawn = lines(axis)
        assert drawn["one posterior sample"].tolist() == [[x[0], 30], [x[1], 15], [x[2], 10]]
        assert drawn["posterior mean"][:, 1].tolist() == [27, 13.5, 9]
        assert drawn["blank canvas (test)"][0, 1] == 88
        assert drawn["mean training image (test)"][0, 1] == 52
        low, high = axis.get_ylim()
        assert low < 9 < 88 < high
    assert len(figure.axes) == 6
    assert len(figure.legends[0].get_texts()) == 4
    text = (tmp_path / "a.svg").read_text()
    assert all(f">{word}" in text for word in ("posterior mean", "blank canvas", "minutes"))


def test_runs_are_told_apart_by_colours_and_names(tmp_path):
    runs = {f"run {i}": folder(tmp_path / f"{i}", scale=1 + i, test_sse_blank=i) for i in range(7)}
    figure = learning_figure(runs)
    axis = figure.axes[0]
    assert [*lines(axis)] == [*runs], "and no reference, on which they do not agree"
    assert [line.get_color() for line in axis.lines] == [*COLOURS, COLOURS[0]]
    assert axis.lines[0].get_linestyle() != axis.lines[6].get_linestyle()
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {*runs}
    mine = learning_figure(runs, palette=["black", "gold"])
    assert [line.get_color() for line in mine.axes[0].lines[:3]] == ["black", "gold", "black"]


@pytest.mark.parametrize("width", [3.4, 7.0])
def test_a_comparison_has_curves_and_final_scores_with_errors(tmp_path, width):
    long = "--prior mixture:components=20 --hypernet_width 128 --guide lowrank:rank=3"
    runs = {
        "": folder(tmp_path / "a"),
        long: folder(tmp_path / "b", scale=2),
        "no curve": folder(tmp_path / "c", curve=False),
        "not ended": folder(tmp_path / "d", metrics=False),
    }
    figure = comparison_figure(runs, tmp_path / "a.png", width=width)
    (above,) = (axis for axis in figure.axes if "squared" in axis.get_ylabel())
    below = next(axis for axis in figure.axes if axis.get_xlabel() == "test squared error")
    assert [*lines(above)] == ["as it is", long, "not ended"]
    assert lines(above)[long][:, 0].tolist() == [2, 4, 6]
    bars = [container for container in below.containers if container.has_xerr]
    points = [bar.lines[0].get_xydata()[0].tolist() for bar in bars]
    assert points == [[10, 0], [20, 1], [10, 2]]
    assert bars[0].lines[2][0].get_segments()[0][:, 0].tolist() == pytest.approx([9.7, 10.3])
    names = [label.get_text().replace("\n", " ") for label in below.get_yticklabels()]
    assert names == ["as it is", long, "no curve", "not ended"]
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.bbox.width > 60, "there is room for the curves"
        box = axis.get_tightbbox()
        assert box.x0 > -1
        assert box.x1 < figure.bbox.width + 1


@pytest.mark.parametrize("width", [3.4, 7.0])
def test_names_of_axes_lie_in_the_figure_and_apart(tmp_path, width):
    figure = folder(tmp_path / "a", test_sse_blank=88.0).plot(width=width)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for axis in figure.axes
             for label in (axis.xaxis.label, axis.yaxis.label) if label.get_text()]  # fmt: skip
    for i, a in enumerate(boxes):
        assert -1 < a.x0 < a.x1 < figure.bbox.width + 1
        assert -1 < a.y0 < a.y1 < figure.bbox.height + 1
        assert not any(a.overlaps(b) for b in boxes[:i])
    named = [axis.get_ylabel() for axis in figure.axes]
    assert named.count("validation\nsquared error") == (1 if width == 3.4 else 2)


def test_runs_that_cannot_be_drawn_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no curves\.$"):
        folder(tmp_path / "a", curve=False).plot()
    with pytest.raises(ValueError, match=r"^runs must hold a run or more, got none\.$"):
        comparison_figure({})
    with pytest.raises(ValueError, match=r"^over must be one of .*, got 'weeks'\.$"):
        comparison_figure({"a": Run(tmp_path / "a")}, over="weeks")
    with pytest.raises(ValueError, match=r"^runs must have curves or final scores"):
        comparison_figure({"b": folder(tmp_path / "b", curve=False, metrics=False)})
