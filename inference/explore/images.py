"""Images that a visitor drops or draws, as a model reads them."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, UnidentifiedImageError
from torch import Tensor

from inference.data.image_files import pixels_of
from inference.data.prepare import LIGHT, border, scaled, squared
from pyro_rnp import RNPConfig
from pyro_rnp.affine import warp

BYTES, PIXELS = 10 * 2**20, 20_000_000
"""The most that an image file may have, before it is decoded; pixels with the margins that make it
square."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""Formats that are read; some others of Pillow's run a program, or hide how large they are."""
_DECODING = threading.Lock()
FINER = 8
"""Lines are drawn so many times as large, and then scaled, which makes their edges smooth."""
POINTS = 20_000
"""The most points of all strokes together."""
BOX, GROWTH = 20 / 28, 4.0
"""The larger side of a centred drawing, as a share of the image's; and by how much it is scaled up
at most, so that a dot stays a dot."""
Strokes = Sequence[Sequence[Sequence[float | int]]]
"""Lines of a pen: points (x, y) from the left and upper edge, as shares of the page's canvas."""


def open_image(
    data: bytes, config: RNPConfig, *, invert: bool | None = None
) -> Float[Tensor, "c s s"]:
    """Read the content of an image file as a model reads it; look at its size before decoding.

    Images of another size are scaled, with margins of the border's colour where they are not
    square. Values are multiples of 1/255, so that a PNG file holds them exactly.

    Args:
        data: the content of a file in one of `FORMATS`, of at most `BYTES`.
        config: the model's, for `image_size` and `channels`.
        invert: whether to swap dark and light; by default where the border is light, as paper is.

    Raises:
        ValueError: in one sentence, if it is no image, or too large.
    """
    if len(data) > BYTES:
        raise ValueError(
            f"The file has {len(data) / 2**20:.1f} MiB; at most {BYTES / 2**20:g} are read."
        )
    size = ""
    try:
        opened = Image.open(BytesIO(data), formats=FORMATS)
        size = f" of {opened.width} x {opened.height} pixels"
        if max(opened.size) ** 2 <= PIXELS:  # it is made square
            return _as_read(opened, config, invert)
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pass  # the second one only where warnings are errors
    except Exception as error:  # damaged files fail in many ways
        why = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"The file is not an image that can be read: {why}.") from error
    raise ValueError(
        f"The image{size} has more than {PIXELS / 1e6:g} million once margins make it square, the "
        "most that are read."
    )


def _as_read(opened: Image.Image, config: RNPConfig, invert: bool | None) -> Tensor:
    """An image as a model reads it; one at a time, since a large one takes half a GiB meanwhile."""
    with _DECODING:
        pixels = pixels_of(opened, config.channels).unsqueeze(0)
        ground = border(pixels)[0]
        pixels = scaled(squared(pixels, ground), config.image_size)[0]
    swap = bool(ground.mean() > LIGHT) if invert is None else invert
    return rounded(1 - pixels if swap else pixels)


def rounded(pixels: Float[Tensor, "*b s s"]) -> Float[Tensor, "*b s s"]:
    """Pixels rounded to multiples of 1/255, as bytes hold them.

    Args:
        pixels: values below 0 and above 1 become 0 and 1.
    """
    return (pixels.clamp(0, 1) * 255).round() / 255


def png(image: Float[Tensor, "c s s"]) -> bytes:
    """Return a PNG file of an image's pixels as they are.

    Args:
        image: in [0, 1].
    """
    pixels = (image * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Pen(NamedTuple):
    """How lines are drawn in a data set."""

    width: float
    """Of a line, in pixels of images of 28 pixels."""
    centred: bool
    """Whether the centre of mass lies in the middle, as in MNIST."""


def pen(images: Float[Tensor, "n c s s"]) -> Pen:
    """Measure how lines are drawn in images, so that new ones are drawn alike.

    The width of a line is twice its area over the length of its outline, which is the image's total
    variation.

    >>> seven = rasterise([[(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)]], RNPConfig(), width=3.0)
    >>> measured = pen(seven.expand(2, 1, 28, 28))
    >>> round(measured.width, 1), measured.centred
    (2.8, True)

    Args:
        images: some of a data set, or samples of a model; light ink on a dark ground.
    """
    pixels = images.detach().cpu().float().nan_to_num().clamp(0, 1).mean(1)
    across, down = pixels.diff(dim=2)[:, :-1], pixels.diff(dim=1)[:, :, :-1]
    outline = torch.hypot(across, down).sum((1, 2)).clamp(min=1)
    width = (2 * pixels.sum((1, 2)) / outline).median().item() * 28 / pixels.shape[-1]
    middles = torch.stack([_mass(image) for image in pixels])
    return Pen(min(max(width, 1.0), 6.0), bool((middles.std(0, correction=0) < 0.7 / 28).all()))


def _mass(pixels: Float[Tensor, "s s"]) -> Float[Tensor, "2"]:
    """The centre of mass (x, y) of an image's ink, as shares of its width and height."""
    places = (torch.arange(len(pixels)) + 0.5) / len(pixels)
    profiles = torch.stack([pixels.sum(0), pixels.sum(1)])
    return (profiles * places).sum(1) / pixels.sum().clamp(min=1e-6)


def centre(image: Float[Tensor, "c s s"]) -> Float[Tensor, "c s s"]:
    """Scale a drawing to 20/28 of the image, and move its centre of mass into the middle.

    That is how MNIST's makers prepared digits.

    Args:
        image: light ink on a dark ground, in [0, 1]; a blank one stays as it is.

    Returns:
        The image; values are multiples of 1/255.
    """
    pixels, size = image.mean(0), image.shape[-1]
    if not pixels.any():
        return image
    inked = pixels > 0.1 * pixels.max()
    sides = [own.nonzero() for own in (inked.any(0), inked.any(1))]
    extent = max(int(own.max() - own.min()) + 1 for own in sides)
    shrink = torch.eye(2) / min(BOX * size / extent, GROWTH)
    to_source = torch.cat([shrink, (2 * _mass(pixels) - 1).unsqueeze(1)], 1)
    return rounded(warp(image.unsqueeze(0), to_source.unsqueeze(0), size, "bicubic")[0])


def rasterise(
    strokes: Strokes, config: RNPConfig, width: float | int = 2.4, *, centred: bool = True
) -> Float[Tensor, "c s s"]:
    """Draw the strokes of a pen as data sets have them: light and smooth lines on a dark ground.

    Args:
        strokes: of the pen; coordinates beyond [0, 1] are drawn as far as they are seen.
        config: the model's, for `image_size` and `channels`.
        width: of a line, in pixels of images of 28 pixels, in proportion in others; by default that
            of MNIST, see `pen`.
        centred: whether the drawing is scaled and moved as by `centre`; lines keep their width.

    Returns:
        The image, blank where there are no strokes; values are multiples of 1/255.

    Raises:
        ValueError: in one sentence, if a number is not finite, or there are too many points.
    """
    size, wide = config.image_size, width * config.image_size / 28
    image = _lines(strokes, size, wide)
    if centred and image.any():
        points = np.concatenate([np.array(stroke) for stroke in strokes if len(stroke)])
        low, high = points.min(0), points.max(0)
        growth = min((BOX - wide / size) / max(float((high - low).max()), 1e-6), GROWTH)
        strokes = _moved(strokes, (low + high) / 2, growth)
        strokes = _moved(strokes, _mass(_lines(strokes, size, wide)).numpy(), 1.0)
        image = _lines(strokes, size, wide)
    return image.expand(config.channels, -1, -1)


def brushed(strokes: Strokes, config: RNPConfig, width: float | int = 4.0) -> Bool[Tensor, "s s"]:
    """Return the pixels that a brush has touched, for `Session.hide`.

    Args:
        strokes: as `rasterise` takes them.
        config: the model's, for `image_size`.
        width: of the brush, in pixels of images of 28 pixels, in proportion in others.

    Raises:
        ValueError: as `rasterise`.
    """
    return _lines(strokes, config.image_size, width * config.image_size / 28) >= 0.5


def _moved(strokes: Strokes, to_middle: np.ndarray, growth: float) -> Strokes:
    """Strokes scaled about a point, which goes into the middle."""
    x0, y0 = to_middle.tolist()
    return [[((x - x0) * growth + 0.5, (y - y0) * growth + 0.5) for x, y in s] for s in strokes]


def _lines(strokes: Strokes, size: int, width: float) -> Float[Tensor, "s s"]:
    """Smooth lines with round ends; width in pixels. Values are multiples of 1/255."""
    points = [point for stroke in strokes for point in stroke]
    if len(points) > POINTS:
        raise ValueError(f"The strokes have {len(points)} points; at most {POINTS} are drawn.")
    if not all(len(point) == 2 and all(map(math.isfinite, point)) for point in points):
        raise ValueError("A stroke is a list of points (x, y) of finite numbers.")
    if not 0 < width <= size:
        raise ValueError(
            f"width must be above 0 and at most the image's {size} pixels, got {width:g}."
        )
    image = Image.new("L", (size * FINER, size * FINER))
    draw, radius = ImageDraw.Draw(image), width * FINER / 2
    for stroke in strokes:
        # Lines that go far beyond the image would take long.
        path = [tuple(min(max(c, -1.0), 2.0) * size * FINER for c in point) for point in stroke]
        draw.line(path, fill=255, width=round(2 * radius))
        for x, y in path:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return torch.from_numpy(np.asarray(image.reduce(FINER)).copy()) / 255
