"""Pictures of parses: a column for each image, a row for each level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from pyro_rnp.checks import Images
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.plotting.colours import COLOURS, coloured, grey, pixels, shades
from pyro_rnp.plotting.tiles import (
    Frames,
    Key,
    Row,
    draw_tiles,
    line_key,
    missing_key,
    part_key,
    shade_key,
)

MANY = 6
"""The frames of more parts than this are fainter, so that ink is seen below them."""


def parse_figure(
    tree: ParseTree,
    path: str | Path | None = None,
    images: Images | None = None,
    titles: Sequence[str] = (),
    more: Sequence[tuple[str, Images]] = (),
    *,
    depth: int | None = None,
    width: float | None = None,
    palette: Sequence[Any] = COLOURS,
    figure: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw parses or samples, a column for each image.

    Rows: the image, where given; the canvas; the rows of `more`; then, for each level, the parts,
    each outlined by its frame. Levels count as in the paper: level K is the image's program, level
    0 are the leaves. A part has the colour of its number, which counts from 0, and what is below it
    has shades of that colour, from dark to light, with the parents' frames dashed around them.
    Parts of colour images keep their own colours; there only the frames tell them apart.

    Args:
        tree: parses or samples of N images.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        images: (N, C, H, W) in [0, 1], or another form that `rnp.parse` takes; NaN is a missing
            pixel. None for samples, which have none.
        titles: titles of the columns.
        more: names and images, in the same forms, of rows below the canvas.
        depth: levels to draw below the image; by default all.
        width: of a new figure, in inches; by default as the number of images wants, up to 7.
        palette: colours of the parts, in their order; they repeat.
        figure: a figure or subfigure to draw into; by default a new one.
        ax: axes to draw into, in place of a figure.

    Raises:
        ValueError: if there are not as many images as parses.
    """
    n = len(tree.canvas)
    below = tree.level if depth is None else min(depth, tree.level)
    with torch.no_grad():
        tree = tree.map(lambda t: t.detach().cpu())
        given = [] if images is None else [("image", pixels(images, n))]
        name = "sample" if images is None else "parse"
        own = f"{name}\nlevel {tree.level}" if tree.level else name
        given += [(own, tree.canvas.float())]
        given += [(text, pixels(pictures, n, text)) for text, pictures in more]
        rows = [Row(text, grey(pictures)) for text, pictures in given]
        for d in range(1, below + 1):
            above = shades(tree, d - 1, palette) if d > 1 else ()
            own_level = level_tiles(tree, d, shades(tree, d, palette), above)
            rows.append(Row(level_name(tree, d), *own_level))
    key = tree_key(tree, below, palette)
    if any(pictures.isnan().any() for _, pictures in given):
        key = [*key, *missing_key()]
    return draw_tiles(rows, path, titles=titles, key=key, width=width, figure=figure, ax=ax)


def level_name(tree: ParseTree, depth: int) -> str:
    """The name of a row of parts: of what kind they are, and of which level.

    Args:
        tree: the tree.
        depth: levels below the tree, 1 or more.
    """
    return f"{'sub-' * (depth - 1)}parts\nlevel {tree.level - depth}"


def tree_key(
    tree: ParseTree, depth: int, palette: Sequence[Any] = COLOURS, framed: bool = True
) -> Key:
    """The colour key of a picture with parts of a tree.

    Args:
        tree: the tree.
        depth: levels that are drawn below it.
        palette: colours of the parts.
        framed: whether parts have frames, and those of colour images nothing but frames.
    """
    if not depth:
        return []
    filled = not framed or tree.canvas.shape[1] == 1
    key = [*part_key(len(tree), palette, filled)]
    if depth > 1:
        key += shade_key(shades(tree, 2, palette)[: len(tree[0])], filled)
    if framed:
        key += line_key("its frame")
        key += line_key("its parent's frame", dashed=True) if depth > 1 else []
    return key


def level_tiles(
    tree: ParseTree, depth: int, colours: Sequence[Any], above: Sequence[Any] = ()
) -> tuple[Float[Tensor, "n h w 3"], list[Frames]]:
    """The parts at a depth in their colours, or as they are in a colour image, and their frames.

    Args:
        tree: the tree, on the CPU.
        depth: levels below the tree, in [1, level].
        colours: of the parts, in the order of `tree.nodes(depth)`.
        above: of their parents, whose frames are dashed; () where the parent is the tree.
    """
    own = tree.canvas.shape[1] == 3
    shown = grey(tree.canvas.float()) if own else coloured(tree.contributions(depth), colours)
    maps = tree.matrices(depth)
    width, alpha = (0.6, 0.8) if len(colours) <= MANY else (0.4, 0.6)
    frames = part_frames(maps, colours, own, width, alpha)
    if depth > 1:
        frames.insert(0, Frames(tree.matrices(depth - 1), above, width=0.4, alpha=0.7, dashed=True))
    return shown, frames


def part_frames(
    maps: Float[Tensor, "n parts 2 3"],
    colours: Sequence[Any],
    own: bool,
    width: float = 0.6,
    alpha: float = 0.8,
) -> list[Frames]:
    """Frames of parts; those of colour images have dark lines below, to be seen on any colour.

    Args:
        maps: from the parts' coordinates to the image's.
        colours: of the parts.
        own: whether the image has colours of its own.
        width: of the lines, in points.
        alpha: opacity of the lines on images without colours.
    """
    if not own:
        return [Frames(maps, colours, width, alpha)]
    return [Frames(maps, ["black"] * len(colours), 2 * width + 0.2), Frames(maps, colours, width)]
