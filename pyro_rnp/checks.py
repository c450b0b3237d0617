"""Checks of images before a model sees them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyro_rnp.config import RNPConfig

Images = Tensor | np.ndarray
"""Images as a caller may give them, in the form that `as_images` takes."""


def as_images(images: Any, model: nn.Module, look: bool = True) -> Tensor:
    """Check images and bring them into the form that a model reads.

    >>> from pyro_rnp import RNP
    >>> as_images(np.zeros((2, 1, 28, 28), "float16"), RNP()).dtype
    torch.float32

    Args:
        images: a tensor or a NumPy array, (N, C, H, W) with N >= 1, of any floating-point type.
        model: a module with a `config`, an `RNPConfig`.
        look: whether to check that pixels are finite and lie in [0, 1], by default true. To look
            at images on a device waits for the device.

    Returns:
        The images, (N, C, H, W), in the model's precision and on its device; gradients flow back to
        a tensor that was given.

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
    if isinstance(images, Tensor):
        floating = images.is_floating_point()
    else:
        floating = images.dtype.kind == "f"
    if not floating:
        plain = "bool" in str(images.dtype)
        hint = "images.astype('float32') or images.float()" if plain else "divide bytes by 255"
        raise ValueError(f"images must be floating point in [0, 1], got {images.dtype}; {hint}.")
    found = images if isinstance(images, Tensor) else _tensor(images)
    if look:
        check_pixels(found)
    like = next((p for p in model.parameters() if p.is_floating_point()), found)
    if like.dtype.itemsize < 4 and like is not found:
        raise ValueError(
            f"A model in {like.dtype} does not run by itself; keep it in float32, and use "
            "torch.autocast for half precision."
        )
    return found.to(like.device, like.dtype)


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


def check_pixels(images: Tensor) -> None:
    """Raise unless pixels are finite and lie in [0, 1].

    Args:
        images: a tensor of any shape, not empty.

    Raises:
        ValueError: if a pixel is not finite, or lies beyond.
    """
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("images must be finite, got NaN or infinite pixels.")
    if low < 0 or high > 1:
        raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}.")


def _check_shape(shape: tuple[int, ...], config: RNPConfig) -> None:
    wanted = (config.channels, config.image_size, config.image_size)
    if len(shape) != 4 or shape[1:] != wanted:
        sizes = ", ".join(map(str, wanted))
        one = shape == wanted or (config.channels == 1 and shape[-2:] == wanted[1:])
        hint = f"; images.reshape(-1, {sizes}) has it" if one and len(shape) in (2, 3) else ""
        raise ValueError(f"images must have shape (N, {sizes}), got {shape}{hint}.")
    if not shape[0]:
        raise ValueError("images must hold at least one image, got an empty batch.")


def _tensor(array: np.ndarray) -> Tensor:
    """A copy of an array of floats, whatever its byte order and strides, of float32 or float64."""
    narrow = array.dtype.itemsize <= 4
    return torch.from_numpy(array.astype(np.float32 if narrow else np.float64, order="C"))
