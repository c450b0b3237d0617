"""Image files to what a model reads."""

from __future__ import annotations

from pathlib import Path

import torchvision.transforms.v2.functional as T
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pyro_rnp import RNPConfig


def read_image(
    path: str | Path, config: RNPConfig, resize: bool = False, invert: bool = False
) -> Float[Tensor, "c h w"]:
    """An image file as floats in [0, 1] of the size and channels that the model reads.

    Args:
        resize: scale another size (antialiased); otherwise it is refused.
        invert: take dark ink on light paper, where the models here read light on dark.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, or of another size.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with Image.open(path) as opened:
            image = T.to_image(opened.convert("L" if config.channels == 1 else "RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is not an image that can be read: {error}.") from error
    size = config.image_size
    if tuple(image.shape[1:]) != (size, size):
        if not resize:
            raise ValueError(
                f"{path} is {image.shape[2]} x {image.shape[1]} pixels and the model reads "
                f"{size} x {size}; --resize=true scales it."
            )
        image = T.resize(image, [size, size], antialias=True)
    pixels = image.float() / 255
    return 1 - pixels if invert else pixels
