"""Pictures of parse trees, as matplotlib figures.

`inference.plotting` has these functions too, beside those for posteriors, runs and tables.
"""

from pyro_rnp.plotting.colours import COLOURS, coloured, grey, part_colour, pixels
from pyro_rnp.plotting.figure import SHOWN, NotebookFigure, begin, begin_axes, finish, html
from pyro_rnp.plotting.parse import draw_frame, parse_figure

__all__ = [
    "COLOURS",
    "SHOWN",
    "NotebookFigure",
    "begin",
    "begin_axes",
    "coloured",
    "draw_frame",
    "finish",
    "grey",
    "html",
    "parse_figure",
    "part_colour",
    "pixels",
]
