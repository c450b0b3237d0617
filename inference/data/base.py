"""Images with their labels, and the three splits of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

AT_ONCE = 2**26
"""Floats that are made of images at once, 256 MiB; all of MNIST's training images are fewer."""


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels, such as one split of a data set.

    An image set has a length, and can be indexed by a slice or a tensor of indices. Images are kept
    as they came, which for bytes takes a quarter of the memory; `images` converts them to floats,
    so `data[:12].images` converts twelve.

    >>> data = ImageSet(torch.full((3, 1, 28, 28), 255, dtype=torch.uint8), torch.tensor([7, 1, 7]))
    >>> len(data), data[1:].labels.tolist(), float(data[:1].images.max())
    (3, [1, 7], 1.0)
    """

    pixels: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]
    """N images, light ink on a dark ground: bytes, or floats in [0, 1] in which NaN is a missing
    pixel."""
    labels: Int[Tensor, "n"]
    """The class of each image: digit, garment, or character (numbered across alphabets)."""
    segments: Int[Tensor, "n levels h w"] | None = None
    """Of synthetic images: the true part (level 0) and sub-part (level 1) of each pixel, -1 where
    there is no ink. Sub-parts are numbered through all parts. None of other images."""
    masks: Bool[Tensor, "n #c h w"] | None = None
    """Which pixels were seen: False is missing. None where all were, or `pixels` tell by NaN."""
    class_names: tuple[str, ...] = ()
    """The name of each class, by label; empty where classes have none."""

    @property
    def images(self) -> Float[Tensor, "n c h w"]:
        """The images as floats in [0, 1], NaN where a pixel is missing, converted at each call."""
        images = self.pixels.float() / 255 if self.pixels.dtype == torch.uint8 else self.pixels
        return images if self.masks is None else images.where(self.masks, torch.nan)

    @property
    def shape(self) -> torch.Size:
        """The shape (C, H, W) of each image."""
        return self[:1].pixels.shape[1:]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Any) -> ImageSet:
        """Give the images at a slice or a tensor of indices."""
        segments = None if self.segments is None else self.segments[index]
        masks = None if self.masks is None else self.masks[index]
        pixels, labels = self.pixels[index], self.labels[index]
        return ImageSet(pixels, labels, segments, masks, self.class_names)

    def split(self, size: int | None = None) -> Iterator[ImageSet]:
        """Give the images in parts, in their order, as `Tensor.split` does.

        `images` of a part makes floats of these alone.

        >>> data = ImageSet(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> [part.labels.tolist() for part in data.split(2)]
        [[0, 1], [2, 3], [4]]

        Args:
            size: images in a part; by default as many as make 256 MiB of floats.
        """
        size = size or max(1, AT_ONCE // max(1, self.shape.numel()))
        return (self[start : start + size] for start in range(0, max(1, len(self)), size))

    def __add__(self, other: ImageSet) -> ImageSet:
        """Give these images, then others, without their true segments.

        Raises:
            ValueError: if the images of one are bytes and those of the other floats.
        """
        mine, theirs = self.pixels.dtype, other.pixels.dtype
        if mine != theirs:
            raise ValueError(f"Only images of one type can be joined, got {mine} and {theirs}.")
        masks = None
        if self.masks is not None or other.masks is not None:
            masks = torch.cat([_all_seen(data) for data in (self, other)])
        return ImageSet(
            torch.cat([self.pixels, other.pixels]),
            torch.cat([self.labels, other.labels]),
            masks=masks,
            class_names=self.class_names or other.class_names,
        )


@dataclass(frozen=True)
class Splits:
    """A data set in three disjoint splits."""

    train: ImageSet
    """Images to learn from."""
    validation: ImageSet
    """Images to choose models by."""
    test: ImageSet
    """Images to report scores of."""
    inverted: bool | None = None
    """Whether dark and light of all images were swapped when they were read; None where each was
    decided by itself, or nothing was looked at."""
    fingerprint: str | None = None
    """Twelve hexadecimal digits over all images as they are stored, their labels and the splits
    that are given with them; None of data sets by name, which do not change."""
    by_hash: tuple[str, ...] = ()
    """The splits, of `validation` and `test`, whose images were taken out of the training images by
    a hash of each; empty where the source says which images they are."""

    def map(self, change: Callable[[ImageSet], ImageSet]) -> Splits:
        """Change each split in the same way.

        Args:
            change: gives the new images of a split.
        """
        train, validation, test = map(change, (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)

    def of(self, classes: Sequence[int]) -> Splits:
        """Keep the images of some classes.

        Args:
            classes: labels, as the image sets number them.

        Raises:
            ValueError: if one of them has no image in a split.
        """
        wanted = torch.tensor(classes)

        def kept(split: ImageSet) -> ImageSet:
            there = torch.isin(wanted, split.labels)
            if not there.all():
                raise ValueError(
                    f"Class {int(wanted[~there][0])} is not in every split; classes go from "
                    f"{int(split.labels.min())} to {int(split.labels.max())}."
                )
            return split[torch.isin(split.labels, wanted).nonzero()[:, 0]]

        return self.map(kept)


def _all_seen(data: ImageSet) -> Bool[Tensor, "n c h w"]:
    seen = torch.ones(1, dtype=torch.bool) if data.masks is None else data.masks
    return seen.expand(data.pixels.shape)


def shuffled(data: ImageSet) -> ImageSet:
    """Shuffle images, in the same way at every call, so that the first are a random sample."""
    return data[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))]
