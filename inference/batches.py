"""Batches in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from inference.data import ImageSet


class _Batches(Dataset[Tensor]):
    """Whole batches by a list of indices: one gather instead of one call an image."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __getitem__(self, indices: list[int]) -> Tensor:
        return self.images[indices]

    def __len__(self) -> int:
        return len(self.images)


class _Order(Sampler[list[int]]):
    """Lists of indices, a batch each; the part of one process where there are several.

    Args:
        done: batches of earlier parts of the run; the first epoch goes on after them.
    """

    def __init__(
        self, images: int, size: int, shuffle: bool, seed: int, done: int, rank: int, world: int
    ) -> None:
        self.images, self.size, self.shuffle, self.seed = images, size, shuffle, seed
        self.rank, self.world = rank, world
        self.first_epoch, self.start = divmod(done, len(self))
        self.epoch = self.first_epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole = self.images // (self.size * self.world)
        return whole if self.shuffle else -(-self.images // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.images)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        start = self.start if self.epoch == self.first_epoch else 0
        for batch in range(start, len(self)):
            first = (batch * self.world + self.rank) * self.size
            yield order[first : first + self.size].tolist()


def loader(
    images: ImageSet,
    batch_size: int,
    shuffle: bool,
    seed: int = 0,
    done: int = 0,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Tensor]:
    """Batches (N, C, H, W); when shuffled, whole batches only, in another order every epoch.

    Args:
        seed: of the order, together with the epoch.
        done: batches that earlier parts of the run have seen.
        rank, world: this process and how many there are; each gets its own part of a larger batch.
    """
    data = _Batches(images.images)
    size = min(batch_size, len(data) // world)
    order = _Order(len(data), size, shuffle, seed, done, rank, world)
    # A generator of its own: by default making an iterator draws from the one that training uses.
    return DataLoader(data, sampler=order, batch_size=None, generator=torch.Generator())
