"""Rows of small pictures in one pair of axes, with names, titles, frames of parts and a key."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, FigureBase
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextPath
from torch import Tensor

from pyro_rnp.plotting.colours import COLOURS, MISSING
from pyro_rnp.plotting.figure import begin, finish

COLUMNS = 12
"""Images beside each other at most; more go into further blocks of rows."""
PAGE = 7.0
"""Width of a page's text in inches, which a figure has at most unless it is told another."""
TILE = 0.9
"""Width of a tile in inches, where the page allows."""
SMALLEST = 0.45
"""Narrower tiles go into further blocks."""
POINTS = 7
"""Size of all text, in points."""
GAP = 0.06
"""Between tiles, in tiles."""
BETWEEN = 0.25
"""Between blocks, in tiles."""
LINE = 1.25 * POINTS / 72
"""Height of a line of text in inches."""
CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])


class Frames(NamedTuple):
    """Frames of parts on each of N pictures."""

    maps: Float[Tensor, "n parts 2 3"]
    """From the parts' coordinates to the image's, both in half-widths."""
    colours: Sequence[Any]
    width: float = 0.6
    """Of the lines, in points."""
    alpha: float = 1.0
    """Opacity of the lines, in [0, 1]."""
    dashed: bool = False
    names: Sequence[str] = ()
    """Texts beside the frames."""
    first: int = 0
    """Column of the first of the N pictures."""


class Row(NamedTuple):
    """Pictures beside each other."""

    name: str
    """The text at the left; it may have two lines."""
    pictures: Float[Tensor, "m h w 3"] | Sequence[Float[Tensor, "_ _ 3"]]
    """RGB in [0, 1], for the first M columns."""
    frames: Sequence[Frames] = ()
    edges: Sequence[Any] | None = None
    """Colours of the tiles' borders; by default light grey."""
    borders: Sequence[float] | None = None
    """Widths of the borders in points; by default 0.7."""


Key = Sequence[tuple[Any, str]]
"""Entries of a colour key: a matplotlib artist, or several, and what it stands for."""


def draw_tiles(
    rows: Sequence[Row],
    path: str | Path | None = None,
    *,
    titles: Sequence[str] = (),
    note: str = "",
    key: Key = (),
    width: float | None = None,
    columns: int = COLUMNS,
    smallest: float = SMALLEST,
    figure: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw rows of pictures in one pair of axes.

    Where there are more columns than fit, the rows go on in further blocks below each other. A
    tile's artists have the id ROW/COLUMN, with the first line of the row's name, in the figure and
    in an SVG file.

    Args:
        rows: the rows.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        titles: titles of the columns; each is wrapped to its column.
        note: a text in red, above.
        key: entries of the colour key below.
        width: of a new figure, in inches; by default as the number of columns wants, up to a
            page's 7.
        columns: most images beside each other.
        smallest: width of a tile in inches below which fewer go beside each other.
        figure: a figure or subfigure to draw into; by default a new one.
        ax: axes to draw into, in place of a figure.

    Raises:
        ValueError: if there are no pictures, the width is not positive, or both a figure and axes
            are given.
    """
    n = max((len(row.pictures) for row in rows), default=0)
    if n == 0:
        raise ValueError("There must be one image or more to draw, got none.")
    if width is not None and not width > 0:
        raise ValueError(f"width must be a positive number of inches, got {width}.")
    if figure is not None and ax is not None:
        raise ValueError("Give figure or ax to draw into, not both.")
    names = ["\n".join(textwrap.fill(line, 16) for line in row.name.split("\n")) for row in rows]
    left = 0.1 + max(_inches(line) for name in names for line in name.split("\n"))
    into = figure if ax is None else ax.figure
    if into is not None:
        box: Any = (into if ax is None else ax).get_window_extent()
        wide = box.width / into.figure.dpi + (0 if ax is None else left + 0.1)
    elif width is None:
        wide = min(PAGE, max(2.4, left + 0.1 + TILE * min(n, columns)))
    else:
        wide = width
    room = max(wide - left - 0.1, 0.1)
    across = min(n, columns, max(1, int(room / smallest)))
    blocks = math.ceil(n / across)
    across = math.ceil(n / blocks)
    tile = min(room / (across * (1 + GAP)), 1.4 if width is None else math.inf)
    heads = [_wrapped(title, tile) for title in titles]
    head = (0.05 + LINE * max(map(_lines, heads))) / tile if heads else 0.0
    block = head + len(rows) * (1 + GAP) + BETWEEN
    # The note stands in the middle of the figure or of the axes, with some room at its sides.
    above = _wrapped(note, 0.94 * (wide if ax is None else wide - left - 0.1))
    entries = [(handle, _wrapped(text, wide - 0.4)) for handle, text in key]
    beside = _beside([text for _, text in entries], wide)
    below = _key_height([text for _, text in entries], beside)
    top = 0.05 + LINE * _lines(above) if note else 0
    height = (blocks * block - BETWEEN) * tile + 0.1 + top + below
    drawn = begin(into, (wide, height), path, dpi=160.0)
    axis = drawn.subplots() if ax is None else ax
    assert isinstance(axis, Axes)
    for r, row in enumerate(rows):
        for i, picture in enumerate(row.pictures):
            corner = (i % across) * (1 + GAP), i // across * block + head + r * (1 + GAP)
            edge = "0.85" if row.edges is None else row.edges[i]
            name = f"{row.name.partition(chr(10))[0]}/{i}"
            border = 0.7 if row.borders is None else row.borders[i]
            _tile(axis, picture, corner, edge, border, name)
            for frames in row.frames:
                if 0 <= i - frames.first < len(frames.maps):
                    _frames(axis, frames, i - frames.first, corner, name)
    for i, text in enumerate(heads[:n]):
        x, y = (i % across) * (1 + GAP) + 0.5, i // across * block + head - 0.05 / tile
        axis.text(x, y, text, size=POINTS, ha="center", va="bottom")
    high = (blocks - 1) * block + head + len(rows) * (1 + GAP) - GAP
    axis.set(xlim=(-0.02, across * (1 + GAP) - GAP + 0.02), ylim=(high + 0.02, -0.02))
    axis.set(aspect="equal", anchor="N", xticks=[])
    axis.spines[:].set_visible(False)
    at = [b * block + head + r * (1 + GAP) + 0.5 for b in range(blocks) for r in range(len(rows))]
    axis.set_yticks(at, blocks * names, size=POINTS, linespacing=1.1)
    axis.tick_params(length=0, pad=2)
    if note:
        (drawn.suptitle if ax is None else ax.set_title)(above, size=POINTS, color="red")
    if entries:
        where: dict[str, Any] = {"loc": "outside lower center"}
        if ax is not None:
            where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0)}
        (drawn if ax is None else ax).legend(
            *zip(*entries, strict=True), **where, ncols=beside, fontsize=POINTS, frameon=False,
            handlelength=1.6, columnspacing=1.2, borderpad=0, borderaxespad=0.2,
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
        )  # fmt: skip
    return finish(drawn, path)


def part_key(parts: int, palette: Sequence[Any] = COLOURS, filled: bool = True) -> Key:
    """The key's entries of parts: their colours and numbers, which count from 0.

    Args:
        parts: the number of parts.
        palette: their colours; they repeat.
        filled: whether the parts are filled with their colours, or only framed.
    """
    entries = []
    for i, colour in enumerate(palette[:parts]):
        numbers = ", ".join(str(j) for j in range(i, parts, len(palette)))
        face = colour if filled else "none"
        entries.append((Patch(facecolor=face, edgecolor=colour), f"part {numbers}"))
    return entries


def shade_key(colours: Sequence[Any], filled: bool = True) -> Key:
    """The key's entry of what is below parts.

    Args:
        colours: of the sub-parts of the first part.
        filled: as `part_key` takes it.
    """
    patches = [Patch(facecolor=c if filled else "none", edgecolor=c) for c in colours]
    text = "sub-parts, dark to light"
    return [(tuple(patches), text)] if len(patches) > 1 else []


def line_key(text: str, dashed: bool = False) -> Key:
    """The key's entry of frames.

    Args:
        text: what they are.
        dashed: whether they are dashed.
    """
    return [(Line2D([], [], color="0.4", linewidth=0.8, linestyle="--" if dashed else "-"), text)]


def missing_key(text: str = "missing pixels") -> Key:
    """The key's entry of pixels that are not known.

    Args:
        text: what they are.
    """
    return [(Patch(facecolor=MISSING), text)]


def _tile(
    axis: Axes, picture: Tensor, corner: tuple[float, float], edge: Any, border: float, name: str
) -> None:
    x, y = corner
    where = (x, x + 1, y + 1, y)
    axis.imshow(picture.numpy(), extent=where, interpolation="nearest", gid=name)
    frame = Rectangle(corner, 1, 1, fill=False, edgecolor=edge, linewidth=border, gid=name)
    axis.add_patch(frame)


def _frames(axis: Axes, frames: Frames, i: int, corner: tuple[float, float], name: str) -> None:
    """The frames on one tile, cut at its border."""
    own = frames.maps[i].float()
    corners = CORNERS @ own[..., :2].mT + own[..., 2].unsqueeze(-2)
    shift = torch.tensor(corner) + 0.5
    lines = LineCollection(
        list((corners / 2 + shift).numpy()), colors=list(frames.colours), alpha=frames.alpha,
        linewidths=frames.width, linestyles="--" if frames.dashed else "-", gid=name,
    )  # fmt: skip
    axis.add_collection(lines, autolim=False)
    lines.set_clip_path(Rectangle(corner, 1, 1, transform=axis.transData))
    for text, colour, points in zip(frames.names, frames.colours, corners, strict=False):
        x, y = points.amin(0).clamp(min=-0.95)
        left, top = (shift + torch.stack([x, y]) / 2).tolist()
        side = "bottom" if y > -0.6 else "top"
        axis.text(
            left, top, text, color=colour, size=POINTS - 1, va=side, gid=name,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.3},
        )  # fmt: skip


@lru_cache(maxsize=4096)
def _inches(text: str) -> float:
    """The width of a line of text."""
    return float(TextPath((0, 0), text, size=POINTS).get_extents().width) / 72 if text else 0.0


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _wrapped(text: str, inches: float) -> str:
    """A text with as many words in each line as have room; longer words, as of files, are cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and _inches(f"{lines[-1]} {word}") <= inches:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for piece in re.split(r"(?<=[_./-])", word):
            for part in [piece] if _inches(piece) <= inches else piece:
                if lines[-1] and _inches(lines[-1] + part) > inches:
                    lines.append("")
                lines[-1] += part
    return "\n".join(lines)


def _beside(texts: Sequence[str], inches: float) -> int:
    """Columns of a key, which is filled column by column: as many as have room, evenly filled."""
    for columns in range(len(texts), 1, -1):
        wide = [max(map(_entry, column)) for column in _split(texts, columns)]
        if sum(wide) <= inches:
            return math.ceil(len(texts) / math.ceil(len(texts) / columns))
    return 1


def _entry(text: str) -> float:
    """The width of an entry of a key in inches."""
    return 0.37 + max(map(_inches, text.split("\n")))


def _split(texts: Sequence[str], columns: int) -> list[Sequence[str]]:
    """The columns of a key; the first ones may have one more entry."""
    rows, longer = divmod(len(texts), columns)
    ends = [i * rows + min(i, longer) for i in range(columns + 1)]
    return [texts[a:b] for a, b in pairwise(ends)]


def _key_height(texts: Sequence[str], columns: int) -> float:
    """The height of a key in inches."""
    if not texts:
        return 0.0
    lines = max(sum(_lines(text) + 0.4 for text in own) for own in _split(texts, columns))
    return 0.08 + LINE * lines
