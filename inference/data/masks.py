"""Masks drawn at random: which pixels of an image are seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

MaskKind = Literal["halves", "quadrants", "blocks", "pixels", "none"]
"""Names of the kinds of masks."""


def random_masks(n: int, size: int, kinds: Sequence[MaskKind]) -> Bool[Tensor, "n 1 s s"]:
    """Draw masks, each of one of several kinds, which are equally frequent.

    Args:
        n: the number of masks.
        size: height and width of the images, in pixels.
        kinds: one or more of `halves`, in which the left, right, upper or lower half is seen;
            `quadrants`, in which one quadrant is seen, or all others; `blocks`, in which a
            rectangle with uniform edges is seen, or all but that; `pixels`, a share of the pixels,
            itself uniform in [0, 1]; `none`, in which all are seen.

    Returns:
        (n, 1, size, size), on the CPU, True where a pixel is seen.

    >>> random_masks(5, 28, ["halves"]).sum((1, 2, 3)).tolist()
    [392, 392, 392, 392, 392]
    """
    which = torch.randint(len(kinds), (n,))
    masks = torch.stack([_DRAW[kind](n, size) for kind in kinds])
    return masks[which, torch.arange(n)].unsqueeze(1)


def _coin(*shape: int) -> Tensor:
    return torch.rand(shape) < 0.5


def _side(n: int, size: int) -> Tensor:
    """(n, size), True in the first half of a line or in the second."""
    return (torch.arange(size) < size // 2) ^ _coin(n, 1)


def _span(n: int, size: int) -> Tensor:
    """(n, size), True between two uniform points of a line."""
    low, high = (size * torch.rand(n, 2)).sort(1).values.T.unsqueeze(-1)
    middle = torch.arange(size) + 0.5
    return (low <= middle) & (middle <= high)


def _box(rows: Tensor, columns: Tensor) -> Tensor:
    """Rectangles (n, size, size), or all but these, with equal probability."""
    return (rows.unsqueeze(2) & columns.unsqueeze(1)) ^ _coin(len(rows), 1, 1)


def _halves(n: int, size: int) -> Tensor:
    side = _side(n, size)
    return torch.where(_coin(n, 1, 1), side.unsqueeze(1), side.unsqueeze(2))


def _pixels(n: int, size: int) -> Tensor:
    return torch.rand(n, size, size) < torch.rand(n, 1, 1)


_DRAW: dict[str, Callable[[int, int], Tensor]] = {
    "halves": _halves,
    "quadrants": lambda n, size: _box(_side(n, size), _side(n, size)),
    "blocks": lambda n, size: _box(_span(n, size), _span(n, size)),
    "pixels": _pixels,
    "none": lambda n, size: torch.ones(n, size, size, dtype=torch.bool),
}
