"""Pictures of parse trees, as matplotlib figures.

`inference.plotting` has these functions too, beside those for posteriors, runs and tables.
"""

from pyro_rnp.plotting.colours import COLOURS, MISSING, coloured, grey, pixels, shades
from pyro_rnp.plotting.figure import SHOWN, NotebookFigure, begin, begin_axes, finish, html
from pyro_rnp.plotting.parse import level_name, parse_figure, tree_key
from pyro_rnp.plotting.program import program_figure
from pyro_rnp.plotting.tiles import Frames, Key, Row, draw_tiles, line_key, missing_key, part_key

__all__ = [
    "COLOURS",
    "MISSING",
    "SHOWN",
    "Frames",
    "Key",
    "NotebookFigure",
    "Row",
    "begin",
    "begin_axes",
    "coloured",
    "draw_tiles",
    "finish",
    "grey",
    "html",
    "level_name",
    "line_key",
    "missing_key",
    "parse_figure",
    "part_key",
    "pixels",
    "program_figure",
    "shades",
    "tree_key",
]
