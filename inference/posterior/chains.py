"""Statistics of Markov chains: effective samples, and sentences on chains that have not mixed."""

from __future__ import annotations

import math

import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
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


def rank_normalised(values: Tensor) -> Tensor:
    """Replace values by the normal quantiles of their ranks among all chains' draws.

    Args:
        values: (chains, draws, ...).

    Returns:
        The same shape; equal values have their mean rank.
    """
    rows = values.reshape(values.shape[0] * values.shape[1], -1).T.contiguous()
    ordered, s = rows.sort(-1).values, rows.shape[-1]
    ranks = torch.searchsorted(ordered, rows) + torch.searchsorted(ordered, rows, right=True) + 1
    quantiles = torch.special.ndtri((ranks / 2 - 3 / 8) / (s + 1 / 4))
    return quantiles.T.reshape(values.shape).to(values)


def rank_r_hat(values: Tensor) -> Tensor:
    """Return rank-normalised split r-hat, of values and of their distance from the median.

    The larger of the two tells of chains that differ in place or in width, also where the values
    have no variance.

    Source: Vehtari et al., "Rank-normalization, folding, and localization: an improved r-hat",
    2021.

    Args:
        values: (chains, draws, ...), at least 4 draws.

    Returns:
        (...); NaN where nothing moves.
    """
    median = values.flatten(0, 1).median(0).values
    both = [values, (values - median).abs()]
    return torch.stack([split_gelman_rubin(rank_normalised(x), 0, 1) for x in both]).amax(0)


def bulk_and_tail_size(values: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate how many independent samples chains are worth, in their middle and at their ends.

    The first is of rank-normalised halves of the chains; the second is the smaller one of the
    estimates of the 5 % and the 95 % quantile.

    Source: as of `rank_r_hat`.

    Args:
        values: (chains, draws, ...), at least 4 draws.

    Returns:
        (...) each; see `chain_size`.
    """
    even = values[:, : values.shape[1] // 2 * 2]
    halves = torch.cat(even.chunk(2, 1))
    ends = values.flatten(0, 1).quantile(torch.tensor([0.05, 0.95]).to(values), 0)
    tails = [chain_size((halves <= end).to(values)) for end in ends]
    return chain_size(rank_normalised(halves)), torch.minimum(*tails)


def mixing(r_hat: dict[str, Tensor], diverged: int, num: int) -> list[str]:
    """Return a sentence each on transitions that diverged and on chains that have not mixed.

    Args:
        r_hat: split r-hat by site, (N,) each.
        diverged: transitions that diverged.
        num: transitions in all.
    """
    found = []
    if diverged:
        found.append(
            f"{diverged} of {num} transitions diverged: the posterior may miss a part; "
            "take method='smc'."
        )
    worst = torch.stack(list(r_hat.values())).amax(0)
    apart = int((~(worst <= MIXED)).sum())
    if apart:
        found.append(
            f"The posterior of {apart} of {len(worst)} images is unreliable: chains disagree, with "
            f"r-hat up to {float(worst.max()):.2f} (above {MIXED}); take more num_samples "
            "or warmup, or method='smc'."
        )
    return found
