"""Pictures of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pyro_rnp.plotting import begin_axes, finish


def curves_figure(
    curves: Mapping[str, Mapping[float, float]],
    ticks: Sequence[int],
    label: str,
    path: str | Path | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """Draw curves over epochs, both axes logarithmic; the first is a black dotted reference.

    Args:
        curves: by name, values by epochs done.
        ticks: epochs to mark on the axis.
        label: name and unit of the values.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        ax: axes to draw into; by default those of a new figure.
    """
    axis = begin_axes(ax, (6.4, 3.6), path)
    for i, (name, points) in enumerate(curves.items()):
        style = {"color": "black", "marker": "o", "linestyle": ":"} if i == 0 else {}
        axis.loglog([*points], [*points.values()], label=name, **style)
    axis.set(xlabel="epochs", ylabel=label)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.xaxis.minorticks_off()
    plain_ticks(axis)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper right")
    return finish(axis.figure, path)


def plain_ticks(axis: Axes) -> None:
    """Numbers without powers on a logarithmic axis, after all is drawn on it: 1, 2, 5, 10, ..."""
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())
