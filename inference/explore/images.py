"""Images that a visitor drops or draws, as a model reads them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from io import BytesIO

import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, UnidentifiedImageError
from torch import Tensor

from inference.data.image_files import pixels_of
from inference.data.prepare import LIGHT, border, scaled, squared
from pyro_rnp import RNPConfig

BYTES, PIXELS = 10 * 2**20, 20_000_000
"""The most that an image file may have, before it is decoded."""
FINER = 8
"""Lines are drawn so many times as large, and then scaled, which makes their edges smooth."""
POINTS = 20_000
"""The most points of all strokes together."""
Strokes = Sequence[Sequence[tuple[float, float]]]
"""Lines of a pen: points (x, y) from the left and upper edge, as shares of the page's canvas."""


def open_image(
    data: bytes, config: RNPConfig, *, invert: bool | None = None
) -> Float[Tensor, "c s s"]:
    """Read the content of an image file as a model reads it; look at its size before decoding.

    Images of another size are scaled, with margins of the border's colour where they are not
    square. Values are multiples of 1/255, so that a PNG file holds them exactly.

    Args:
        data: the content of a PNG, JPEG or other file that Pillow reads, of at most `BYTES`.
        config: the model's, for `image_size` and `channels`.
        invert: whether to swap dark and light; by default where the border is light, as paper is.

    Raises:
        ValueError: in one sentence, if it is no image, or too large.
    """
    if len(data) > BYTES:
        raise ValueError(
            f"The file has {len(data) / 2**20:.1f} MiB; at most {BYTES / 2**20:g} are read."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(BytesIO(data))
        width, height = opened.size
        if width * height > PIXELS:
            raise ValueError(
                f"it has {width} x {height} pixels; at most {PIXELS / 1e6:g} million are read"
            )
        with opened:
            pixels = pixels_of(opened, config.channels).unsqueeze(0)
    except MemoryError:
        raise
    except Exception as error:  # damaged files fail in many ways
        why = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"The file is not an image that can be read: {why}.") from error
    ground = border(pixels)[0]
    pixels = scaled(squared(pixels, ground), config.image_size)[0]
    swap = bool(ground.mean() > LIGHT) if invert is None else invert
    return _bytes_of(1 - pixels if swap else pixels)


def _bytes_of(pixels: Tensor) -> Tensor:
    """Pixels rounded to multiples of 1/255, as bytes hold them."""
    return (pixels.clamp(0, 1) * 255).round() / 255


def rasterise(
    strokes: Strokes, config: RNPConfig, width: float = 2.0, *, centred: bool = True
) -> Float[Tensor, "c s s"]:
    """Draw the strokes of a pen as data sets have them: light and smooth lines on a dark ground.

    Args:
        strokes: of the pen; coordinates beyond [0, 1] are drawn as far as they are seen.
        config: the model's, for `image_size` and `channels`.
        width: of a line, in pixels of images of 28 pixels, in proportion in others.
        centred: whether to scale the drawing to 20/28 of the image's width and put its centre of
            mass into the middle, as MNIST's makers did.

    Returns:
        The image, blank where there are no strokes; values are multiples of 1/255.

    Raises:
        ValueError: in one sentence, if a number is not finite, or there are too many points.
    """
    return _bytes_of(_lines(strokes, config.image_size, width * config.image_size / 28)).expand(
        config.channels, -1, -1
    )


def brushed(strokes: Strokes, config: RNPConfig, width: float = 4.0) -> Bool[Tensor, "s s"]:
    """Return the pixels that a brush has touched, for `Session.hide`.

    Args:
        strokes: as `rasterise` takes them.
        config: the model's, for `image_size`.
        width: of the brush, in pixels of images of 28 pixels, in proportion in others.

    Raises:
        ValueError: as `rasterise`.
    """
    return _lines(strokes, config.image_size, width * config.image_size / 28)[0] >= 0.5


def _lines(strokes: Strokes, size: int, width: float) -> Float[Tensor, "1 s s"]:
    """Smooth lines with round ends; width in pixels."""
    points = [point for stroke in strokes for point in stroke]
    if len(points) > POINTS:
        raise ValueError(f"The strokes have {len(points)} points; at most {POINTS} are drawn.")
    if not all(len(point) == 2 and all(map(math.isfinite, point)) for point in points):
        raise ValueError("A stroke is a list of points (x, y) of finite numbers.")
    if not 0 < width <= size:
        raise ValueError(f"width must be above 0 and at most the image's, got {width:g} pixels.")
    fine = size * FINER
    image = Image.new("L", (fine, fine))
    draw, radius = ImageDraw.Draw(image), width * FINER / 2
    for stroke in strokes:
        # Lines far beyond the image would take long.
        path = [tuple(min(max(c, -1.0), 2.0) * fine for c in point) for point in stroke]
        draw.line(path, fill=255, width=round(2 * radius))
        for x, y in path:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    small = image.reduce(FINER)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(1, size, size) / 255
