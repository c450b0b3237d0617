"""Pictures of parses, posteriors, dictionaries and curves, as matplotlib figures.

Each function returns a figure, which a notebook shows, and writes it to a .png, .svg or .pdf file
where it is given a path. Ink is black on white; colour images keep their colours. A part has the
colour of its number, which counts from 0: blue, red, green, orange, purple, brown, then blue again;
what is below it has shades of that colour, from dark to light. So have their frames, the outlines
of their canvases in the image. `width` in inches and `palette` suit a figure to a page.
"""

from inference.plotting.curves import curves_figure
from inference.plotting.dictionary import dictionary_figure
from inference.plotting.grid import exemplar_figure, grid_figure
from inference.plotting.learning import comparison_figure, learning_figure
from inference.plotting.posterior import posterior_figure
from inference.plotting.scaling import scaling_figure
from inference.plotting.space import space_figure
from pyro_rnp.plotting import COLOURS, coloured, grey, parse_figure, program_figure

__all__ = [
    "COLOURS",
    "coloured",
    "comparison_figure",
    "curves_figure",
    "dictionary_figure",
    "exemplar_figure",
    "grey",
    "grid_figure",
    "learning_figure",
    "parse_figure",
    "posterior_figure",
    "program_figure",
    "scaling_figure",
    "space_figure",
]
