"""Statistics of Markov chains: effective samples, and sentences on chains that have not mixed."""

from __future__ import annotations

import math

import torch
from pyro.ops.stats import effective_sample_size
from torch import Tensor

MIXED = 1.05
"""r-hat above which chains have not mixed."""


def chain_size(values: Tensor) -> Tensor:
    """Estimate how many independent samples chains are worth, number by number.

    Source: Vehtari et al., "Rank-normalization, folding, and localization: an improved r-hat",
    2021, and Stan's reference manual for the limit.

    Args:
        values: (chains, draws, ...).

    Returns:
        (...), above 0 and at most S log10(S) of S draws: of few draws the plain estimate can be
        larger or negative. NaN where nothing moves.
    """
    s = values.shape[0] * values.shape[1]
    return s / (s / effective_sample_size(values, 0, 1)).clamp(min=1 / math.log10(s))


def mixing(r_hat: dict[str, Tensor], diverged: int, num: int) -> list[str]:
    """Return a sentence each on transitions that diverged and on chains that have not mixed.

    Args:
        r_hat: split r-hat by site, (N,) each.
        diverged: transitions that diverged.
        num: transitions in all.
    """
    found = []
    if diverged:
        found.append(f"{diverged} of {num} transitions diverged: the posterior may miss a part.")
    worst = torch.stack(list(r_hat.values())).amax(0)
    apart = int((~(worst <= MIXED)).sum())
    if apart:
        found.append(
            f"The posterior of {apart} of {len(worst)} images is unreliable: chains disagree, with "
            f"r-hat up to {float(worst.max()):.2f} (above {MIXED}); take more samples or warm-up."
        )
    return found
