"""What images have to be before a model sees them."""

from __future__ import annotations

from torch import Tensor

from pyro_rnp.config import RNPConfig


def check_images(images: Tensor, config: RNPConfig, values: bool = True) -> None:
    """Raise unless images are (N, C, H, W) floats in [0, 1] of the model's size, N >= 1.

    Args:
        values: whether pixels must lie in [0, 1]. Without it they must still be finite, on the
            CPU; on CUDA a look at them would wait for the device.

    Raises:
        ValueError: in one sentence that says what was got and what is wanted.
    """
    wanted = (config.channels, config.image_size, config.image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
        raise ValueError(
            f"images must have shape (N, {', '.join(map(str, wanted))}), got {tuple(images.shape)}."
        )
    if len(images) == 0:
        raise ValueError("images must hold at least one image, got an empty batch.")
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating point in [0, 1], got {images.dtype}; divide bytes by 255."
        )
    if (values or images.device.type == "cpu") and not images.isfinite().all():
        raise ValueError("images must be finite, got NaN or infinite pixels.")
    if values:
        low, high = images.min().item(), images.max().item()
        if low < 0 or high > 1:
            raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}.")
