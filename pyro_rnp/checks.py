"""Checks of images before a model sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyro_rnp.config import RNPConfig

Images = Tensor | np.ndarray
"""Images as a caller may give them, which `as_images` turns into a model's form."""


def as_images(images: Any, model: nn.Module, look: bool = True, first: int = 0) -> Tensor:
    """Check images and bring them into the form that a model reads.

    This is the one rule for all that takes images: `RNP.model`, `RNP.guide`, `RNP.parse`, queries
    and evaluations.

    >>> from pyro_rnp import RNP
    >>> as_images(np.full((2, 28, 28), 255, "uint8"), RNP()).shape
    torch.Size([2, 1, 28, 28])

    Args:
        images: a tensor or a NumPy array with N >= 1: (N, C, H, W); or (N, H, W, C), as image files
            are read; or (N, H, W) of one channel. Floats of any precision lie in [0, 1], bytes
            (uint8) run from 0 to 255, and truth values are 0 and 1.
            NaN is a missing pixel.
        model: a module with a `config`, an `RNPConfig`.
        look: whether to check that pixels lie in [0, 1] and some of each image are there, by
            default true. To look at images on a device waits for the device.
        first: the number of the first image, for messages; by default 0.

    Returns:
        The images, (N, C, H, W) in [0, 1], NaN where a pixel is missing, in the model's precision
        and on its device; gradients flow back to a tensor of floats that was given.

    Raises:
        TypeError: if the images are neither a tensor nor an array.
        ValueError: if they have another shape, type or range, or the model is in half precision.
    """
    if not isinstance(images, Images):
        hint = "num_images=N asks for N" if isinstance(images, int) else "torch.stack makes one"
        raise TypeError(
            f"images must be a tensor or a NumPy array, got {type(images).__name__}; {hint}."
        )
    config: Any = model.config
    _check_shape(tuple(images.shape), config)
    kind = str(images.dtype).removeprefix("torch.")
    if isinstance(images, Tensor):
        floating = images.is_floating_point()
    else:
        floating = images.dtype.kind == "f"
    if not floating and kind not in ("uint8", "bool"):
        raise ValueError(
            "images must be floats in [0, 1], bytes (uint8) from 0 to 255, or truth values, got "
            f"{images.dtype}."
        )
    found = channels_first(images, (config.channels,))
    if look:
        check_pixels(found, first)
    like = next((p for p in model.parameters() if p.is_floating_point()), found)
    if like.dtype.itemsize < 4 and like is not found:
        raise ValueError(
            f"A model in {like.dtype} does not run by itself; keep it in float32, and use "
            "torch.autocast for half precision."
        )
    dtype = like.dtype if like.is_floating_point() else torch.float32
    found = found.to(like.device).to(dtype)
    return found / 255 if kind == "uint8" else found


def observed(images: Any, model: nn.Module) -> Tensor:
    """Check images that a Pyro callable receives, without waiting for a device.

    Pixels are checked on the CPU alone and, like values of Pyro's sites, not under
    `pyro.validation_enabled(False)`.

    Args:
        images: as `as_images` takes them.
        model: a module with a `config`.

    Returns:
        The images, as `as_images` returns them.

    Raises:
        TypeError: if the images are neither a tensor nor an array.
        ValueError: if `as_images` refuses them.
    """
    here = not isinstance(images, Tensor) or images.device.type == "cpu"
    return as_images(images, model, look=here and is_validation_enabled())


def check_pixels(images: Tensor, first: int = 0) -> None:
    """Raise unless pixels lie in their range: bytes to 255, floats in [0, 1] or missing (NaN).

    Args:
        images: (N, ...), not empty.
        first: the number of the first image, for messages; by default 0.

    Raises:
        ValueError: if a pixel lies beyond or is infinite, or all pixels of an image are missing; or
            if the brightest byte is 1, since zeros and ones as bytes are nearly black.
    """
    if images.dtype == torch.bool:
        return
    if images.dtype == torch.uint8:
        if int(images.max()) == 1:
            raise ValueError(
                "images of bytes run from 0 to 255, but the brightest pixel here is 1; give zeros "
                "and ones as truth values or as floats."
            )
        return
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if math.isnan(low):
        missing = images.isnan()
        if blind := missing.flatten(1).all(1).nonzero().flatten().tolist():
            raise ValueError(
                f"images must have pixels that are seen, but all of image {first + blind[0]} are "
                "missing (NaN)."
            )
        low, high = (float(value) for value in torch.aminmax(images.detach()[~missing]))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            "images must be finite where pixels are not missing (NaN), got infinite ones."
        )
    if low < 0 or high > 1:
        raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}.")


def _check_shape(shape: tuple[int, ...], config: RNPConfig) -> None:
    wanted = (config.channels, config.image_size, config.image_size)
    last = (*wanted[1:], wanted[0])
    grey = config.channels == 1 and len(shape) == 3 and shape[1:] == wanted[1:]
    if not grey and (len(shape) != 4 or shape[1:] not in (wanted, last)):
        sizes = ", ".join(map(str, wanted))
        one = shape == wanted or (config.channels == 1 and shape == wanted[1:])
        hint = f"; images.reshape(-1, {sizes}) has it" if one else ""
        hint = "; images[None] has a batch of one" if shape == last != wanted else hint
        raise ValueError(f"images must have shape (N, {sizes}), got {shape}{hint}.")
    if not shape[0]:
        raise ValueError("images must hold at least one image, got an empty batch.")


def channels_first(images: Any, channels: Sequence[int]) -> Tensor:
    """Images as a tensor (N, C, H, W), where shape (C, H, W) comes before (H, W, C).

    Args:
        images: a tensor or an array (N, C, H, W), (N, H, W, C) or (N, H, W); others stay as they
            are.
        channels: the numbers that C may be.
    """
    found = images if isinstance(images, Tensor) else _tensor(np.asarray(images))
    if found.ndim == 3:
        return found.unsqueeze(1)
    if found.ndim != 4 or found.shape[1] in channels or found.shape[3] not in channels:
        return found
    return found.movedim(-1, 1).clone(memory_format=torch.contiguous_format)


def _tensor(array: np.ndarray) -> Tensor:
    """A copy of an array, whatever its byte order and strides; floats as float32 or float64."""
    if array.dtype.kind != "f":
        return torch.from_numpy(array.copy(order="C"))
    narrow = array.dtype.itemsize <= 4
    return torch.from_numpy(array.astype(np.float32 if narrow else np.float64, order="C"))
