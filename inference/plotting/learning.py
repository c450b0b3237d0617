"""Pictures of training runs: learning curves, and a comparison of variants."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogLocator

from inference.plotting.curves import plain_ticks
from inference.run import Run
from pyro_rnp.plotting import COLOURS, begin, finish

SCORES = {"sse": "squared error", "elbo": "ELBO (nats)", "kl": "KL (nats)"}
"""Scores that are drawn, with their units; `val_` on validation images, `test_` on test images."""
OVER = {"images_seen": ("training images (thousands)", 1000.0), "seconds": ("minutes", 60.0)}
"""Horizontal axes: a field of the curve, its name, and the size of its unit."""
REFERENCES = {"blank": "blank canvas", "mean_image": "mean training image"}
"""Squared errors of test images that no model is needed for."""
NARROW = 5.0
"""Figures less wide than this, in inches, have a row for each score, others a column."""
STYLES = ("-", "--", ":", "-.")
"""Line styles: the next one each time that the colours begin again."""


def learning_figure(
    runs: Run | Mapping[str, Run],
    path: str | Path | None = None,
    *,
    width: float = 7,
    palette: Sequence[str] = COLOURS,
    figure: FigureBase | None = None,
) -> Figure:
    """Draw learning curves: scores of validation images over training images and over minutes.

    The scores are the squared error of one posterior sample, the ELBO and the KL, as far as the
    runs have them. Grey lines are the squared errors of a blank canvas and of the mean training
    image, of test images, where all runs have the same ones.

    Args:
        runs: a run, or runs by the names that the key gives them.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        width: of the figure, in inches.
        palette: colours of the runs, in their order; they begin again with another line style.
        figure: a figure or subfigure to draw into; by default a new one.

    Raises:
        FileNotFoundError: if a run has no curves, or none has a score.
    """
    every = {"run": runs} if isinstance(runs, Run) else runs
    curves = {name: run.curve for name, run in every.items()}
    scores = _scores("val", [rows[-1] for rows in curves.values() if rows])
    if not scores:
        raise FileNotFoundError("These runs have no scores of validation images.")
    narrow = width < NARROW
    drawn = begin(figure, (width, 1.8 * len(scores) + 0.4 if narrow else 4.3), path)
    if narrow:
        axes = drawn.subplots(len(scores), 2, squeeze=False, sharey="row").T
    else:
        axes = drawn.subplots(2, len(scores), squeeze=False, sharey="col")
    for line, over in zip(axes, OVER, strict=True):
        for axis, score in zip(line, scores, strict=True):
            _curves(axis, curves, score, over, palette)
    references = _references([*every.values()]) if "sse" in scores else {}
    for axis in axes[:, 0] if references else ():
        for (name, value), style in zip(references.items(), (":", "--"), strict=False):
            axis.axhline(value, color="grey", linestyle=style, linewidth=1, label=name)
    for axis, score in zip(axes[0], scores, strict=True):
        _scale(axis, score)
    for axis in axes[1] if narrow else ():  # it shares the scale of its neighbour
        axis.set_ylabel("")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    named = [(h, _wrapped(text, 40)) for h, text in zip(handles, labels, strict=True) if text]
    if named:
        letters = max(len(line) for _, text in named for line in text.split("\n"))
        columns = max(1, min(len(named), int(15 * width / (letters + 7))))
        drawn.legend(
            *zip(*named, strict=True), loc="outside lower center", ncols=columns, fontsize=8,
            frameon=False,
        )  # fmt: skip
    return finish(drawn, path)


def comparison_figure(
    runs: Mapping[str, Run],
    path: str | Path | None = None,
    *,
    over: str = "seconds",
    width: float = 7,
    palette: Sequence[str] = COLOURS,
    figure: FigureBase | None = None,
) -> Figure:
    """Compare variants: curves of validation images above, final scores of test images below.

    A final score has its standard error over the test images as a bar. A run without curves, or
    one that has not ended, is left out above or below.

    Args:
        runs: the variants' runs by name, one or more.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        over: the horizontal axis of the curves, "seconds" or "images_seen".
        width: of the figure, in inches.
        palette: colours of the variants, in their order; they begin again with another line style.
        figure: a figure or subfigure to draw into; by default a new one.

    Raises:
        ValueError: if there is no run, or none has a score, or `over` is no such axis.
    """
    if over not in OVER:
        raise ValueError(f"over must be one of {', '.join(OVER)}, got {over!r}.")
    if not runs:
        raise ValueError("runs must hold a run or more, got none.")
    curves = {name: _curve(run) for name, run in runs.items()}
    metrics = {name: run.metrics or {} for name, run in runs.items()}
    last = [rows[-1] for rows in curves.values() if rows]
    scores = _scores("val", last) or _scores("test", [*metrics.values()])
    if not scores:
        raise ValueError("runs must have curves or final scores, got none of either.")
    names = [_wrapped(name or "as it is", 28) for name in runs]
    lines = sum(name.count("\n") + 1 for name in names)
    heights = [2.0, 0.4 + 0.17 * lines]
    if narrow := width < NARROW:
        drawn = begin(figure, (width, len(scores) * (sum(heights) + 0.5)), path)
        stacked = drawn.subplots(2 * len(scores), 1, height_ratios=heights * len(scores))
        axes = stacked.reshape(-1, 2).T
    else:
        drawn = begin(figure, (width, sum(heights) + 0.5), path)
        axes = drawn.subplots(2, len(scores), squeeze=False, height_ratios=heights)
    for (above, below), score in zip(axes.T, scores, strict=True):
        _curves(above, curves, score, over, palette)
        _scale(above, score)
        for i, found in enumerate(metrics.values()):
            if found.get(f"test_{score}") is not None:
                below.errorbar(
                    found[f"test_{score}"], i, xerr=found.get(f"test_{score}_error"), fmt="o",
                    color=palette[i % len(palette)], markersize=4, capsize=3, linewidth=1.2,
                )  # fmt: skip
        below.set_ylim(len(names) - 0.5, -0.5)
        below.set_yticks(range(len(names)), names if narrow or below is axes[1, 0] else [])
        for label, colour in zip(below.get_yticklabels(), cycle(palette), strict=False):
            label.set_color(colour)
        below.set_xlabel(f"test {SCORES[score]}", fontsize=8)
        below.tick_params(labelsize=8)
        below.grid(axis="x", alpha=0.3)
    return finish(drawn, path)


def _curve(run: Run) -> list[dict[str, Any]]:
    try:
        return run.curve
    except FileNotFoundError:
        return []


def _scores(split: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The scores that any of the rows has."""
    return [s for s in SCORES if any(row.get(f"{split}_{s}") is not None for row in rows)]


def _curves(
    axis: Axes,
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    score: str,
    over: str,
    palette: Sequence[str],
) -> None:
    """A line for each run; of a single one, also the squared error at the posterior mean."""
    label, unit = OVER[over]
    for i, (name, rows) in enumerate(curves.items()):
        lines = {f"val_{score}": name or "as it is"}
        if len(curves) == 1 and score == "sse":
            lines = {"val_sse": "one posterior sample", "val_sse_mean": "posterior mean"}
        style = STYLES[i // len(palette) % len(STYLES)]
        for j, (field, text) in enumerate(lines.items()):
            points = [(row[over] / unit, row[field]) for row in rows if row.get(field) is not None]
            if points:
                axis.plot(
                    *zip(*points, strict=True), color=palette[(i + j) % len(palette)], label=text,
                    linestyle=style, linewidth=1.2, marker="." if len(points) < 50 else "",
                    markersize=3,
                )  # fmt: skip
    axis.set_xlabel(label, fontsize=8)
    axis.set_ylabel(f"validation\n{SCORES[score]}", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)


def _scale(axis: Axes, score: str) -> None:
    """Errors on a logarithmic axis; of ELBOs, those of the first epochs may lie below the axis."""
    curves: list[Any] = [line.get_ydata() for line in axis.lines]
    values = sorted(float(v) for curve in curves for v in curve)
    if not values:
        return
    if score == "sse" and values[0] > 0:
        axis.set_yscale("log")
        plain_ticks(axis)
        low, high = axis.get_ylim()
        if high < 10 * low:
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    elif score == "elbo":
        low, middle, high = values[0], values[len(values) // 2], values[-1]
        if middle - low > 3 * (high - middle) > 0:
            axis.set_ylim(bottom=middle - 3 * (high - middle), top=high + 0.2 * (high - middle))


def _references(runs: Sequence[Run]) -> dict[str, float]:
    """The squared errors of `REFERENCES` that all runs agree on."""
    found = {}
    for field, name in REFERENCES.items():
        values = {(run.metrics or {}).get(f"test_sse_{field}") for run in runs}
        if len(values) == 1 and (value := values.pop()) is not None:
            found[f"{name} (test)"] = value
    return found


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text
