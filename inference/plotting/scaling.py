"""Pictures of time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure, FigureBase

from inference.plotting.curves import plain_ticks
from pyro_rnp.plotting import COLOURS, begin, finish


def scaling_figure(
    rows: Sequence[dict[str, Any]],
    path: str | Path | None = None,
    *,
    figure: FigureBase | None = None,
) -> Figure:
    """Draw time and memory per image, a column for each sweep of a scaling test.

    Axes are logarithmic, or linear where a sweep begins at 0. The dotted grey line is proportional
    to the number of nodes in the tree, through the first point.

    Args:
        rows: those of `inference.evaluation.benchmark.scaling`.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        figure: a figure or subfigure to draw into; by default a new one.
    """
    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    units = {"ms_per_image": "ms per image", "mib_per_image": "MiB per image"}
    drawn = begin(figure, (2.6 * len(sweeps), 4.6), path)
    axes = drawn.subplots(len(units), len(sweeps), squeeze=False)
    for line, (field, unit) in zip(axes, units.items(), strict=True):
        for axis, sweep in zip(line, sweeps, strict=True):
            points = [row for row in rows if row["sweep"] == sweep]
            x, y = [p["value"] for p in points], [p[field] for p in points]
            axis.loglog(x, y, "o-", color=COLOURS[0])
            nodes = [p["nodes"] * y[0] / points[0]["nodes"] for p in points]
            if len(set(nodes)) > 1:
                axis.loglog(x, nodes, ":", color="grey", label="proportional to nodes")
                axis.legend(fontsize=7, frameon=False)
            if min(x) == 0:
                axis.set(xscale="linear", yscale="linear", ylim=(0, 1.1 * max(y)))
            else:
                low, high = axis.get_ylim()
                room = max(1.0, 2 * low / high) ** 0.5  # noise of some percent stays flat
                axis.set_ylim(low / room, high * room)
                plain_ticks(axis)
            axis.set_xticks(x, [str(v) for v in x])
            axis.xaxis.minorticks_off()
            axis.set_xlabel(sweep)
            axis.grid(alpha=0.3)
        line[0].set_ylabel(unit)
    return finish(drawn, path)
