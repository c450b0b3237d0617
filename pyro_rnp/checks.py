"""What images have to be before a model sees them, for all that takes images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyro_rnp.config import RNPConfig

Images = Tensor | np.ndarray
"""Images as a caller may give them; `as_images` says which."""


def as_images(images: Any, model: nn.Module, look: bool = True) -> Tensor:
    """Images as a model reads them: (N, C, H, W) floats of its precision, on its device.

    Gradients flow back to the images that were given.

    Args:
        images: a tensor or a NumPy array of that shape, of any floating-point type, N >= 1.
        model: a module with a `config`.
        look: whether pixels must be finite and lie in [0, 1]. To look at what is on a device waits
            for it.

    Raises:
        TypeError: if the images are neither a tensor nor an array.
        ValueError: in one sentence that says what was got and what is wanted.
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
    """Images that a Pyro callable is given: `as_images`, with a look where that costs nothing.

    Like Pyro's own checks of values it is left out under `pyro.validation_enabled(False)`, and
    it never waits for a device.

    Raises:
        TypeError, ValueError: as `as_images`.
    """
    here = not isinstance(images, Tensor) or images.device.type == "cpu"
    return as_images(images, model, look=here and is_validation_enabled())


def check_pixels(images: Tensor) -> None:
    """Raise unless pixels are finite and lie in [0, 1].

    Raises:
        ValueError: in one sentence that says what was got and what is wanted.
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
