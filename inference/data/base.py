"""Image sets: images with their labels, and a data set's fixed splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """N images of one split."""

    images: Float[Tensor, "n c h w"]
    """Ink or intensity in [0, 1]."""
    labels: Int[Tensor, "n"]
    """Class: digit, garment, or character (numbered across alphabets)."""
    segments: Int[Tensor, "n levels h w"] | None = None
    """Made images only: the true part (level 0) and sub-part (level 1) of each pixel, -1 where
    there is no ink. Sub-parts are numbered through all parts."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> ImageSet:
        """The images at a slice or an index tensor."""
        segments = None if self.segments is None else self.segments[index]
        return ImageSet(self.images[index], self.labels[index], segments)

    def __add__(self, other: ImageSet) -> ImageSet:
        """These images, then others; their true segments are not kept."""
        return ImageSet(
            torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels])
        )


@dataclass(frozen=True)
class Splits:
    """A data set: `train` to learn from, `validation` to choose by, `test` to report."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet

    def of(self, classes: Sequence[int]) -> Splits:
        """The images of some classes.

        Raises:
            ValueError: if one of them has no image in a split.
        """
        wanted, chosen = torch.tensor(classes), []
        for split in (self.train, self.validation, self.test):
            there = torch.isin(wanted, split.labels)
            if not there.all():
                raise ValueError(
                    f"Class {int(wanted[~there][0])} is not in every split; classes go from "
                    f"{int(split.labels.min())} to {int(split.labels.max())}."
                )
            chosen.append(split[torch.isin(split.labels, wanted).nonzero()[:, 0]])
        return Splits(*chosen)


def shuffled(data: ImageSet) -> ImageSet:
    """In an order of chance, the same at every call, so that the first are a fair choice."""
    return data[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))]
