"""Pictures of parse trees, as matplotlib figures.

`inference.plotting` has these functions too, beside those for posteriors, runs and tables.
"""

from pyro_rnp.plotting.colours import COLOURS, coloured, grey, part_colour
from pyro_rnp.plotting.figure import NotebookFigure, begin, begin_axes, finish
from pyro_rnp.plotting.parse import draw_frame, parse_figure

__all__ = [
    "COLOURS",
    "NotebookFigure",
    "begin",
    "begin_axes",
    "coloured",
    "draw_frame",
    "finish",
    "grey",
    "parse_figure",
    "part_colour",
]
