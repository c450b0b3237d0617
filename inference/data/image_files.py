"""Image files as a model reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2.functional as T
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from inference.data.prepare import LIGHT, Invert, border, scaled, squared
from pyro_rnp import RNPConfig

WHITE_16 = 65_535
"""White in 16 bits."""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes without colour."""
FLAT = 0.005
"""A mean squared error of a pixel of an image in colour that is too small to speak of."""
ONE_COLOUR = 0.1
"""How far a pixel's colour, as far as it is seen, may lie from that of a drawing of one colour."""


def read_image(
    path: str | Path,
    config: RNPConfig,
    resize: bool = False,
    invert: Invert | None = None,
    binarize: bool = False,
) -> Float[Tensor, "c h w"]:
    """Read an image file as floats in [0, 1], in the size and channels that a model reads.

    The image is rotated as its EXIF data say. A drawing of one colour on a transparent ground
    stands on white where it is dark and on black where it is light; other transparent images stand
    on white.

    Args:
        path: the file, in any format that Pillow reads.
        config: the model's, for `image_size` and `channels`.
        resize: scale another size to the model's, antialiased; without it another size is refused.
            Proportions stay: an image that is not square first gets margins of its border's median.
        invert: whether to swap dark and light, for dark ink on light paper: models here read light
            ink on a dark ground. None and "auto" swap them where the border's median is above one
            half. For a mask choose False.
        binarize: make each pixel 0 or 1; from one half on it is 1.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no image, its white is not known, or it has another size.
    """
    return _read(path, config, resize, invert, binarize)[0]


def _read(
    path: str | Path, config: RNPConfig, resize: bool, invert: Invert | None, binarize: bool
) -> tuple[Tensor, bool]:
    """The image, and whether dark and light were swapped."""
    if not Path(path).is_file():
        wrong = "is a folder, not an image file" if Path(path).is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {wrong}.")
    pixels = file_pixels(path, path, config.channels)
    size, (h, w) = config.image_size, pixels.shape[1:]
    ground = border(pixels[None])[0]
    if (h, w) != (size, size):
        if not resize:
            raise ValueError(
                f"{path} is {w} x {h} pixels and the model reads {size} x {size}; --resize=true "
                "scales it, with margins to make it a square."
            )
        pixels = scaled(squared(pixels[None], ground), size)[0]
    swap = bool(ground.mean() > LIGHT) if invert in (None, "auto") else bool(invert)
    pixels = 1 - pixels if swap else pixels
    return ((pixels >= 0.5).float() if binarize else pixels), swap


def file_pixels(
    file: str | Path | BytesIO, name: str | Path, channels: int | None = None
) -> Float[Tensor, "c h w"]:
    """Read an image file as it is seen, at its own size; of an animation the first frame.

    Args:
        file: the file, or its content.
        name: of the file, for the message.
        channels: 1 for grey, 3 for red, green and blue; None takes 1 where the file has no colour.

    Returns:
        Its pixels in [0, 1].

    Raises:
        ValueError: if it is no image, or its white is not known.
    """
    try:
        with Image.open(file) as opened:
            return pixels_of(opened, channels)
    except MemoryError:
        raise
    except Exception as error:  # damaged files fail in many ways
        why = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name} is not an image that can be read: {why}.") from error


def pixels_of(opened: Image.Image, channels: int | None = None) -> Float[Tensor, "c h w"]:
    """The pixels of a Pillow image as it is seen, in [0, 1].

    Args:
        opened: the image.
        channels: as for `file_pixels`.

    Raises:
        ValueError: if its white is not known.
    """
    image = ImageOps.exif_transpose(opened)
    channels = channels or (1 if image.mode in GREY else 3)
    if image.mode[0] in "IF":
        return _deep(image, opened.format).repeat(1 if channels == 1 else 3, 1, 1)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        return _opaque(image.convert("RGBA"), channels)
    return _floats(image, channels)


def is_grey(stored: bytes) -> bool:
    """Whether an image file has no colour, as far as its first bytes tell.

    Args:
        stored: its content.
    """
    try:
        with Image.open(BytesIO(stored)) as opened:
            return opened.mode in GREY
    except Exception:  # which reading it will tell
        return False


def _floats(image: Image.Image, channels: int) -> Float[Tensor, "c h w"]:
    if image.mode not in ("1", "L", "RGB", "RGBA"):
        image = image.convert("RGB")
    return T.to_image(image.convert("L" if channels == 1 else "RGB")).float() / 255


def _deep(image: Image.Image, format: str | None) -> Float[Tensor, "1 h w"]:
    """A grey image of 16 bits, or of floats in [0, 1].

    Raises:
        ValueError: if its white is not known.
    """
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).unsqueeze(0)
    if image.mode.startswith("I;16") or (image.mode == "I" and format in ("PNG", "PPM")):
        return pixels / WHITE_16
    if image.mode == "I":
        raise ValueError("it holds integers of 32 bits, whose white is not known; save it with 16")
    low, high = pixels.min().item(), pixels.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"it holds floats from {low:g} to {high:g}, which must lie in [0, 1]")
    return pixels


def _opaque(image: Image.Image, channels: int) -> Float[Tensor, "c h w"]:
    """An image with transparency on the ground on which it is seen.

    A drawing of one colour, whose ink is all in its alpha, is seen by that on white if it is
    dark and on black if it is light; anything else on white, as viewers show it.
    """
    colour = _floats(image, channels)
    alpha = T.to_image(image.getchannel("A")).float() / 255
    if alpha.min() == 1:
        return colour
    mean = (colour * alpha).sum((1, 2), keepdim=True) / alpha.sum().clamp(min=1)
    if ((colour - mean).abs() * alpha).max() > ONE_COLOUR:
        return colour * alpha + 1 - alpha
    ink = alpha.repeat(len(colour), 1, 1)
    return 1 - ink if mean.mean() < 0.5 else ink


def read_images(
    files: Sequence[str | Path],
    config: RNPConfig,
    resize: bool = False,
    invert: Invert | None = None,
    binarize: bool = False,
) -> Float[Tensor, "n c h w"]:
    """Read image files; a line on stderr names those whose dark and light were swapped unasked.

    Args:
        files: the files.
        config: that of the model that reads the images, with their size and channels.
        resize, invert, binarize: as `read_image` takes them, for all files.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    found = [_read(file, config, resize, invert, binarize) for file in files]
    swapped = [file for file, (_, swap) in zip(files, found, strict=True) if swap]
    if invert in (None, "auto") and swapped:
        print(
            f"Dark ink on a light ground, so dark and light were swapped (--invert=false leaves "
            f"them): {', '.join(map(str, swapped))}",
            file=sys.stderr,
        )
    return torch.stack([pixels for pixels, _ in found])


def warn_unexplained(
    names: Sequence[str],
    images: Float[Tensor, "n c h w"],
    canvas: Float[Tensor, "n c h w"],
    seen: Tensor | None = None,
) -> None:
    """Name on stderr the images of which a parse explains less than half.

    Of a grey image that is half of its squared intensity; of one in colour, whose ground may have
    any, half of how its pixels differ from their mean colour, unless they hardly differ at all.

    Args:
        names: what to call each image, as its file.
        images: the images that were parsed; NaN is a missing pixel.
        canvas: what the parse draws.
        seen: which pixels count, (H, W) or like `images`; None counts all.
    """
    counted = images.isfinite() if seen is None else images.isfinite() & seen.to(images.device)
    images, number = images.nan_to_num(), counted.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (images * counted).sum((2, 3), keepdim=True) / number if images.shape[1] == 3 else 0
    error = ((canvas.to(images) - images) * counted).square().sum((1, 2, 3))
    whole = ((images - mean) * counted).square().sum((1, 2, 3))
    poor = error > whole / 2
    if images.shape[1] == 3:
        poor &= error > FLAT * counted.sum((1, 2, 3))
    named = [name for name, bad in zip(names, poor.tolist(), strict=False) if bad]
    if named:
        what, advice = "squared intensity", "; where the ground is uneven, --binarize=true may help"
        if images.shape[1] == 3:
            what, advice = "differences from its mean colour", ""
        print(
            f"The parse explains less than half of the image ({what}) and is unreliable{advice}: "
            + ", ".join(named),
            file=sys.stderr,
        )
