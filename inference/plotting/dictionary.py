"""Pictures of dictionaries of parts."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure, FigureBase

from inference.evaluation.part_dictionary import PartDictionary, PartTable
from inference.plotting.grid import draw_grid
from pyro_rnp.plotting import grey


def dictionary_figure(
    found: PartDictionary,
    parts: PartTable,
    path: str | Path | None = None,
    members: int = 10,
    *,
    figure: FigureBase | None = None,
) -> Figure:
    """Draw a dictionary of parts, a row for each group.

    A row has the mean canvas of the group, then its most typical parts, all in the parts' own
    frames. Its name is the share of all parts that are in the group.

    Args:
        found: the dictionary.
        parts: the parts that it was made of.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        members: typical parts of each group.
        figure: a figure or subfigure to draw into; by default a new one.
    """
    rows = []
    for mean, usage, indices in zip(found.canvases, found.usage, found.members, strict=True):
        shown = torch.zeros(members + 1, *mean.shape)
        shown[0] = mean
        typical = parts.canvases[indices[:members]]
        shown[1 : 1 + len(typical)] = typical
        rows.append((f"{100 * usage:.1f} %", grey(shown)))
    return draw_grid(rows, figure=figure, path=path)
