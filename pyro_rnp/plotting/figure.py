"""Figures that show themselves in a notebook, and files of figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from pyro_rnp.files import write

Size = tuple[float | int, float | int]
"""Width and height in inches."""
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
"""The kinds of files by suffix, with metadata that leave the time out: the same figure is the same
file."""
SHOWN = 8
"""Images that a notebook shows of a tree or a posterior."""
SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "pyro_rnp", "pdf.fonttype": 42,
    "image.composite_image": False,
}  # fmt: skip
"""Text stays text in SVG and PDF, so that it can be searched, edited and printed by journals; and
each picture in them stays sharp, which many made into one are not."""


class NotebookFigure(Figure):
    """A matplotlib figure that a notebook shows as the last value of a cell.

    It belongs to no backend: nothing opens a window, and nothing needs to be closed. A figure of
    `pyplot` does the same only after `%matplotlib inline`.
    """

    def _repr_png_(self) -> bytes:
        return to_bytes(self, ".png")


def begin(
    figure: FigureBase | None,
    size: Size,
    path: str | Path | None = None,
    dpi: float = 120,
) -> FigureBase:
    """Return the figure to draw into, after a look at where it will be written.

    Args:
        figure: a figure or subfigure to draw into; None for a new one.
        size: width and height of a new one, in inches.
        path: the file that `finish` will write, if any.
        dpi: dots per inch of a new one.

    Raises:
        ValueError: if the path's suffix is none of `FORMATS`.
        FileNotFoundError: if the path's folder does not exist.
    """
    if path is not None:
        if Path(path).suffix.lower() not in FORMATS:
            raise ValueError(f"path must end in {', '.join(FORMATS)}, got {str(path)!r}.")
        if not Path(path).parent.is_dir():
            raise FileNotFoundError(f"The folder of the picture {path} does not exist.")
    if figure is None:
        return NotebookFigure(figsize=size, dpi=dpi, layout="constrained")
    if isinstance(figure, Figure) and not figure.axes and figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    return figure


def begin_axes(ax: Axes | None, size: Size, path: str | Path | None = None) -> Axes:
    """Return the axes to draw into, as `begin` does a figure.

    Args:
        ax: axes to draw into; None for those of a new figure.
        size: width and height of a new figure, in inches.
        path: the file that `finish` will write, if any.

    Raises:
        ValueError, FileNotFoundError: as `begin`.
    """
    figure = begin(None if ax is None else ax.figure, size, path)
    return figure.subplots() if ax is None else ax


def finish(figure: FigureBase, path: str | Path | None = None) -> Figure:
    """Write a figure to a file, whole or not at all, and return it.

    Args:
        figure: a figure, or a subfigure, whose whole figure is written and returned.
        path: a .png, .svg or .pdf file; None writes nothing.

    Raises:
        OSError: if the file cannot be written; one that was there before is then untouched.
    """
    whole = figure.figure
    assert isinstance(whole, Figure)
    if engine := whole.get_layout_engine():
        for _ in range(2):  # square tiles move the names beside them
            engine.execute(whole)
    if path is not None:
        write(Path(path), to_bytes(whole, Path(path).suffix.lower()))
    return whole


def to_bytes(figure: Figure, suffix: str) -> bytes:
    """The content of a figure's file.

    Args:
        figure: the figure; its own dots per inch hold for .png.
        suffix: one of `FORMATS`.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, dpi=figure.dpi, format=suffix[1:], metadata=FORMATS[suffix])
    return buffer.getvalue()


def html(text: str, draw: Callable[[], Figure]) -> str | None:
    """A text and a picture below it, for a notebook.

    Args:
        text: the text.
        draw: makes the picture.

    Returns:
        HTML; None where the picture cannot be made, so that the notebook shows the text alone.
    """
    try:
        picture = base64.b64encode(to_bytes(draw(), ".png")).decode()
    except Exception:  # a value is shown in every state, also one that is not finished
        return None
    image = f'<img style="max-width: 100%" src="data:image/png;base64,{picture}">'
    return f"<pre>{escape(text)}</pre>{image}"
