"""Colours of parts, and images as RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.colors import to_rgb
from torch import Tensor

from pyro_rnp.checks import channels_first
from pyro_rnp.parse_tree import ParseTree

COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:orange", "tab:purple", "tab:brown")
"""Colours of the first part, the second and so on, repeating, in the paper's order."""
MISSING = "lightsteelblue"
"""The colour of pixels that are missing or hidden."""
TONES = (-0.6, 0.6)
"""The shades of a hue: from this share of black to this share of white."""
LIGHT_TONES = (-0.2, 0.65)
"""The same on images in colour, which are often dark; dark lines below set light frames off."""


def pixels(images: Any, count: int | None = None, name: str = "images") -> Tensor:
    """Images as a picture shows them: on the CPU, without gradient, in float32.

    Args:
        images: a tensor or an array (N, C, H, W), (N, H, W, C) or (N, H, W), as `RNP.parse` takes
            them; bytes are divided by 255.
        count: N, if it is known.
        name: of the argument, for the error.

    Raises:
        ValueError: if there are not N images, or their channels are neither 1 nor 3.
    """
    found = channels_first(images, (1, 3)).detach().cpu()
    wanted = f"({'N' if count is None else count}, 1 or 3, H, W)"
    if found.ndim != 4 or found.shape[1] not in (1, 3) or count not in (None, len(found)):
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(found.shape)}.")
    return found.float() / (255 if found.dtype == torch.uint8 else 1)


def shades(
    tree: ParseTree, depth: int, palette: Sequence[Any] = COLOURS
) -> list[tuple[float, float, float]]:
    """The colours of the nodes at a depth: those below a part have shades of the part's colour.

    The shades of a part go from dark to light in equal steps, in the order of the nodes, so that
    siblings have neighbouring ones.

    Args:
        tree: the tree.
        depth: levels below the tree, in [1, level].
        palette: colours of the parts, in their order; they repeat.

    Returns:
        RGB in [0, 1], in the order of `tree.nodes(depth)`.
    """
    darkest, lightest = LIGHT_TONES if tree.canvas.shape[1] == 3 else TONES
    colours = []
    for part, node in enumerate(tree):
        hue = torch.tensor(to_rgb(palette[part % len(palette)]))
        count = len(node.nodes(depth - 1))
        for i in range(count):
            tone = darkest + (lightest - darkest) * (i + 0.5) / count
            mixed = hue * (1 - abs(tone)) + max(tone, 0)
            red, green, blue = mixed.tolist()
            colours.append((red, green, blue))
    return colours


def coloured(
    shares: Float[Tensor, "n parts c h w"], colours: Sequence[Any]
) -> Float[Tensor, "n h w 3"]:
    """Colour the intensity that each part adds, on white.

    Args:
        shares: (N, parts, C, H, W), the part of an image that each part adds, in [0, 1].
        colours: of the parts, in their order; they repeat.

    Returns:
        (N, H, W, 3) RGB in [0, 1].
    """
    inks = torch.tensor([to_rgb(colours[i % len(colours)]) for i in range(shares.shape[1])])
    intensity = shares.mean(2).clamp(0, 1)
    return (1 - torch.einsum("nphw,pr->nhwr", intensity, 1 - inks)).clamp(0, 1)


def grey(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w 3"]:
    """Turn images of one channel into black ink on white; images of three channels stay.

    Args:
        images: (N, C, H, W); values beyond [0, 1] are clamped, and NaN is a missing pixel, which
            has the colour `MISSING`.

    Returns:
        (N, H, W, 3) RGB in [0, 1].
    """
    shown = images.clamp(0, 1).permute(0, 2, 3, 1)
    shown = shown if shown.shape[-1] == 3 else (1 - shown[..., :1]).expand(-1, -1, -1, 3)
    missing = torch.tensor(to_rgb(MISSING)).to(shown)
    return torch.where(shown.isnan().any(-1, keepdim=True), missing, shown)
