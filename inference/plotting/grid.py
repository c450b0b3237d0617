"""Pictures of rows of images."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from pyro_rnp.plotting import begin, draw_frame, finish, grey


class Frame(NamedTuple):
    """A part's frame in each of N images, on one row of a picture."""

    name: str
    """The text beside the frame."""
    row: int
    maps: Float[Tensor, "n 2 3"]
    """From the part's coordinates to the image's, both in half-widths."""
    colour: str


def grid_figure(
    rows: Sequence[tuple[str, Float[Tensor, "n c h w"]]],
    path: str | Path | None = None,
    *,
    figure: FigureBase | None = None,
) -> Figure:
    """Draw rows of images, each with its name.

    Args:
        rows: names and images (N, C, H, W) in [0, 1], of the same N.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        figure: a figure or subfigure to draw into; by default a new one.
    """
    return draw_grid([(name, grey(images)) for name, images in rows], figure=figure, path=path)


def exemplar_figure(
    images: Float[Tensor, "n c h w"],
    made: Float[Tensor, "n k c h w"],
    path: str | Path | None = None,
    *,
    figure: FigureBase | None = None,
) -> Figure:
    """Draw images, a row each, and beside each its new exemplars.

    Args:
        images: (N, C, H, W) in [0, 1].
        made: (N, K, C, H, W), the exemplars of each image's class.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        figure: a figure or subfigure to draw into; by default a new one.
    """
    rows = torch.cat([images.unsqueeze(1), made.cpu()], 1)
    return grid_figure([("given, others", row) for row in rows], path, figure=figure)


def draw_grid(
    rows: Sequence[tuple[str, Float[Tensor, "n h w 3"]]],
    edges: Sequence[str] | None = None,
    note: str = "",
    frames: Sequence[Frame] = (),
    *,
    figure: FigureBase | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Draw rows of pictures with their names, columns framed in their colours, and frames of parts.

    Args:
        rows: names and pictures (N, H, W, 3) in [0, 1], of the same N.
        edges: the colours of the columns' frames; by default light grey.
        note: a text in red, above.
        frames: frames of parts, with their names.
        figure: a figure or subfigure to draw into; by default a new one.
        path: a .png, .svg or .pdf file to write; None writes nothing.
    """
    n = len(rows[0][1])
    width, caption = max(n, 4), "frames with names: the actions that are given" if frames else ""
    lines = [textwrap.wrap(text, 15 * width) for text in (note, caption)]  # letters to an inch
    height = len(rows) + 0.3 + 0.15 * sum(map(len, lines))
    drawn = begin(figure, (width, height), path)
    axes = drawn.subplots(len(rows), n, squeeze=False)
    for (name, pictures), row in zip(rows, axes, strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for i, (axis, picture) in enumerate(zip(row, pictures, strict=True)):
            axis.imshow(picture.numpy(), extent=(-1, 1, 1, -1), interpolation="nearest")
            axis.set(xticks=[], yticks=[], xlim=(-1, 1), ylim=(1, -1))
            for spine in axis.spines.values():
                spine.set_color("0.85" if edges is None else edges[i])
    for name, row, maps, colour in frames:
        for axis, own in zip(axes[row], maps, strict=True):
            corners = draw_frame(axis, own, colour, 1.0, 1.0)
            x, y = corners.amin(0).clamp(min=-0.97).tolist()
            place = {"va": "bottom"} if y > -0.75 else {"va": "top"}
            axis.text(x, y, name, color=colour, fontsize=6, clip_on=True, **place)
    if note:
        drawn.suptitle("\n".join(lines[0]), fontsize=8, color="red")
    if caption:
        drawn.supxlabel("\n".join(lines[1]), fontsize=8)
    return finish(drawn, path)
