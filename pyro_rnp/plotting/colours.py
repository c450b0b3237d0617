"""Colours of parts, and images as RGB."""

from __future__ import annotations

from typing import Any

import matplotlib.colors
import torch
from jaxtyping import Float
from torch import Tensor

COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:orange", "tab:purple", "tab:brown")
"""Colours of the first part, the second and so on, repeating, in the paper's order."""


def pixels(images: Any, count: int | None = None, name: str = "images") -> Tensor:
    """Images as a picture shows them: on the CPU, without gradient, in float32.

    Args:
        images: a tensor or an array (N, C, H, W); bytes are divided by 255.
        count: N, if it is known.
        name: of the argument, for the error.

    Raises:
        ValueError: if there are not N images, or their channels are neither 1 nor 3.
    """
    found = torch.as_tensor(images).detach().cpu()
    wanted = f"({'N' if count is None else count}, 1 or 3, H, W)"
    if found.ndim != 4 or found.shape[1] not in (1, 3) or count not in (None, len(found)):
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(found.shape)}.")
    return found.float() / (255 if found.dtype == torch.uint8 else 1)


def part_colour(part: int) -> str:
    """The colour of a part by its number, from 0."""
    return COLOURS[part % len(COLOURS)]


def coloured(shares: Float[Tensor, "n parts c h w"], colours: int) -> Float[Tensor, "n h w 3"]:
    """Colour the intensity that each part adds, on white.

    Args:
        shares: (N, parts, C, H, W), the part of an image that each part adds, in [0, 1].
        colours: after this many parts the colours begin again.

    Returns:
        (N, H, W, 3) RGB in [0, 1].
    """
    names = [part_colour(i % colours) for i in range(shares.shape[1])]
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
