"""Missing pixels: NaN in an image. Networks read 0 there, and densities leave the pixel out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyro_rnp.affine import warp


def split(
    images: Float[Tensor, "*b c h w"],
) -> tuple[Float[Tensor, "*b c h w"], Bool[Tensor, "*b c h w"] | None]:
    """Images with 0 at missing pixels, and which pixels are seen.

    Args:
        images: (..., C, H, W), NaN where a pixel is missing.

    Returns:
        The images, and True where a pixel is seen. Where all pixels are, the images are the same
        tensor and None stands for ones; but on a device, which nothing here waits for, and under
        `torch.jit.trace`, which records no decision, there is a mask in any case.
    """
    missing = images.isnan()
    if may_look(images) and not missing.any():
        return images, None
    return images.masked_fill(missing, 0.0), ~missing


def may_look(images: Tensor) -> bool:
    """Whether numbers may be read without waiting for a device, and a decision on them is kept.

    Args:
        images: on any device.
    """
    return images.device.type == "cpu" and not torch.jit.is_tracing()


def filled(images: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    """Images with 0 at missing pixels, as networks read them.

    Args:
        images: (..., C, H, W), NaN where a pixel is missing.
    """
    return split(images)[0]


def error(
    canvas: Float[Tensor, "*#b c h w"], images: Float[Tensor, "*#b c h w"]
) -> Float[Tensor, "*b c h w"]:
    """A canvas minus images, 0 where a pixel is missing.

    >>> error(torch.ones(1, 1, 1, 2), torch.tensor([[[[0.25, torch.nan]]]]))
    tensor([[[[0.7500, 0.0000]]]])

    Args:
        canvas: (..., C, H, W), or one for all images.
        images: (..., C, H, W), NaN where a pixel is missing.
    """
    return (canvas - images).masked_fill(images.isnan(), 0.0)


def mean_image(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "c h w"]:
    """The mean of images, each pixel over the images in which it is seen, 0 where it is in none.

    Args:
        images: (N, C, H, W), NaN where a pixel is missing.
    """
    missing = images.isnan()
    if not missing.any():
        return images.mean(0)
    return images.nansum(0) / (~missing).sum(0).clamp(min=1)


def variance(
    values: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
) -> Float[Tensor, "c h w"]:
    """The variance of each pixel's values between the images in which it is seen.

    Args:
        values: (N, C, H, W), such as canvases or the images themselves.
        images: (N, C, H, W), NaN where a pixel is missing.

    Returns:
        (C, H, W), 0 where fewer than two images see the pixel.
    """
    missing = images.isnan()
    if not missing.any():
        return values.var(0)
    values = values.masked_fill(missing, torch.nan)
    squares = error(mean_image(values), values).square().sum(0)
    return squares / ((~missing).sum(0) - 1).clamp(min=1)


def of_seen(likelihood: Distribution, seen: Tensor) -> Any:
    """The likelihood of the pixels that are seen alone.

    `poutine.mask` masks whole images, which are the batch of the site `x`; pixels are its event.

    Args:
        likelihood: of images, with event shape (C, H, W).
        seen: (..., C, H, W), True where a pixel is seen.

    Returns:
        A distribution of the same event shape, whose log-probability leaves out all other pixels.

    Raises:
        ValueError: if the likelihood's pixels are not independent.
    """
    if not independent(likelihood):
        raise ValueError("Missing or hidden pixels need a likelihood with independent pixels.")
    pixels: Any = likelihood.base_dist  # type: ignore[attr-defined]
    return pixels.mask(seen).to_event(3)


def independent(likelihood: Distribution) -> bool:
    """Whether a likelihood's pixels are independent, so that some can be left out.

    Args:
        likelihood: of images, with event shape (C, H, W).
    """
    return isinstance(likelihood, Independent) and likelihood.reinterpreted_batch_ndims == 3


class Target(NamedTuple):
    """Images, or what is left of them to explain, in which pixels may be missing."""

    pixels: Float[Tensor, "n c h w"]
    """0 where a pixel is missing."""
    missing: Float[Tensor, "n c h w"] | None
    """The missing share of each pixel, in [0, 1]; None stands for zeros."""

    @classmethod
    def of(cls, images: Float[Tensor, "n c h w"]) -> Target:
        """A target from images.

        Args:
            images: (N, C, H, W), NaN where a pixel is missing.
        """
        pixels, seen = split(images)
        return cls(pixels, None if seen is None else (~seen).to(pixels))

    @classmethod
    def join(cls, targets: list[Target]) -> Target:
        """Targets as one batch.

        Args:
            targets: one or more, of which all have missing pixels or none has.
        """
        missing = [target.missing for target in targets if target.missing is not None]
        pixels = torch.cat([target.pixels for target in targets])
        return cls(pixels, torch.cat(missing) if missing else None)

    def minus(self, canvas: Float[Tensor, "n c h w"]) -> Target:
        """What a canvas leaves to explain, 0 where a pixel is missing.

        Args:
            canvas: (N, C, H, W).
        """
        shown = canvas if self.missing is None else (1 - self.missing) * canvas
        return self._replace(pixels=self.pixels - shown)

    def seen_at(self, maps: Float[Tensor, "n 2 3"], size: int) -> Target:
        """The target as it is seen through maps from a patch's frame to its own.

        Args:
            maps: (N, 2, 3).
            size: pixels across the patches.
        """
        missing = None if self.missing is None else warp(self.missing, maps, size)
        return Target(warp(self.pixels, maps, size), missing)
