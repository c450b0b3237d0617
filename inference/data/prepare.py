"""Images of any source brought to one size, number of channels and polarity, in fixed splits."""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torchvision.transforms.v2.functional as T
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from inference.data.base import ImageSet, Splits

Invert = bool | Literal["auto"]
"""Whether to swap dark and light; auto looks at the images, see `prepare`."""
SPLITS = ("train", "validation", "test")
FEW = 500
"""Images that are prepared together."""
HELD_OUT = 0.1
"""Share of the images that each split without images of its own gets from the training split."""
LIGHT = 0.5
"""An image whose border's median is above it stands on a light ground."""
ONE_COLOUR, MOST_OF_BORDER = 0.1, 0.6
"""A border is of one colour where so large a share of it lies so near to its median."""
CLEAR, NEARLY_ALL = 1 / 6, 0.8
"""Grey images are drawings if so large a share of them has a border of one colour, so far from
medium grey. Patches of photographs have some such borders too, about 65 in a hundred."""
COLOUR = 3 / 255
"""An image has colour where its channels differ by more than this."""


@dataclass(frozen=True)
class Chunk:
    """Some images of a source, all of one size."""

    pixels: Tensor
    """(N, C, H, W) with 1 or 3 channels: bytes, or floats in [0, 1] in which NaN is missing."""
    labels: Sequence[int]
    digests: Sequence[bytes]
    """The SHA-256 of each image as it is stored, which says the split and the order of images."""
    split: str | None = None
    """One of `SPLITS`, where the source says it."""
    masks: Tensor | None = None
    """(N, 1, H, W), False where a pixel is missing; None where all were seen."""


@dataclass(frozen=True)
class Source:
    """Images that are read chunk by chunk, so that none but the result is held in memory."""

    name: str
    """For messages."""
    chunks: Callable[[bool], Iterator[Chunk]]
    """Reads the images; given true, it may leave out those that are known to be grey."""
    total: int | None = None
    """The number of images, if it is known before they are read."""
    class_names: tuple[str, ...] = ()

    def shape(self, size: int | None, channels: int | None) -> tuple[int, int, int]:
        """The channels, height and width that `prepare` gives images; few are read if that will do.

        Args:
            size, channels: as for `prepare`.
        """
        if size is None:
            first = next(self.chunks(False), None)
            size = 0 if first is None else self.side(first, None)
        if channels is None:
            found = (c for c in self.chunks(True) if c.pixels.shape[1] == 3)
            channels = 3 if any(len(_as_grey(c.pixels)[0]) == 3 for c in found) else 1
        return channels, size, size

    def side(self, chunk: Chunk, before: int | None) -> int:
        """The height and width of images.

        Args:
            chunk: some images.
            before: height and width of those before, if there were any.

        Raises:
            ValueError: if the images are not square, or of another size than those before.
        """
        h, w = chunk.pixels.shape[2:]
        if h != w:
            raise ValueError(
                f"{self.name} has images of {w} x {h} pixels, and a model reads squares: give "
                f"--size, as --size {max(8, min(h, w, 128))}, and they are scaled, with margins."
            )
        if before not in (None, h):
            raise ValueError(
                f"{self.name} has images of different sizes ({before} x {before} and {w} x {h} "
                f"pixels): give --size, as --size {max(8, min(before or h, h, 128))}."
            )
        return h


def check_form(size: int | None, channels: int | None) -> None:
    """Raise unless a model can have such images.

    Args:
        size, channels: as for `prepare`.

    Raises:
        ValueError: if `size` is below 1, or `channels` are not 1 or 3.
    """
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}.")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}.")


def prepare(
    source: Source,
    size: int | None = None,
    channels: int | None = None,
    invert: Invert = "auto",
    progress: bool = True,
) -> Splits:
    """Read the images of a source as `read_all` does, and split them.

    Where the source does not say which images are for validation or for the test, a tenth of the
    training images is taken for each, by the hash of the image: equal images fall into one split,
    and a new image moves no other. All splits stand in the order of the hashes, as good as random.

    Args:
        source: the images.
        size, channels, invert, progress: as for `read_all`.

    Raises:
        ValueError: as `read_all`, and if the images are too few.
    """
    found = read_all(source, size, channels, invert, progress)
    return split(
        found.images, found.digests, found.given, source.name, found.inverted, in_place=True
    )


class Gathered:
    """Images that come in pieces, in one array, so that no list of pieces stands beside it.

    Where pieces differ, the array has the channels of the most, and floats if one has.

    Args:
        total: the number of images, if it is known.
    """

    def __init__(self, total: int | None = None) -> None:
        self.count, self._room = 0, total or 0
        self._pixels: Tensor | None = None
        self._masks: Tensor | None = None

    @property
    def pixels(self) -> Tensor:
        """(N, C, H, W), bytes or floats."""
        assert self._pixels is not None
        return self._pixels[: self.count]

    @property
    def masks(self) -> Tensor | None:
        """(N, C or 1, H, W), all seen where a piece had none; None where no piece had any."""
        return None if self._masks is None else self._masks[: self.count]

    def add(self, pixels: Tensor, masks: Tensor | None = None) -> None:
        """Add a piece.

        Args:
            pixels: (N, C, H, W), bytes or floats.
            masks: (N, C or 1, H, W), False where a pixel is missing; None where all are seen.
        """
        start, end = self.count, self.count + len(pixels)
        if end > self._room:
            self._room = max(end, 2 * self._room)
        self._pixels = self._fitting(self._pixels, pixels)
        self._pixels[start:end] = _as_type(pixels, self._pixels.dtype)
        if masks is not None or self._masks is not None:
            seen = torch.ones_like(pixels[:, :1], dtype=torch.bool) if masks is None else masks
            first, self._masks = self._masks is None, self._fitting(self._masks, seen)
            if first:
                self._masks[:start] = True
            self._masks[start:end] = seen
        self.count = end

    def _fitting(self, held: Tensor | None, piece: Tensor) -> Tensor:
        """An array in which a piece has its place: what is held, or a larger one with that."""
        like = piece if held is None else held
        dtype = like.dtype if like.dtype == piece.dtype else torch.float32
        shape = (self._room, max(like.shape[1], piece.shape[1]), *piece.shape[2:])
        if held is not None and (held.shape, held.dtype) == (shape, dtype):
            return held
        found = torch.empty(shape, dtype=dtype)
        if held is not None:
            for some, old in zip(found.split(FEW), held[: self.count].split(FEW), strict=False):
                some[: len(old)] = _as_type(old, dtype)
        return found


@dataclass(frozen=True)
class Prepared:
    """All images of a source, brought to one form and not split yet."""

    images: ImageSet
    digests: list[bytes]
    """The SHA-256 of each image as it is stored."""
    given: list[str | None]
    """The split of each image, where the source says it."""
    inverted: bool | None
    """As in `Splits`."""


def read_all(
    source: Source,
    size: int | None = None,
    channels: int | None = None,
    invert: Invert = "auto",
    progress: bool = True,
) -> Prepared:
    """Read the images of a source.

    Args:
        source: the images.
        size: height and width to scale them to, antialiased and with margins of the border's median
            around what is not square; None leaves them as they are, which must be one size.
        channels: 1 or 3; None takes 1 if all images are grey, else 3.
        invert: whether to swap dark and light. With "auto", grey images are swapped where their
            border is light, each for itself, if nearly all have a border of one colour, dark or
            light; others, such as photographs, stay. Images in colour are swapped together, if
            most of them have a light border of one colour. A line on stderr says how many were
            swapped.
        progress: whether to show a progress bar after some seconds, and that line.

    Raises:
        ValueError: if there are none, or the images have different sizes and no `size` is given.
    """
    held = Gathered(source.total)
    labels: list[int] = []
    digests: list[bytes] = []
    given: list[str | None] = []
    light: list[Tensor] = []
    drawn: list[Tensor] = []
    side, colour = None, False
    bar = tqdm(
        total=source.total, desc="images", unit="", delay=3, leave=False, disable=not progress
    )
    with bar:
        for chunk in source.chunks(False):
            if size is None:
                side = source.side(chunk, side)
            images = _as_grey(chunk.pixels)
            colour = colour or images.shape[1] == 3
            ground, one_colour = _border(images, chunk.masks)
            level = ground.mean(1)
            light.append(level > LIGHT)
            drawn.append(one_colour & ((level - 0.5).abs() > CLEAR))
            fitted, seen = _fitted(images, chunk.masks, ground, size)
            held.add(fitted if channels is None else _with_channels(fitted, channels), seen)
            labels += chunk.labels
            digests += chunk.digests
            given += [chunk.split] * len(images)
            bar.update(len(images))
    if not held.count:
        raise ValueError(f"{source.name} holds no images.")
    images, seen = held.pixels, held.masks
    blind = images.is_floating_point() and images.isnan().all()
    if blind or (seen is not None and not seen.any()):
        raise ValueError(f"Every pixel of {source.name} is missing (NaN, or not in its mask).")
    swap, inverted = _polarity(torch.cat(light), torch.cat(drawn), colour, invert)
    if swap.any():
        for some, which in zip(images.split(FEW), swap.split(FEW), strict=True):
            some[which] = (255 if images.dtype == torch.uint8 else 1) - some[which]
    if invert == "auto" and progress:
        _tell(source.name, swap, torch.cat(light))
    everything = ImageSet(
        images,
        torch.tensor(labels),
        masks=seen,
        class_names=source.class_names,
    )
    return Prepared(everything, digests, given, inverted)


def held_out(data: ImageSet, name: str) -> Splits:
    """Split images as `prepare` does, and leave them as they are.

    Args:
        data: the images.
        name: for messages.

    Raises:
        ValueError: if there are too few different images.
    """
    return split(data, digests_of(data), [None] * len(data), name)


def split(
    data: ImageSet,
    digests: Sequence[bytes],
    given: Sequence[str | None],
    name: str,
    inverted: bool | None = None,
    in_place: bool = False,
) -> Splits:
    """Split images as `three_ways` says, into parts of one array.

    Args:
        data: the images.
        digests, given, name: as for `three_ways`.
        inverted: as in `Splits`.
        in_place: whether to put `data` in order where it is, instead of a copy.

    Raises:
        ValueError: if there are too few different images.
    """
    rows = three_ways(digests, given, name)
    first, second = len(rows[0]), len(rows[0]) + len(rows[1])
    ordered = (_reordered if in_place else ImageSet.__getitem__)(data, torch.cat(rows))
    train, validation, test = ordered[:first], ordered[first:second], ordered[second:]
    mark = fingerprint(digests, data.labels.tolist(), given)
    by_hash = tuple(name for name in SPLITS[1:] if name not in given)
    return Splits(train, validation, test, inverted, mark, by_hash)


def fingerprint(
    digests: Sequence[bytes], labels: Sequence[int], given: Sequence[str | None]
) -> str:
    """Twelve hexadecimal digits that change with any image, label or split, in whatever order.

    Args:
        digests: the SHA-256 of each image as it is stored.
        labels: the label of each.
        given: the split of each, where it is given.
    """
    rows = sorted(
        f"{d.hex()} {label} {part}" for d, label, part in zip(digests, labels, given, strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]


def fingerprint_of(splits: Splits) -> str:
    """The fingerprint of images that came as splits.

    Args:
        splits: the images.
    """
    digests: list[bytes] = []
    labels: list[int] = []
    given: list[str | None] = []
    for name in SPLITS:
        data = getattr(splits, name)
        digests += digests_of(data)
        labels += data.labels.tolist()
        given += [name] * len(data)
    return fingerprint(digests, labels, given)


def digests_of(data: ImageSet) -> list[bytes]:
    """The SHA-256 of each image's pixels.

    Args:
        data: the images.
    """
    return [digest(image.numpy()) for image in data.pixels]


def adapted(data: ImageSet, size: int | None, channels: int | None, invert: bool) -> ImageSet:
    """Bring images that are a data set already to another size, other channels or polarity.

    Args:
        data: the images.
        size, channels: as for `prepare`; None leaves the images as they are.
        invert: whether to swap dark and light.
    """
    if size not in (None, data.pixels.shape[-1]) or data.pixels.shape[-1] != data.pixels.shape[-2]:
        held = Gathered(len(data))
        for some in data.split(FEW):
            ground = _border(some.pixels, some.masks)[0]
            held.add(*_fitted(some.pixels, some.masks, ground, size))
        segments = data.segments
        if segments is not None:
            segments = T.resize(segments, [size, size], T.InterpolationMode.NEAREST)
        data = replace(data, pixels=held.pixels, masks=held.masks, segments=segments)
    if channels not in (None, data.pixels.shape[1]):
        masks = data.masks
        if masks is not None:
            masks = masks.all(1, keepdim=True)
        data = replace(data, pixels=_with_channels(data.pixels, channels), masks=masks)
    if invert:
        data = replace(data, pixels=(255 if data.pixels.dtype == torch.uint8 else 1) - data.pixels)
    return data


def digest(image: np.ndarray) -> bytes:
    """The SHA-256 of an image as it is stored.

    Args:
        image: an array of any shape and type.
    """
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def border(images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c"], Bool[Tensor, "n"]]:
    """The median of each image's outermost pixels, and whether most of these are of one colour.

    Args:
        images: floats in [0, 1]; NaN is missing.

    Returns:
        The medians of each channel, 0 where nothing is seen; and the truth values.
    """
    return _border(images, None)


def _border(pixels: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same of bytes or floats and masks, of which only the outermost pixels become floats."""

    def outermost(maps: Tensor) -> Tensor:
        rows, columns = maps[:, :, [0, -1]].flatten(2), maps[..., [0, -1]].flatten(2)
        return torch.cat([rows, columns], 2).unsqueeze(3)

    seen = None if masks is None else outermost(masks)
    around = _floats(outermost(pixels), seen).squeeze(3)
    ground = around.nanmedian(2).values.nan_to_num()
    near = ((around - ground.unsqueeze(2)).abs() <= ONE_COLOUR).all(1).float().mean(1)
    return ground, near >= MOST_OF_BORDER


def squared(images: Tensor, ground: Float[Tensor, "n c"]) -> Tensor:
    """Put each image in the middle of a square of one colour.

    Args:
        images: (N, C, H, W), floats.
        ground: the colour of each image's margins.
    """
    (h, w), side = images.shape[2:], max(images.shape[2:])
    if h == w:
        return images
    top, left = (side - h) // 2, (side - w) // 2
    square = ground[..., None, None].repeat(1, 1, side, side)
    square[:, :, top : top + h, left : left + w] = images
    return square


def scaled(images: Tensor, size: int) -> Tensor:
    """Scale square images, antialiased.

    Args:
        images: (N, C, H, H), floats in [0, 1]; NaN is missing.
        size: the new height and width.

    Returns:
        (N, C, size, size) in [0, 1]; missing where more than half of a pixel is.
    """
    if images.shape[-1] == size:
        return images

    def resized(values: Tensor) -> Tensor:
        return T.resize(values, [size, size], antialias=True)

    missing = images.isnan()
    if not missing.any():
        return resized(images).clamp(0, 1)
    seen = resized((~missing).to(images))
    return (resized(images.nan_to_num()) / seen).clamp(0, 1).where(seen >= 0.5, torch.nan)


def as_bytes(images: Tensor) -> Tensor:
    """Round floats in [0, 1] to bytes.

    Args:
        images: of any shape; NaN becomes 0.
    """
    return (255 * images.nan_to_num()).round().to(torch.uint8)


def three_ways(
    digests: Sequence[bytes], given: Sequence[str | None], name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Say which images are for training, validation and test, in the order of their digests.

    Args:
        digests: the SHA-256 of each image.
        given: the split of each image, or None where it is for training, unless held out.
        name: of the source, for messages.

    Raises:
        ValueError: if there are too few different images.
    """
    order = sorted(range(len(digests)), key=lambda i: digests[i])
    of = {s: [i for i in order if (given[i] or "train") == s] for s in SPLITS}
    missing = [split for split in SPLITS[1:] if not of[split]]
    pool = of["train"]
    distinct = list(dict.fromkeys(digests[i] for i in pool))
    if len(distinct) <= len(missing):
        what = "training images" if any(given) else "images"
        raise ValueError(
            f"{name} has too few different {what}, {len(distinct)}: at least {len(missing) + 1} "
            f"are needed, one to learn from and one each for {' and '.join(missing)}."
        )
    cuts = [0]
    for j in range(len(missing)):  # where the next split begins among the distinct digests
        left = len(missing) - j
        threshold = int((1 - HELD_OUT * left) * 2**64).to_bytes(8, "big")
        here = bisect_left(distinct, threshold)
        cuts.append(min(max(here, cuts[-1] + 1), len(distinct) - left))
    number = {digest: i for i, digest in enumerate(distinct)}
    bounds = [*cuts, len(distinct)]
    for j, split in enumerate(["train", *missing]):
        of[split] = [i for i in pool if bounds[j] <= number[digests[i]] < bounds[j + 1]]
    train, validation, test = (torch.tensor(of[split]) for split in SPLITS)
    return train, validation, test


def _polarity(
    light: Tensor, drawn: Tensor, colour: bool, invert: Invert
) -> tuple[Tensor, bool | None]:
    """Which images to swap; and whether that is all or none of them, None if each for itself."""
    if invert != "auto":
        return torch.full_like(light, invert), invert
    if colour:
        inverted = bool((light & drawn).float().mean() > 0.5)
        return torch.full_like(light, inverted), inverted
    if drawn.float().mean() > NEARLY_ALL:
        return light, None
    return torch.zeros_like(light), False


def _tell(name: str, swap: Tensor, light: Tensor) -> None:
    """Say on stderr how many images were swapped, or that light ones stay."""
    if swap.any():
        said = (
            f"{int(swap.sum()):,} of {len(swap):,} images of {name} are dark on a light ground; "
            "dark and light of these were swapped (--invert=false leaves them)."
        )
    elif light.float().mean() > 0.5:
        said = (
            f"Most images of {name} have a light border, but not of one colour, so they stay as "
            "they are; if they are dark ink on light paper, give --invert=true."
        )
    else:
        return
    print(said, file=sys.stderr)


def _floats(pixels: Tensor, masks: Tensor | None = None) -> Tensor:
    return ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.long), masks=masks).images


def _as_grey(pixels: Tensor) -> Tensor:
    """One channel where all are alike, as in grey images that are stored in colour."""
    if pixels.shape[1] == 1:
        return pixels
    if pixels.dtype == torch.uint8:
        levels = int((pixels.amax(1) - pixels.amin(1)).max())
        if levels != round(255 * COLOUR):  # there floats decide, as ever
            return pixels if levels > 255 * COLOUR else pixels[:, 1:2]
    values = _floats(pixels)
    spread = (values.amax(1) - values.amin(1)).nan_to_num()
    return pixels if spread.max() > COLOUR else pixels[:, 1:2]


def _with_channels(pixels: Tensor, channels: int) -> Tensor:
    if channels == pixels.shape[1]:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    return T.rgb_to_grayscale(pixels)


def _fitted(
    pixels: Tensor, masks: Tensor | None, ground: Tensor, size: int | None
) -> tuple[Tensor, Tensor | None]:
    """Images and masks at a size, of the type that they had."""
    if size is None or tuple(pixels.shape[2:]) == (size, size):
        return pixels, masks
    images = scaled(squared(_floats(pixels, masks), ground), size)
    if pixels.dtype != torch.uint8:
        return images, None
    seen = None if masks is None else ~images.isnan().any(1, keepdim=True)
    return as_bytes(images), seen


def _as_type(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    return pixels if pixels.dtype == dtype else _floats(pixels)


def _reordered(data: ImageSet, order: Tensor) -> ImageSet:
    """The images at some rows, which are all rows, in the arrays that hold them."""
    for values in (data.pixels, data.masks):
        if values is not None:
            reorder(values, order)
    return replace(data, labels=data.labels[order])


def reorder(values: Tensor, order: Tensor) -> None:
    """Put row order[i] of a tensor at i, in place, with one row in hand instead of a copy of all.

    >>> values = torch.tensor([0, 10, 20, 30])
    >>> reorder(values, torch.tensor([2, 0, 1, 3]))
    >>> values
    tensor([20,  0, 10, 30])

    Args:
        values: (N, ...), changed in place.
        order: (N,), each row once.
    """
    rows, source = values.view(len(values), -1).numpy(), order.tolist()
    for first in range(len(source)):
        if source[first] == first:
            continue
        kept, at = rows[first].copy(), first
        while source[at] != first:
            rows[at] = rows[source[at]]
            source[at], at = at, source[at]
        rows[at], source[at] = kept, at
