"""What the page shows, as pictures and as SVG above them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import Any

import torch
from jaxtyping import Bool, Float
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor

from inference.explore.frames import HANDLES, Part, handles
from inference.explore.steps import up_to
from pyro_rnp import ParseTree
from pyro_rnp.plotting import COLOURS, MISSING, coloured, grey, shades

HINTS = {
    "move": "move",
    "scale": "scale",
    "scale_x": "change the width of",
    "scale_y": "change the height of",
    "rotate": "rotate",
    "shear": "shear",
}
"""What the handles do, before the part's name."""
NEAREST = 0.075
"""How near to the centre of a small frame its handles are shown, as a share of the image."""


def uri(rgb: Float[Tensor, "h w 3"]) -> str:
    """A picture as an address that holds it, for `img` elements.

    Args:
        rgb: in [0, 1].
    """
    file = BytesIO()
    Image.fromarray((rgb * 255).round().byte().numpy()).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def ink(
    image: Float[Tensor, "c s s"], seen: Bool[Tensor, "s s"] | None = None
) -> Float[Tensor, "s s 3"]:
    """An image as the page shows it: black ink on white, hidden pixels light blue.

    Args:
        image: in [0, 1].
        seen: true where a pixel is seen; by default everywhere.
    """
    shown = grey(image.detach().cpu().unsqueeze(0))[0]
    if seen is None:
        return shown
    return torch.where(seen.unsqueeze(-1), shown, torch.tensor(to_rgb(MISSING)))


def spread(std: Float[Tensor, "c s s"]) -> Float[Tensor, "s s 3"]:
    """A standard deviation as the page shows it: white is none, dark violet one half or more.

    Args:
        std: of pixels in [0, 1].
    """
    amount = (2 * std.detach().cpu().mean(0)).clamp(0, 1).sqrt().unsqueeze(-1)
    return 1 - amount * (1 - torch.tensor([0.25, 0.0, 0.4]))


def painted(
    tree: ParseTree, depth: int = 1, steps: int | None = None, palette: Sequence[Any] = COLOURS
) -> Float[Tensor, "s s 3"]:
    """The canvas of a parse in the colours of its parts.

    Args:
        tree: of one image. Images in colour keep their own colours.
        depth: 1 colours the parts, 2 their sub-parts; 0 is the canvas in black.
        steps: how many of them, in the order of the program, are shown; by default all.
        palette: colours of the parts, in their order; they repeat.
    """
    count = len(tree.nodes(depth)) if depth else 0
    steps = count if steps is None else steps
    if 0 < steps < count:  # as the canvas was before later parts came
        paths = [path for path, _ in tree.walk() if len(path) == depth]
        tree = up_to(tree, paths[steps - 1])
    if not depth or not tree.level:
        return ink(tree.canvas[0])
    colours = [*palette] if depth == 1 else shades(tree, depth, palette)
    shares = tree.contributions(depth)[:, :steps].detach().cpu()
    if tree.canvas.shape[1] == 3:
        return shares.sum(1)[0].clamp(0, 1).permute(1, 2, 0)
    return coloured(shares, colours)[0] if steps else torch.ones(*tree.canvas.shape[-2:], 3)


def frames(
    parts: Iterable[Part], size: int, chosen: str | None = None, outer: Iterable[Part] = ()
) -> str:
    """The frames of parts as SVG, and the handles of the one that is chosen.

    What can be taken hold of has `data-handle`, the part's path and one of `HANDLES`.

    Args:
        parts: those whose frames are shown.
        size: of the picture below, in pixels.
        chosen: path of the part with handles.
        outer: parts whose frames are dashed and cannot be taken.
    """
    lines = [_polygon(part, size, "rnp-outer") for part in outer]
    taken = None
    for part in sorted(parts, key=_area, reverse=True):  # a small one lies above a large one
        if part.path == chosen:
            taken = part
        lines.append(_polygon(part, size, "rnp-frame", held=f"{part.path} move"))
    if taken is not None:
        lines.append(_polygon(taken, size, "rnp-chosen", fill=taken.colour))
        lines += [_handle(taken, name, *place, size) for name, place in _places(taken).items()]
    return "".join(lines)


def _area(part: Part) -> float:
    (ax, ay), (bx, by), _, (dx, dy) = part.corners
    return abs((bx - ax) * (dy - ay) - (by - ay) * (dx - ax))


def _polygon(part: Part, size: int, kind: str, held: str = "", fill: str = "") -> str:
    points = " ".join(f"{x * size:.3f},{y * size:.3f}" for x, y in part.corners)
    grip = f' data-handle="{held}"' if held else ""
    style = f"stroke:{part.colour}" + (f";fill:{fill}" if fill else "")
    title = f"<title>{escape(part.label)}: drag to move it</title>" if held else ""
    halo = f'<polygon class="{kind} rnp-halo" points="{points}"/>'
    return (
        f'{halo}<polygon class="{kind}" points="{points}" style="{style}"{grip}>{title}</polygon>'
    )


def _places(part: Part) -> dict[str, tuple[float, float]]:
    """Where handles are shown: at their places, or farther out where these are too near."""
    found = handles(part)
    cx, cy = found["move"]
    for name, (x, y) in found.items():
        far = ((x - cx) ** 2 + (y - cy) ** 2) ** 0.5
        least = NEAREST * (1 + (name in ("scale", "shear")) * 0.4)
        if name != "move" and 0 < far < least:
            found[name] = cx + (x - cx) * least / far, cy + (y - cy) * least / far
    return found


def _handle(part: Part, name: str, x: float, y: float, size: int) -> str:
    """A grip of its own shape, inside of a larger, invisible one for fingers."""
    x, y, r = x * size, y * size, 0.016 * size
    square = f'<rect x="{x - r}" y="{y - r}" width="{2 * r}" height="{2 * r}"'
    shape = {
        "scale": f"{square}/>",
        "scale_x": f'<rect x="{x - r * 0.6}" y="{y - r}" width="{r * 1.2}" height="{2 * r}"/>',
        "scale_y": f'<rect x="{x - r}" y="{y - r * 0.6}" width="{2 * r}" height="{r * 1.2}"/>',
        "shear": f'{square} transform="skewX(-25)" style="transform-box:fill-box;'
        'transform-origin:center"/>',
    }.get(name, f'<circle cx="{x}" cy="{y}" r="{r}"/>')
    shape = shape.replace("/>", f' fill="{part.colour if name == "move" else "#fff"}"/>')
    hint = f"{HINTS[name]} {part.label}".capitalize()
    return (
        f'<g class="rnp-handle" stroke="{part.colour}">{shape}'
        f'<circle class="rnp-grip rnp-{name}" cx="{x}" cy="{y}" r="{0.045 * size}" '
        f'data-handle="{part.path} {name}"><title>{escape(hint)}</title></circle></g>'
    )


assert set(HINTS) == set(HANDLES)
