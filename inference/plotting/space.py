"""Pictures of the space of programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_rnp.plotting import begin_axes, finish, grey


def space_figure(
    plane: Float[Tensor, "m 2"],
    colours: Int[Tensor, "m"],
    names: Sequence[str],
    shown: Sequence[tuple[int, str, Float[Tensor, "c s s"]]],
    path: str | Path | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """Draw programs on a plane, a dot each, and the pictures that some of them draw.

    Dots and the frames of pictures have the colour of the program's kind, as the legend says. A
    picture lies on its dot, or beside it with a line to it, so that none hides another.

    Args:
        plane: (M, 2) coordinates of the programs.
        colours: (M,) kind of each program, an index of `names`.
        names: names of the kinds.
        shown: programs to show: number, text in the picture, and picture (C, S, S) in [0, 1].
        path: a .png, .svg or .pdf file to write; None writes nothing.
        ax: axes to draw into; by default those of a new figure.
    """
    axis = begin_axes(ax, (7, 7), path)
    plane = (plane - plane.amin(0)) / (plane.amax(0) - plane.amin(0)).clamp(min=1e-9)
    for kind, name in enumerate(names):
        x, y = plane[colours == kind].mT.numpy()
        axis.scatter(x, y, s=4, alpha=0.5, label=name, color=f"C{kind}")
    size, dots = 0.07, plane[[i for i, _, _ in shown]]
    places = _apart(dots, 1.1 * size)
    for (i, name, image), dot, place in zip(shown, dots.tolist(), places.tolist(), strict=True):
        colour = f"C{int(colours[i])}"
        axis.plot(*zip(dot, place, strict=True), color=colour, linewidth=1)
        corner = [at - size / 2 for at in place]
        inset = axis.inset_axes((*corner, size, size), transform=axis.transData)
        inset.imshow(grey(image.unsqueeze(0))[0].numpy(), interpolation="nearest")
        inset.set(xticks=[], yticks=[])
        inset.spines[:].set_color(colour)
        inset.text(0.04, 0.96, name, color=colour, size=8, va="top", transform=inset.transAxes)
    axis.set(xticks=[], yticks=[])
    axis.legend(markerscale=4, fontsize=8)
    return finish(axis.figure, path)


def _apart(points: Float[Tensor, "n 2"], width: float) -> Float[Tensor, "n 2"]:
    """Move squares of a width from their points until none covers another."""
    # Those on the very same point would not know which way to go.
    places = points + 1e-3 * width * torch.randn(
        points.shape, generator=torch.Generator().manual_seed(0)
    )
    for _ in range(1000):
        between = places.unsqueeze(1) - places
        far = between.abs().amax(-1).fill_diagonal_(width)
        if far.min() >= 0.99 * width:
            break
        push = between / far.unsqueeze(-1) * (width - far).clamp(min=0).unsqueeze(-1)
        places = places + push.sum(1) / 2
    return places
