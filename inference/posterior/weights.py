"""Statistics of importance weights: evidence, effective samples and the shape of the tail."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

ENOUGH = 10.0
"""Effective samples below which a posterior is not trusted."""
HEAVY = 0.7
"""Pareto k of the weights above which a posterior is not trusted (Vehtari et al., 2024)."""
REMEDY = "take more num_samples, or method='smc'"
"""What to do about weights that are not trusted."""
FEWEST = 21
"""Samples from which on Pareto k can be estimated: a fifth of them are five."""


class ImportanceWeights(NamedTuple):
    """Normalised importance weights, (S, N), and their statistics, (N,) each."""

    weights: Tensor
    """They add up to 1 over the samples of an image."""
    log_evidence: Tensor
    """Log of the mean weight, in nats."""
    log_evidence_error: Tensor
    """Its standard error, in nats, by the delta method."""
    effective_samples: Tensor
    """1 / sum of squared weights, from 1 to S (Kong, 1992)."""
    pareto_k: Tensor
    """See `pareto_k`."""

    def poor(self, remedy: str = "") -> str:
        """Return a sentence on the images whose posterior is not trusted; empty if there are none.

        A posterior is trusted if it has `ENOUGH` effective samples and a Pareto k of at most
        `HEAVY`.

        Args:
            remedy: what to do about it, the end of the sentence; by default nothing is said.
        """
        s, enough, tails = len(self.weights), self.effective_samples, self.pareto_k
        few, heavy, unknown = ~(enough >= ENOUGH), tails > HEAVY, tails.isnan()
        bad = int((few | heavy | unknown).sum())
        why = []
        if few.any():
            least = f"the least has {float(enough.min()):.1f}"
            why.append(f"fewer than {ENOUGH:g} effective samples of {s} ({least})")
        if heavy.any():
            worst = f"the worst has {float(tails[heavy].max()):.2f}"
            why.append(f"weights with a tail of Pareto k above {HEAVY} ({worst})")
        if unknown.any() and s < FEWEST:
            why.append(f"weights with an unknown tail (take {FEWEST} samples or more to know it)")
        elif unknown.any():
            why.append("weights that are not finite")
        images = f"{bad} of {len(enough)} images"
        end = f"; {remedy}." if remedy else "."
        sentence = f"The posterior of {images} is unreliable: {', or '.join(why)}{end}"
        return sentence if bad else ""


def importance_weights(log_weights: Float[Tensor, "s n"], exact: bool = False) -> ImportanceWeights:
    """Normalise importance weights and compute their statistics.

    Args:
        log_weights: log p(sample, evidence) - log q(sample) of S samples of q for N images, in
            nats.
        exact: whether nothing is random, so that one sample is all there is: the evidence then has
            no error, and effective samples are infinite.
    """
    s = len(log_weights)
    weights = log_weights.softmax(0)
    evidence = log_weights.logsumexp(0) - math.log(s)
    if exact:
        zero = torch.zeros_like(evidence)
        return ImportanceWeights(weights, evidence, zero, zero + math.inf, zero)
    error = (s * weights - 1).square().sum(0).div(s * max(s - 1, 1)).sqrt()
    if s == 1:
        error = torch.full_like(error, math.inf)
    tails = torch.tensor([pareto_k(row) for row in log_weights.T.cpu()]).to(error)
    return ImportanceWeights(weights, evidence, error, 1 / weights.square().sum(0), tails)


def pareto_k(log_weights: Float[Tensor, "s"]) -> float:
    """Estimate the shape k of a generalised Pareto distribution of the largest weights.

    The mean of the weights has a finite variance if k is below 0.5; above 0.7 neither the mean nor
    its error is reliable.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance sampling", 2024.

    Args:
        log_weights: (S,), of one image, in nats.

    Returns:
        k; 0 where all weights are equal to 0.1 %; NaN where k cannot be known, of fewer than
        `FEWEST` samples or where no weight is finite.
    """
    s = len(log_weights)
    most = math.ceil(min(0.2 * s, 3 * math.sqrt(s)))
    ordered = (log_weights.double() - log_weights.max()).sort().values
    if s > 1 and float(ordered[0]) > -1e-3:
        return 0.0
    if s < FEWEST or ordered.isnan().any():
        return math.nan
    beyond = (ordered[-most:].exp() - ordered[-most - 1].exp()).clamp(min=1e-300)
    return float(fit_generalized_pareto(beyond)[0])
