"""Images to ask a model about: from files, or from a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms.v2.functional as T
from jaxtyping import Float
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from inference.cli import add_data_root
from inference.data import DataName, data_of
from pyro_rnp import RNPConfig

READING = {
    "resize": "scale image files to the size that the model reads",
    "invert": "for dark ink on light paper: swap the two",
    "binarize": "make pixels of image files 0 or 1, from one half on",
}
"""Ways to read an image file, off by default, as flags of commands."""


def read_image(
    path: str | Path,
    config: RNPConfig,
    resize: bool = False,
    invert: bool = False,
    binarize: bool = False,
) -> Float[Tensor, "c h w"]:
    """An image file as floats in [0, 1] of the size and channels that the model reads.

    Args:
        resize: scale another size (antialiased); otherwise it is refused.
        invert: take dark ink on light paper, where the models here read light on dark.
        binarize: make pixels 0 or 1, from one half on.

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
    pixels = 1 - pixels if invert else pixels
    return (pixels >= 0.5).float() if binarize else pixels


def add_reading(arguments: ArgumentParser) -> None:
    """The flags of `READING`."""
    for name, text in READING.items():
        arguments.add_argument(f"--{name}", type=bool, default=False, help=text)


def read_images(files: Sequence[str], args: Any, config: RNPConfig) -> Float[Tensor, "n c h w"]:
    """Image files, read as the flags of `READING` say.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    how = {name: getattr(args, name) for name in READING}
    return torch.stack([read_image(file, config, **how) for file in files])


def add_images(arguments: ArgumentParser, num: int = 8) -> None:
    """`--images`, or `--data`, `--data-root` and `--num`, for `chosen_images`."""
    arguments.add_argument("--images", type=str, nargs="*", default=[], help="image files")
    add_reading(arguments)
    arguments.add_argument("--data", type=DataName | None, help="a data set to ask about instead")
    arguments.add_argument(
        "--num", type=PositiveInt, default=num, help="how many of its test images"
    )
    add_data_root(arguments)


def chosen_images(args: Any, config: RNPConfig, needed: bool = False) -> Any:
    """The images that the flags of `add_images` ask for, (N, C, H, W); None if they ask for none.

    Args:
        needed: raise instead of None.

    Raises:
        FileNotFoundError, ValueError: in one sentence, if they are not to be had.
    """
    if args.images and args.data is not None:
        raise ValueError("Give --images or --data, not both.")
    if args.images:
        return read_images(args.images, args, config)
    if args.data is None and needed:
        raise ValueError("There are no images to look at; give --images or --data.")
    if args.data is None:
        return None
    return data_of(args.run, args.data, args.data_root).test[: args.num].images
