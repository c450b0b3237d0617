"""Images changed at random, and images rotated into new classes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from inference.data.base import ImageSet
from pyro_rnp.affine import place


def jitter(images: Float[Tensor, "n c h w"], amount: float) -> Float[Tensor, "n c h w"]:
    """Move each image a little, each in another way; pixels from outside the image are 0.

    Missing pixels move with the image: a pixel is missing where more than half of it comes from
    missing ones.

    Args:
        images: square images in [0, 1]; NaN is a missing pixel.
        amount: standard deviation of the logarithm of both scales, of the rotation (radians), of
            the shear, and of both translations (half-widths of the image).

    Returns:
        As many images of the same size, in [0, 1].
    """
    noise = amount * torch.randn(len(images), 6, device=images.device)
    action = torch.cat([noise[:, :2].exp(), noise[:, 2:]], 1)
    missing, size = images.isnan(), images.shape[-1]
    moved = place(images.nan_to_num(), action, size)
    share = place(missing.to(images), action, size)
    return (moved / (1 - share)).clamp(0, 1).where(share <= 0.5, torch.nan)


def rotate_classes(data: ImageSet) -> ImageSet:
    """Add the images rotated by one, two and three quarters, each quarter as classes of its own.

    Args:
        data: N square images of C classes.

    Returns:
        4 N images: those of `data` first, then all rotated by one quarter (counterclockwise), and
        so on. An image of class c that is rotated by q quarters has class c + q C. True segments
        are rotated with their images. An image is rotated when it is taken, as by `[:12]`, so that
        all take no more memory than `data`.
    """
    return _Rotated(data)


class _Rotated(ImageSet):
    """What `rotate_classes` gives: the images once, of which those that are taken are rotated."""

    upright: ImageSet

    def __init__(self, data: ImageSet) -> None:
        classes = int(data.labels.max()) + 1
        labels = torch.cat([data.labels + classes * quarters for quarters in range(4)])
        vars(self).update(upright=data, labels=labels)

    pixels = property(lambda self: self[:].pixels)
    segments = property(lambda self: self[:].segments)
    masks = property(lambda self: self[:].masks)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> ImageSet:
        rows = torch.arange(len(self))[index]
        quarters, some = rows // len(self.upright), self.upright[rows % len(self.upright)]

        def rotated(maps: Tensor | None) -> Tensor | None:
            if maps is not None:
                for quarter in range(1, 4):
                    which = quarters == quarter
                    maps[which] = maps[which].rot90(quarter, (-2, -1))
            return maps

        maps = [rotated(each) for each in (some.pixels, some.segments, some.masks)]
        return ImageSet(maps[0], self.labels[index], *maps[1:])  # type: ignore[arg-type]


def rotate_at_random(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Rotate each image by none, one, two or three quarters, each with probability 1/4.

    Args:
        images: square images.
    """
    quarters = torch.randint(4, (len(images),), device=images.device)
    all_four = torch.stack([images.rot90(quarter, (-2, -1)) for quarter in range(4)])
    return all_four[quarters, torch.arange(len(images), device=images.device)]
