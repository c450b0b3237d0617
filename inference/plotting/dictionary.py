"""Pictures of dictionaries of parts."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from inference.evaluation.part_dictionary import PartDictionary, PartTable
from pyro_rnp.plotting import Row, draw_tiles, grey


def dictionary_figure(
    found: PartDictionary,
    parts: PartTable,
    path: str | Path | None = None,
    members: int = 10,
    *,
    width: float | None = None,
    figure: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw a dictionary of parts, a row for each group.

    A row has the mean canvas of the group, then its most typical parts, all in the parts' own
    frames. Its name is the share of all parts that are in the group.

    Args:
        found: the dictionary.
        parts: the parts that it was made of.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        members: typical parts of each group.
        width: of a new figure, in inches; by default as the number of parts wants, up to 7.
        figure: a figure or subfigure to draw into; by default a new one.
        ax: axes to draw into, in place of a figure.
    """
    rows = []
    for mean, usage, indices in zip(found.canvases, found.usage, found.members, strict=True):
        shown = torch.cat([mean.unsqueeze(0), parts.canvases[indices[:members]]])
        rows.append(Row(f"{100 * usage:.1f} %", grey(shown)))
    titles = ["mean", *(str(i) for i in range(members))]
    return draw_tiles(rows, path, titles=titles, width=width, figure=figure, ax=ax)
