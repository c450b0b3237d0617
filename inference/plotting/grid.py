"""Pictures of rows of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from pyro_rnp.checks import Images
from pyro_rnp.plotting import Row, draw_tiles, grey, missing_key, pixels


def grid_figure(
    rows: Sequence[tuple[str, Images]],
    path: str | Path | None = None,
    *,
    titles: Sequence[str] = (),
    width: float | None = None,
    figure: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw rows of images, each with its name.

    Args:
        rows: names and images (N, C, H, W) in [0, 1], or in another form that `rnp.parse` takes, of
            the same N; NaN is a missing pixel.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        titles: titles of the columns.
        width: of a new figure, in inches; by default as the number of images wants, up to 7.
        figure: a figure or subfigure to draw into; by default a new one.
        ax: axes to draw into, in place of a figure.
    """
    given = [(name, pixels(images, name=name)) for name, images in rows]
    shown = [Row(name, grey(images)) for name, images in given]
    key = missing_key() if any(images.isnan().any() for _, images in given) else ()
    return draw_tiles(shown, path, titles=titles, key=key, width=width, figure=figure, ax=ax)


def exemplar_figure(
    images: Images,
    made: Float[Tensor, "n k c h w"],
    path: str | Path | None = None,
    *,
    width: float | None = None,
    figure: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw images, a row each, and beside each its new exemplars.

    Args:
        images: (N, C, H, W) in [0, 1], or another form that `rnp.parse` takes.
        made: (N, K, C, H, W), the exemplars of each image's class.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        width: of a new figure, in inches; by default as the number of exemplars wants, up to 7.
        figure: a figure or subfigure to draw into; by default a new one.
        ax: axes to draw into, in place of a figure.
    """
    rows = torch.cat([pixels(images).unsqueeze(1), made.cpu()], 1)
    named = [(f"class {i}", row) for i, row in enumerate(rows)]
    titles = ["given", *(f"new {i}" for i in range(made.shape[1]))]
    return grid_figure(named, path, titles=titles, width=width, figure=figure, ax=ax)
