"""More to learn from than there is: images moved a little, and turned into other classes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from inference.data.base import ImageSet
from pyro_rnp.affine import place


def jittered(images: Float[Tensor, "n c h w"], amount: float) -> Float[Tensor, "n c h w"]:
    """Images moved a little, each in a way of its own; pixels from outside are 0.

    Args:
        amount: standard deviation of the logarithms of both scales, of rotation (radians) and
            shear, and of both translations (half-widths of the image).
    """
    noise = amount * torch.randn(len(images), 6, device=images.device)
    action = torch.cat([noise[:, :2].exp(), noise[:, 2:]], 1)
    return place(images, action, images.shape[-1]).clamp(0, 1)


def turned(data: ImageSet) -> ImageSet:
    """Images, and the same turned by one, two and three quarters, each quarter of other classes."""
    classes = int(data.labels.max()) + 1

    def every(maps: Tensor) -> Tensor:
        return torch.cat([maps.rot90(quarter, (-2, -1)) for quarter in range(4)])

    labels = torch.cat([data.labels + classes * quarter for quarter in range(4)])
    segments = None if data.segments is None else every(data.segments)
    return ImageSet(every(data.images), labels, segments)


def turned_by_chance(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each image turned by none, one, two or three quarters, as chance has it."""
    quarters = torch.randint(4, (len(images),), device=images.device)
    every = torch.stack([images.rot90(quarter, (-2, -1)) for quarter in range(4)])
    return every[quarters, torch.arange(len(images), device=images.device)]
