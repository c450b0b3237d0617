"""Images with their labels, and the three splits of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels, such as one split of a data set.

    An image set has a length, and can be indexed by a slice or a tensor of indices.

    >>> data = ImageSet(torch.zeros(3, 1, 28, 28), torch.tensor([7, 1, 7]))
    >>> len(data), data[1:].labels.tolist()
    (3, [1, 7])
    """

    images: Float[Tensor, "n c h w"]
    """N images in [0, 1], light ink on a dark ground."""
    labels: Int[Tensor, "n"]
    """The class of each image: digit, garment, or character (numbered across alphabets)."""
    segments: Int[Tensor, "n levels h w"] | None = None
    """Of synthetic images: the true part (level 0) and sub-part (level 1) of each pixel, -1 where
    there is no ink. Sub-parts are numbered through all parts. None of other images."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> ImageSet:
        """Give the images at a slice or a tensor of indices."""
        segments = None if self.segments is None else self.segments[index]
        return ImageSet(self.images[index], self.labels[index], segments)

    def __add__(self, other: ImageSet) -> ImageSet:
        """Give these images, then others, without their true segments."""
        return ImageSet(
            torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels])
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

    def of(self, classes: Sequence[int]) -> Splits:
        """Keep the images of some classes.

        Args:
            classes: labels, as the image sets number them.

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
    """Shuffle images, in the same way at every call, so that the first are a random sample."""
    return data[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))]
