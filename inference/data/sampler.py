"""Batches of images, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from inference.data.base import ImageSet


class _Batches(Dataset[Tensor]):
    """Gives a batch for a list of indices: one gather instead of one call an image."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, indices: list[int]) -> Tensor:
        return self.images[indices].images

    def __len__(self) -> int:
        return len(self.images)


class _Order(Sampler[list[int]]):
    """Gives lists of indices, one a batch; the arguments are those of `loader`.

    Lightning calls `set_epoch` before each epoch.
    """

    def __init__(
        self,
        labels: np.ndarray,
        size: int,
        shuffle: bool,
        seed: int,
        done: int,
        images_per_class: int,
        rank: int,
        world: int,
    ) -> None:
        self.labels, self.shuffle, self.seed = labels, shuffle, seed
        self.images_per_class, self.rank, self.world = images_per_class, rank, world
        usable = len(labels) if images_per_class == 1 else len(self._groups(np.arange(len(labels))))
        self.images = usable
        self.size = min(size, usable // world // images_per_class * images_per_class)
        self.first_epoch, self.start = divmod(done, len(self))
        self.epoch = self.first_epoch

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole = self.images // (self.size * self.world)
        return whole if self.shuffle else -(-self.images // self.size)

    def _groups(self, order: np.ndarray) -> np.ndarray:
        """Sort indices into groups of one class, in their order; those left over stay out."""
        order = order[np.argsort(self.labels[order], kind="stable")]
        _, starts, index, counts = np.unique(
            self.labels[order], return_index=True, return_inverse=True, return_counts=True
        )
        place = np.arange(len(order)) - starts[index]
        return order[place < (counts // self.images_per_class * self.images_per_class)[index]]

    def __iter__(self) -> Iterator[list[int]]:
        order, random = np.arange(len(self.labels)), np.random.default_rng([self.seed, self.epoch])
        if self.shuffle:
            random.shuffle(order)
        if self.images_per_class > 1:
            groups = self._groups(order).reshape(-1, self.images_per_class)
            random.shuffle(groups)
            order = groups.flatten()
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
    images_per_class: int = 1,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Tensor]:
    """Make a loader of batches (B, C, H, W), floats in [0, 1] in which NaN is a missing pixel.

    Args:
        images: the images.
        batch_size: B, for this process; fewer where there are not as many images.
        shuffle: whether to take the images in another order in each epoch, and whole batches only;
            else they are taken as they stand, and the last batch may be smaller.
        seed: seed of the order, together with the epoch.
        done: number of batches that earlier parts of the run have seen, after which the first
            epoch of this loader goes on.
        images_per_class: number of images of the same class that stand side by side; the groups
            are others in each epoch.
        rank: number of this process, from 0.
        world: number of processes; each gets its own part of a larger batch.

    Raises:
        ValueError: if no class has `images_per_class` images.
    """
    data, labels = _Batches(images), images.labels.numpy()
    if images_per_class > int(images.labels.bincount().max()):
        raise ValueError(f"No class has {images_per_class} images; give fewer --images_per_class.")
    order = _Order(labels, batch_size, shuffle, seed, done, images_per_class, rank, world)
    # A generator of its own: by default making an iterator draws from the one that training uses.
    return DataLoader(data, sampler=order, batch_size=None, generator=torch.Generator())
