"""Pictures of parses, posteriors, dictionaries and curves, as PNG files.

Ink is black on white. A part has the colour of its number in its program: blue, red, green,
orange, purple, brown, then blue again; so has its frame, the outline of its canvas in the image.
Each file is written whole or not at all.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.colors
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from inference.evaluation.part_dictionary import PartDictionary, PartTable
from inference.posterior import Posterior
from pyro_rnp import ParseTree
from pyro_rnp.affine import compose, matrix
from pyro_rnp.files import write
from pyro_rnp.parse_tree import site_name

COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:orange", "tab:purple", "tab:brown")
"""Colours of the first part, the second and so on, repeating, in the paper's order."""
CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])


class Frame(NamedTuple):
    """A part's frame in each of N images, on one row of a picture."""

    name: str
    """The text beside the frame."""
    row: int
    maps: Float[Tensor, "n 2 3"]
    """From the part's coordinates to the image's, both in half-widths."""
    colour: str


def _colour(part: int) -> str:
    return COLOURS[part % len(COLOURS)]


def coloured(shares: Float[Tensor, "n parts c h w"], colours: int) -> Float[Tensor, "n h w 3"]:
    """Colour the intensity that each part adds, on white.

    Args:
        shares: (N, parts, C, H, W), the part of an image that each part adds, in [0, 1].
        colours: after this many parts the colours begin again.

    Returns:
        (N, H, W, 3) RGB in [0, 1].
    """
    names = [_colour(i % colours) for i in range(shares.shape[1])]
    inks = torch.tensor([matplotlib.colors.to_rgb(name) for name in names])
    intensity = shares.mean(2).clamp(0, 1)
    return (1 - torch.einsum("nphw,pr->nhwr", intensity, 1 - inks)).clamp(0, 1)


def grey(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w 3"]:
    """Turn images of one channel into black ink on white; images of three channels stay.

    Args:
        images: (N, C, H, W); values beyond [0, 1] are clamped.

    Returns:
        (N, H, W, 3) RGB in [0, 1].
    """
    shown = images.clamp(0, 1).permute(0, 2, 3, 1)
    return shown if shown.shape[-1] == 3 else (1 - shown[..., :1]).expand(-1, -1, -1, 3)


def parse_figure(
    tree: ParseTree,
    path: str | Path,
    images: Float[Tensor, "n c h w"] | None = None,
    titles: Sequence[str] = (),
    more: Sequence[tuple[str, Float[Tensor, "n c h w"]]] = (),
) -> None:
    """Draw parses or samples, a column for each image.

    Rows: the image, where given; the canvas; the rows of `more`; then, for each level, the parts in
    the colours of their numbers, each outlined by its frame. A sub-part has the colour of its
    number within its part.

    Args:
        tree: parses or samples of N images.
        path: PNG file to write.
        images: (N, C, H, W) in [0, 1]; None for samples, which have none.
        titles: titles of the columns.
        more: names and images (N, C, H, W) of rows below the canvas.
    """
    with torch.no_grad():
        tree = tree.map(lambda t: t.detach().cpu())
        rows: list[tuple[str, Tensor, tuple[Tensor, int] | None]] = []
        if images is not None:
            rows.append(("image", grey(images.cpu()), None))
        rows.append(("sample" if images is None else "parse", grey(tree.canvas), None))
        rows += [(name, grey(pictures.cpu()), None) for name, pictures in more]
        for depth in range(1, tree.level + 1):
            name = ["parts", "sub-parts"][depth - 1] if depth < 3 else f"level {depth} parts"
            steps = len(tree.nodes(depth - 1)[0])
            shown = coloured(tree.contributions(depth), steps)
            rows.append((name, shown, (tree.matrices(depth), steps)))
    n = len(tree.canvas)
    figure = Figure(figsize=(n, len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), n, squeeze=False)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=9)
    for (name, shown, frames), row in zip(rows, axes, strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for i, axis in enumerate(row):
            axis.imshow(shown[i].numpy(), extent=(-1, 1, 1, -1), interpolation="nearest")
            axis.set(xticks=[], yticks=[], xlim=(-1, 1), ylim=(1, -1))
            for spine in axis.spines.values():
                spine.set_color("0.85")
            if frames is not None:
                _outline(axis, frames[0][i], frames[1])
    _save(figure, path)


def posterior_figure(
    posterior: Posterior,
    path: str | Path,
    images: Float[Tensor, "n c h w"] | None = None,
    seen: Bool[Tensor, "n c h w"] | None = None,
    shown: int = 3,
    given: Mapping[str, Tensor] | None = None,
) -> None:
    """Draw a posterior, a column for each image.

    Rows: the image, where given, and its seen pixels, with the hidden ones in light blue; the
    posterior mean of the canvas, and twice its standard deviation; samples, drawn by weight; and
    for each level the probability that a part made the pixel, in the colours of the parts. A
    column whose posterior is not trusted is framed in red, and a red note says so.

    Args:
        posterior: the posterior of N images.
        path: PNG file to write.
        images: (N, C, H, W) in [0, 1] that the query was given.
        seen: (N, C, H, W), True where pixels were seen.
        shown: samples to draw.
        given: the sites that were given, as `query` takes them. The frame of an action among them
            is drawn, in the colour of its part and with its name, on the expected canvas and on
            the row of its level; that of a sub-part whose parent's action is not given lies in
            the parent's expected frame.
    """
    with torch.no_grad():
        mean = posterior.mean("canvas").cpu()
        spread = posterior.variance("canvas").clamp(min=0).sqrt().cpu()
        rows: list[tuple[str, Tensor]] = []
        if images is not None:
            rows.append(("image", grey(images.cpu())))
            if seen is not None and not seen.all():
                hidden = ~seen.cpu().all(1).unsqueeze(-1)
                blue = torch.tensor(matplotlib.colors.to_rgb("lightsteelblue"))
                rows.append(("seen", torch.where(hidden, blue, grey(images.cpu()))))
        on = [len(rows)]
        rows += [("expected", grey(mean)), ("std. dev.", grey(2 * spread))]
        drawn = posterior.resample(shown).cpu()
        rows += [(f"sample {i + 1}", grey(canvas)) for i, canvas in enumerate(drawn)]
        for depth in range(1, posterior.tree.level + 1):
            chances = posterior.part_probabilities(depth)[:, :-1].unsqueeze(2).cpu()
            name = ["parts", "sub-parts"][depth - 1] if depth < 3 else f"level {depth} parts"
            on.append(len(rows))
            rows.append((name, coloured(chances, len(posterior.tree.nodes(depth - 1)[0]))))
        frames = _given_frames(posterior, given or {}, on)
    trusted = posterior.trusted.tolist()
    note = (
        "framed in red: unreliable (few effective samples, heavy or unknown tails of "
        "weights, unsound chains)"
    )
    edges = ["0.85" if good else "red" for good in trusted]
    _grid(rows, path, edges, "" if all(trusted) else note, frames)


def _given_frames(
    posterior: Posterior, given: Mapping[str, Tensor], rows: Sequence[int]
) -> list[Frame]:
    """The frames of the given actions, on the first of the rows and on that of their depth."""
    found, n = [], len(posterior.log_evidence)
    for site in (site for site in given if site.startswith("a/")):
        path = tuple(int(step) for step in site.split("/")[1:])
        maps = torch.eye(2, 3).expand(n, 2, 3)
        for depth in range(1, len(path) + 1):
            above = site_name("a", path[:depth])
            action = given.get(above, posterior.mean(above)).cpu().float()
            maps = compose(maps, matrix(action.expand(n, -1)))
        found += [Frame(site, rows[i], maps, _colour(path[-1])) for i in (0, len(path))]
    return found


def dictionary_figure(
    found: PartDictionary, parts: PartTable, path: str | Path, members: int = 10
) -> None:
    """Draw a dictionary of parts, a row for each group.

    A row has the mean canvas of the group, then its most typical parts, all in the parts' own
    frames. Its name is the share of all parts that are in the group.

    Args:
        found: the dictionary.
        parts: the parts that it was made of.
        path: PNG file to write.
        members: typical parts of each group.
    """
    rows = []
    for mean, usage, indices in zip(found.canvases, found.usage, found.members, strict=True):
        shown = torch.zeros(members + 1, *mean.shape)
        shown[0] = mean
        typical = parts.canvases[indices[:members]]
        shown[1 : 1 + len(typical)] = typical
        rows.append((f"{100 * usage:.1f} %", grey(shown)))
    _grid(rows, path)


def exemplar_figure(
    images: Float[Tensor, "n c h w"], made: Float[Tensor, "n k c h w"], path: str | Path
) -> None:
    """Draw images, a row each, and beside each its new exemplars.

    Args:
        images: (N, C, H, W) in [0, 1].
        made: (N, K, C, H, W), the exemplars of each image's class.
        path: PNG file to write.
    """
    rows = torch.cat([images.unsqueeze(1), made.cpu()], 1)
    grid_figure([("given, others", row) for row in rows], path)


def space_figure(
    plane: Float[Tensor, "m 2"],
    colours: Int[Tensor, "m"],
    names: Sequence[str],
    shown: Sequence[tuple[int, str, Float[Tensor, "c s s"]]],
    path: str | Path,
) -> None:
    """Draw programs on a plane, a dot each, and the pictures that some of them draw.

    Dots and the frames of pictures have the colour of the program's kind, as the legend says. A
    picture lies on its dot, or beside it with a line to it, so that none hides another.

    Args:
        plane: (M, 2) coordinates of the programs.
        colours: (M,) kind of each program, an index of `names`.
        names: names of the kinds.
        shown: programs to show: number, text in the picture, and picture (C, S, S) in [0, 1].
        path: PNG file to write.
    """
    figure = Figure(figsize=(7, 7), layout="constrained")
    axis = figure.subplots()
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
    _save(figure, path)


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


def grid_figure(rows: Sequence[tuple[str, Float[Tensor, "n c h w"]]], path: str | Path) -> None:
    """Draw rows of images, each with its name.

    Args:
        rows: names and images (N, C, H, W) in [0, 1], of the same N.
        path: PNG file to write.
    """
    _grid([(name, grey(images)) for name, images in rows], path)


def _grid(
    rows: Sequence[tuple[str, Float[Tensor, "n h w 3"]]],
    path: str | Path,
    edges: Sequence[str] | None = None,
    note: str = "",
    frames: Sequence[Frame] = (),
) -> None:
    """Rows of pictures with their names, columns framed in their colours, and frames of parts."""
    n = len(rows[0][1])
    width, caption = max(n, 4), "frames with names: the actions that are given" if frames else ""
    lines = [textwrap.wrap(text, 15 * width) for text in (note, caption)]  # letters to an inch
    height = len(rows) + 0.3 + 0.15 * sum(map(len, lines))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(rows), n, squeeze=False)
    for (name, pictures), row in zip(rows, axes, strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for i, (axis, picture) in enumerate(zip(row, pictures, strict=True)):
            axis.imshow(picture.numpy(), extent=(-1, 1, 1, -1), interpolation="nearest")
            axis.set(xticks=[], yticks=[], xlim=(-1, 1), ylim=(1, -1))
            for spine in axis.spines.values():
                spine.set_color("0.85" if edges is None else edges[i])
    for name, row, maps, colour in frames:
        for axis, own in zip(axes[row], maps, strict=True):
            corners = _draw_frame(axis, own, colour, 1.0, 1.0)
            x, y = corners.amin(0).clamp(min=-0.97).tolist()
            place = {"va": "bottom"} if y > -0.75 else {"va": "top"}
            axis.text(x, y, name, color=colour, fontsize=6, clip_on=True, **place)
    if note:
        figure.suptitle("\n".join(lines[0]), fontsize=8, color="red")
    if caption:
        figure.supxlabel("\n".join(lines[1]), fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    write(Path(path), buffer.getvalue())


def _outline(axis: Axes, maps: Float[Tensor, "parts 2 3"], colours: int) -> None:
    """Frames in the colours of their parts; of many, fainter, so that ink is seen below them."""
    width, alpha = (0.5, 0.6) if len(maps) <= len(COLOURS) else (0.35, 0.35)
    for j, own in enumerate(maps):
        _draw_frame(axis, own, _colour(j % colours), width, alpha)


def _draw_frame(
    axis: Axes, own: Float[Tensor, "2 3"], colour: str, width: float, alpha: float
) -> Float[Tensor, "5 2"]:
    """Draw the frame that a map takes to the picture's, and return its corners there."""
    corners = CORNERS.to(own) @ own[:, :2].mT + own[:, 2]
    axis.plot(*corners.mT.numpy(), color=colour, linewidth=width, alpha=alpha)
    return corners


def scaling_figure(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw time and memory per image, a column for each sweep of a scaling test.

    Axes are logarithmic, or linear where a sweep begins at 0. The dotted grey line is proportional
    to the number of nodes in the tree, through the first point.

    Args:
        rows: those of `inference.evaluation.benchmark.scaling`.
        path: PNG file to write.
    """
    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    units = {"ms_per_image": "ms per image", "mib_per_image": "MiB per image"}
    figure = Figure(figsize=(2.6 * len(sweeps), 4.6), layout="constrained")
    axes = figure.subplots(len(units), len(sweeps), squeeze=False)
    for line, (field, unit) in zip(axes, units.items(), strict=True):
        for axis, sweep in zip(line, sweeps, strict=True):
            points = [row for row in rows if row["sweep"] == sweep]
            x, y = [p["value"] for p in points], [p[field] for p in points]
            axis.loglog(x, y, "o-", color=COLOURS[0])
            nodes = [p["nodes"] * y[0] / points[0]["nodes"] for p in points]
            if len(set(nodes)) > 1:
                axis.loglog(x, nodes, ":", color="grey", label="proportional to nodes")
                axis.legend(fontsize=7, frameon=False)
            if min(x) == 0:
                axis.set(xscale="linear", yscale="linear", ylim=(0, 1.1 * max(y)))
            else:
                _plain_ticks(axis)
            axis.set_xticks(x, [str(v) for v in x])
            axis.xaxis.minorticks_off()
            axis.set_xlabel(sweep)
            axis.grid(alpha=0.3)
        line[0].set_ylabel(unit)
    _save(figure, path)


def _plain_ticks(axis: Axes) -> None:
    """Numbers without powers on a logarithmic axis, after all is drawn on it: 1, 2, 5, 10, ..."""
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def curves_figure(
    curves: Mapping[str, Mapping[float, float]], ticks: Sequence[int], label: str, path: str | Path
) -> None:
    """Draw curves over epochs, both axes logarithmic; the first is a black dotted reference.

    Args:
        curves: by name, values by epochs done.
        ticks: epochs to mark on the axis.
        label: name and unit of the values.
        path: PNG file to write.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for i, (name, points) in enumerate(curves.items()):
        style = {"color": "black", "marker": "o", "linestyle": ":"} if i == 0 else {}
        axis.loglog([*points], [*points.values()], label=name, **style)
    axis.set(xlabel="epochs", ylabel=label)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.xaxis.minorticks_off()
    _plain_ticks(axis)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper right")
    _save(figure, path)
