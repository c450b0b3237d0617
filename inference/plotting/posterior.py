"""Pictures of posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from inference.posterior import Posterior
from pyro_rnp.affine import compose, matrix
from pyro_rnp.checks import Images
from pyro_rnp.parse_tree import site_name
from pyro_rnp.plotting import (
    COLOURS,
    MISSING,
    Frames,
    Row,
    coloured,
    draw_tiles,
    grey,
    level_name,
    line_key,
    missing_key,
    pixels,
    shades,
    tree_key,
)

ADVICE = {"smc": "", "hmc": " or warmup", "nuts": ' or warmup, or method="smc"'}
"""What helps, by engine, besides more samples."""


def posterior_figure(
    posterior: Posterior,
    path: str | Path | None = None,
    images: Images | None = None,
    seen: Bool[Tensor, "n c h w"] | None = None,
    shown: int = 3,
    given: Mapping[str, Tensor] | None = None,
    *,
    width: float | None = None,
    palette: Sequence[Any] = COLOURS,
    figure: FigureBase | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw a posterior, a column for each image.

    Rows: the image, where given, and its seen pixels, with the hidden ones in light blue; the
    posterior mean of the canvas, and twice its standard deviation; samples, drawn by weight; and
    for each level the probability that a part made the pixel, in the colours of `parse_figure`. A
    column whose posterior is not trusted is framed in red, and a red note says what to do.

    Args:
        posterior: the posterior of N images.
        path: a .png, .svg or .pdf file to write; None writes nothing.
        images: (N, C, H, W) in [0, 1], or another form that `rnp.parse` takes, whole images; by
            default there is no such row.
        seen: (N, C, H, W), True where pixels were seen; by default those of the query.
        shown: samples to draw.
        given: the sites that were given, as `query` takes them; by default those of the query. The
            frame of an action among them is drawn, in the colour of its part and with its name, on
            the expected canvas and on the row of its level; that of a sub-part whose parent's
            action is not given lies in the parent's expected frame.
        width: of a new figure, in inches; by default as the number of images wants, up to 7.
        palette: colours of the parts, in their order; they repeat.
        figure: a figure or subfigure to draw into; by default a new one.
        ax: axes to draw into, in place of a figure.
    """
    evidence = posterior.evidence
    key: list[tuple[Any, str]] = []
    if evidence is not None:
        seen = evidence.seen if seen is None else seen
        given = evidence.given if given is None else given
    trusted = posterior.trusted.tolist()
    edges = ["0.85" if good else "red" for good in trusted]
    with torch.no_grad():
        mean = posterior.mean("canvas").cpu()
        spread = posterior.variance("canvas").clamp(min=0).sqrt().cpu()
        rows: list[tuple[str, Tensor]] = []
        whole = None if images is None else pixels(images, len(mean))
        if whole is not None:
            rows.append(("image", grey(whole)))
            key += missing_key() if whole.isnan().any() else ()
        if seen is not None and seen.any() and (whole is None or not seen.all()):
            known = whole if whole is not None or evidence is None else evidence.images
            if known is not None:
                hidden = ~seen.cpu().all(1).unsqueeze(-1)
                blue = torch.tensor(to_rgb(MISSING))
                rows.append(("seen", torch.where(hidden, blue, grey(known.cpu()))))
                key = [*missing_key("hidden or missing pixels")] if hidden.any() else key
        on = [len(rows)]
        rows += [("expected", grey(mean)), ("2 std. dev.", grey(2 * spread))]
        tree = posterior.sample(shown).map(Tensor.cpu)
        drawn = tree.canvas.unflatten(0, (shown, -1))
        rows += [(f"sample {i}", grey(canvas)) for i, canvas in enumerate(drawn)]
        for depth in range(1, tree.level + 1):
            chances = posterior.part_probabilities(depth)[:, :-1].unsqueeze(2).cpu()
            on.append(len(rows))
            colours = shades(tree, depth, palette)
            rows.append((level_name(tree, depth), coloured(chances, colours)))
        frames = _given_frames(posterior, given or {}, on, palette)
    key = [*tree_key(tree, tree.level, palette, framed=False), *key]
    key += line_key("frames with names: the actions that are given") if frames else ()
    tiles = [
        Row(name, pictures, [own for row, own in frames if row == i], edges)
        for i, (name, pictures) in enumerate(rows)
    ]
    note = "" if all(trusted) else _advice(posterior)
    return draw_tiles(tiles, path, note=note, key=key, width=width, figure=figure, ax=ax)


def _advice(posterior: Posterior) -> str:
    """What the red frames mean, and what to do about them."""
    n, bad = len(posterior.trusted), int((~posterior.trusted).sum())
    these = f"the posteriors of {bad} of {n} images are" if n > 1 else "this posterior is"
    more = ADVICE.get(posterior.method, ', or method="smc"')
    return f"Framed in red: {these} unreliable (see notes); take more num_samples{more}."


def _given_frames(
    posterior: Posterior,
    given: Mapping[str, Tensor],
    rows: Sequence[int],
    palette: Sequence[Any],
) -> list[tuple[int, Frames]]:
    """The frames of the given actions, for the first of the rows and for that of their depth."""
    found, n = [], len(posterior.log_evidence)
    for site in (site for site in given if site.startswith("a/")):
        path = tuple(int(step) for step in site.split("/")[1:])
        maps = torch.eye(2, 3).expand(n, 2, 3)
        for depth in range(1, len(path) + 1):
            above = site_name("a", path[:depth])
            action = given.get(above, posterior.mean(above)).cpu().float()
            maps = compose(maps, matrix(action.expand(n, -1)))
        colour = palette[path[0] % len(palette)]
        own = Frames(maps.unsqueeze(1), [colour], width=1.0, names=[site])
        found += [(rows[i], own) for i in (0, len(path))]
    return found
