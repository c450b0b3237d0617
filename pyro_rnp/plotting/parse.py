"""Pictures of parses: a column for each image, a row for each level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from pyro_rnp.checks import Images
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.plotting.colours import COLOURS, coloured, grey, part_colour, pixels
from pyro_rnp.plotting.figure import begin, finish

CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])


def parse_figure(
    tree: ParseTree,
    path: str | Path | None = None,
    images: Images | None = None,
    titles: Sequence[str] = (),
    more: Sequence[tuple[str, Images]] = (),
    *,
    depth: int | None = None,
    figure: FigureBase | None = None,
) -> Figure:
    """Draw parses or samples, a column for each image.

    Rows: the image, where given; the canvas; the rows of `more`; then, for each level, the parts in
    the colours of their numbers, each outlined by its frame. A sub-part has the colour of its
    number within its part.

    Args:
        tree: parses or samples of N images.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        images: (N, C, H, W) in [0, 1]; None for samples, which have none.
        titles: titles of the columns.
        more: names and images (N, C, H, W) of rows below the canvas.
        depth: levels to draw below the image; by default all.
        figure: a figure or subfigure to draw into; by default a new one.

    Raises:
        ValueError: if there are not as many images as parses.
    """
    n = len(tree.canvas)
    with torch.no_grad():
        tree = tree.map(lambda t: t.detach().cpu())
        rows: list[tuple[str, Tensor, tuple[Tensor, int] | None]] = []
        if images is not None:
            rows.append(("image", grey(pixels(images, n)), None))
        rows.append(("sample" if images is None else "parse", grey(tree.canvas), None))
        rows += [(name, grey(pixels(pictures, n, name)), None) for name, pictures in more]
        for below in range(1, 1 + (tree.level if depth is None else min(depth, tree.level))):
            name = ["parts", "sub-parts"][below - 1] if below < 3 else f"level {below} parts"
            steps = len(tree.nodes(below - 1)[0])
            shown = coloured(tree.contributions(below), steps)
            rows.append((name, shown, (tree.matrices(below), steps)))
    drawn = begin(figure, (n, len(rows)), path)
    axes = drawn.subplots(len(rows), n, squeeze=False)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=9)
    for (name, shown, frames), row in zip(rows, axes, strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for i, axis in enumerate(row):
            axis.imshow(shown[i].numpy(), extent=(-1, 1, 1, -1), interpolation="nearest")
            axis.set(xticks=[], yticks=[], xlim=(-1, 1), ylim=(1, -1))
            for spine in axis.spines.values():
                spine.set_color("0.85")
            if frames is not None:
                _outline(axis, frames[0][i], frames[1])
    return finish(drawn, path)


def _outline(axis: Axes, maps: Float[Tensor, "parts 2 3"], colours: int) -> None:
    """Frames in the colours of their parts; of many, fainter, so that ink is seen below them."""
    width, alpha = (0.5, 0.6) if len(maps) <= len(COLOURS) else (0.35, 0.35)
    for j, own in enumerate(maps):
        draw_frame(axis, own, part_colour(j % colours), width, alpha)


def draw_frame(
    axis: Axes, own: Float[Tensor, "2 3"], colour: str, width: float, alpha: float
) -> Float[Tensor, "5 2"]:
    """Draw a part's frame in the picture of its image.

    Args:
        axis: the picture's, over [-1, 1] from edge to edge.
        own: the map from the part's frame to the image's.
        colour: of the line.
        width: of the line, in points.
        alpha: opacity of the line, in [0, 1].

    Returns:
        The five corners of the closed line.
    """
    corners = CORNERS.to(own) @ own[:, :2].mT + own[:, 2]
    axis.plot(*corners.mT.numpy(), color=colour, linewidth=width, alpha=alpha)
    return corners
