"""How the learning rate, the weight of the KL and the depth change over training."""

from __future__ import annotations

import math
from typing import Literal


def schedule(
    step: int, warmup: int, progress: float, kind: Literal["cosine", "constant"] = "cosine"
) -> float:
    """Give the factor on the learning rate: a linear rise over the first steps, then one of two
    kinds.

    Args:
        step: number of steps that are done.
        warmup: number of steps over which the factor rises to 1.
        progress: share of training that is done, from 0 to 1.
        kind: "cosine" falls to 0 along a half cosine over all of training, "constant" stays at 1.

    >>> schedule(0, 100, 0.0), schedule(1000, 100, 0.5), schedule(1000, 100, 0.5, "constant")
    (0.01, 0.5, 1.0)
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = 1.0 if kind == "constant" else 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return rise * fall


def ramp(progress: float, share: float) -> float:
    """Rise linearly from 0 to 1 over a first share of training, then stay at 1.

    Args:
        progress: share of training that is done, from 0 to 1.
        share: share of training over which the value rises; with 0 it is 1 from the start.

    Returns:
        The value; it is a little above 0 at the start, since it serves as a weight.

    >>> ramp(0.1, 0.2), ramp(0.5, 0.2), ramp(0.5, 0.0)
    (0.5, 1.0, 1.0)
    """
    return min(1.0, max(progress, 1e-6) / share) if share else 1.0
