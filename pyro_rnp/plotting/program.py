"""Pictures of programs, step by step, as in the paper's figure 3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch
from torch import Tensor

from pyro_rnp.checks import Images
from pyro_rnp.parse_tree import ParseTree, sheets
from pyro_rnp.plotting.colours import COLOURS, coloured, grey, pixels, shades
from pyro_rnp.plotting.parse import level_name, level_tiles, part_frames, tree_key
from pyro_rnp.plotting.tiles import Frames, Row, draw_tiles, missing_key

BORDER = 1.4
"""Width of the border of a tile that shows a part's own canvas, in points."""
Tiles = tuple[Tensor, list[Frames]]
"""Pictures (N, H, W, 3) of a column, and the frames on them."""


def program_figure(
    tree: ParseTree,
    path: str | Path | None = None,
    images: Images | None = None,
    titles: Sequence[str] = (),
    *,
    depth: int | None = None,
    width: float | None = None,
    palette: Sequence[Any] = COLOURS,
    figure: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw programs step by step: a block for each image, a column for each part.

    Rows of a block: the canvas after each part; the part alone, in its place and its frame; and,
    for each level below, the part's own canvas with what it is made of, in a border of the part's
    colour that stands for the part's frame. The first column has the image, or the whole canvas
    where none is given, and all parts and sub-parts in it. `program_figure(tree[1])` draws the
    steps of the second part's own program.

    Source: the paper, figure 3.

    Args:
        tree: parses or samples of N images.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        images: (N, C, H, W) in [0, 1], or another form that `rnp.parse` takes; NaN is a missing
            pixel. None for samples, which have none.
        titles: titles of the blocks, above the image.
        depth: levels to draw below the image; by default all.
        width: of a new figure, in inches; by default as the number of parts wants, up to 7.
        palette: colours of the parts, in their order; they repeat.
        figure: a figure or subfigure to draw into; by default a new one.
        ax: axes to draw into, in place of a figure.

    Raises:
        ValueError: if the tree is a leaf, or there are not as many images as parses.
    """
    if not tree.level or (depth is not None and depth < 1):
        raise ValueError(
            f"A program is drawn with its parts: got a tree of level {tree.level}, depth {depth}."
        )
    n, below = len(tree.canvas), tree.level if depth is None else min(depth, tree.level)
    with torch.no_grad():
        tree = tree.map(lambda t: t.detach().cpu())
        whole = tree.canvas.float() if images is None else pixels(images, n)
        columns = [_whole(tree, whole, below, palette)]
        columns += [_step(tree, part, below, palette) for part in range(len(tree))]
    edges = n * ["0.85", *(palette[i % len(palette)] for i in range(len(tree)))]
    borders = n * [0.7, *len(tree) * [BORDER]]
    rows = []
    for r, name in enumerate(_names(tree, below)):
        column = [tiles[r] for tiles in columns]
        pictures = [shown[i] for i in range(n) for shown, _ in column]
        frames = [
            own._replace(maps=own.maps[i : i + 1], first=i * len(columns) + c)
            for c, (_, found) in enumerate(column) for own in found for i in range(n)
        ]  # fmt: skip
        row = Row(name, pictures, frames)
        rows.append(row if r < 2 else row._replace(edges=edges, borders=borders))
    key = [*tree_key(tree, below, palette)]
    key.append((Patch(facecolor="none", edgecolor="0.4", linewidth=BORDER), "a part's own canvas"))
    key += missing_key() if whole.isnan().any() else ()
    first = "canvas" if images is None else "image"
    parts = [f"part {i}" for i in range(len(tree))]
    heads = [head for i in range(n) for head in (titles[i] if titles else first, *parts)]
    return draw_tiles(
        rows, path, titles=heads, key=key, width=width, columns=len(columns), smallest=0.1,
        figure=figure, ax=ax,
    )  # fmt: skip


def _names(tree: ParseTree, below: int) -> list[str]:
    """The names of a block's rows."""
    own = [level_name(tree, depth) for depth in range(2, below + 1)]
    return [f"canvas so far\nlevel {tree.level}", level_name(tree, 1), *(own or ["own canvas"])]


def _whole(tree: ParseTree, images: Tensor, below: int, palette: Sequence[Any]) -> list[Tiles]:
    """The first column: the images and, of each level, all parts in them."""
    tiles: list[Tiles] = [(grey(images), [])]
    for depth in range(1, below + 1):
        above = shades(tree, depth - 1, palette) if depth > 1 else ()
        tiles.append(level_tiles(tree, depth, shades(tree, depth, palette), above))
    return tiles if below > 1 else [*tiles, (grey(tree.canvas.float()), [])]


def _step(tree: ParseTree, part: int, below: int, palette: Sequence[Any]) -> list[Tiles]:
    """The column of a part: the canvas after it, it alone in its place, and its own canvas."""
    renderer, node, size = tree.renderer, tree[part], tree.canvas.shape[-1]
    assert renderer is not None
    first, last = (
        renderer.render(sheets(nodes, renderer.composed), size).float()
        for nodes in (tree.children[part : part + 1], tree.children[: part + 1])
    )
    colour, own = palette[part % len(palette)], tree.canvas.shape[1] == 3
    alone = grey(first) if own else coloured(first.unsqueeze(1), [colour])
    frame = part_frames(tree.matrices(1)[:, part : part + 1], [colour], own)
    tiles: list[Tiles] = [(grey(last), []), (alone, frame)]
    if below == 1:
        canvas = node.canvas.float()
        return [*tiles, (grey(canvas) if own else coloured(canvas.unsqueeze(1), [colour]), [])]
    above: list[Any] = []
    for depth in range(1, below):
        every, count = shades(tree, depth + 1, palette), len(node.nodes(depth))
        colours = every[part * count : (part + 1) * count]
        tiles.append(level_tiles(node, depth, colours, above))
        above = colours
    return tiles
