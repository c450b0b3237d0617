"""What becomes of a training step: its learning rate, what is grown so far, whether it counts."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def schedule(
    step: int, warmup: int, progress: float, kind: Literal["cosine", "constant"] = "cosine"
) -> float:
    """Factor on the learning rate: a linear rise over `warmup` steps, then one of two kinds.

    Args:
        step: steps done before.
        progress: the share of training that is done, from 0 to 1.
        kind: "cosine" falls to 0 along a half cosine over all of training, "constant" stays at 1.

    >>> schedule(0, 100, 0.0), schedule(1000, 100, 0.5), schedule(1000, 100, 0.5, "constant")
    (0.01, 0.5, 1.0)
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = 1.0 if kind == "constant" else 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return rise * fall


def grown(progress: float, share: float) -> float:
    """From 0 to 1 over a share of training, then 1; near but never at 0.

    >>> grown(0.1, 0.2), grown(0.5, 0.2), grown(0.5, 0.0)
    (0.5, 1.0, 1.0)
    """
    return min(1.0, max(progress, 1e-6) / share) if share else 1.0


class Skips:
    """Steps that were not applied, counted on the device."""

    def __init__(self, counts: Tensor | None = None) -> None:
        self.counts = torch.zeros(3, dtype=torch.long) if counts is None else counts
        self.read()

    def to(self, device: torch.device) -> None:
        self.counts = self.counts.to(device)

    def count(self, bad: Tensor, step: int) -> None:
        """Note whether a step was skipped, without waiting for the device."""
        total, in_a_row, began = self.counts.unbind()
        began = torch.where(bad & (in_a_row == 0), step, began)
        self.counts = torch.stack([total + bad, (in_a_row + 1) * bad, began])

    def read(self) -> None:
        """Wait for the device: how many, how many at last in a row, and the first of the last."""
        self.total, self.in_a_row, self.began = self.counts.tolist()
