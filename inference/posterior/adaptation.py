"""Adaptive importance sampling: proposals that follow the weights of the samples before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from inference.posterior.log_density import AT_ONCE, LogDensity

FOLLOWED = 30.0
"""Effective samples that a round follows, by weights that are flattened until there are as many."""
FULL = 128
"""Largest size of u for which a round's proposal has a full covariance; above, it is diagonal."""
PIECE = 2**24
"""Numbers of a matrix for each sample that a density may hold at a time."""
SHRINK, WIDEN, FREEDOM, BROAD = 0.3, 1.2, 5.0, 0.05
"""Of a round's proposal: the share of the covariance that is diagonal, the factor of the
covariance, the degrees of freedom, and the share of samples of the standard normal of u.
These numbers were chosen on validation digits of MNIST with the right half hidden."""


def rounds_of_importance(
    density: LogDensity, num: int, rounds: int
) -> tuple[Float[Tensor, "s n d"], Float[Tensor, "s n"]]:
    """Adapt a proposal in rounds, then draw samples that it has not seen.

    As many samples as are wanted adapt it. A seventh of them is of the guide. Each round draws from
    a Student's t around all samples before it, and weights these by the mixture of all that was
    drawn from. A twentieth of a round is of the standard normal of u, where the prior lies.

    A proposal that was fitted to samples is too likely at just these, so that their weights are too
    small by nats, and yet even: they tell nothing of the error. So none of them is returned. The
    samples are new, of a t around those, with a twentieth of the standard normal, which bounds the
    weights, and a tenth of the guide where its density is known at any u
    (`LogDensity.proposal_log_prob`), so that weights tell of modes that no round followed.

    Source: Cornuet, Marin, Mira and Robert, "Adaptive multiple importance sampling", 2012, for the
    rounds.

    Args:
        density: log p(u, evidence).
        num: S, samples for each of N images.
        rounds: how many rounds share as many others, at least 1, at most S.

    Returns:
        u, (S, N, D), and log p(u, evidence) - log q(u), (S, N), in nats.
    """
    groups = density.groups(AT_ONCE)
    if len(groups) > 1:
        every = [rounds_of_importance(part, num, rounds) for part in groups]
        return torch.cat([u for u, _ in every], 1), torch.cat([w for _, w in every], 1)
    q = adapted(density, num, rounds)
    guided = num // 10
    own = density.proposal_log_prob(guided, 0) if guided else None
    final, u = Mixture(q.loc), []
    if own is not None:
        u.append(density.propose(guided)[0])
        final.parts.append((own, guided))
    u.append(final.add(q, num - sum(map(len, u))))
    drawn = torch.cat(u)
    return drawn, density.visit(drawn) - final.log_prob(drawn)


def adapted(density: LogDensity, num: int, rounds: int) -> Any:
    """Return a Student's t that rounds of samples have adapted, see `rounds_of_importance`.

    Args:
        density, num, rounds: as there.
    """
    guided = max(num // 7, 1)
    first, log_q, log_p = density.propose(guided, guided // 10)
    own = density.proposal_log_prob(guided, guided // 10)
    mixture, guided_log_weights = Mixture(first[0]), log_p - log_q
    u, log_weights = first, guided_log_weights
    if own is not None:
        mixture.parts.append((own, guided))
    else:
        u, log_p, log_weights = first[:0], log_p[:0], log_p[:0]
    left = num - len(first)
    for k in torch.arange(left).tensor_split(min(rounds, left)) if left else ():
        before = (u, log_weights)
        if own is None:
            before = torch.cat([first, u]), torch.cat([guided_log_weights, log_weights])
        drawn = mixture.add(follow(*before), len(k))
        u, log_p = torch.cat([u, drawn]), torch.cat([log_p, density.visit(drawn)])
        log_weights = log_p - mixture.log_prob(u)
    if own is None:
        u, log_weights = torch.cat([first, u]), torch.cat([guided_log_weights, log_weights])
    return follow(u, log_weights)


class Mixture:
    """The proposals of all rounds and the standard normal, each as often as it was drawn from.

    Args:
        like: (N, D), with the shape and device of one sample of u.
    """

    def __init__(self, like: Tensor) -> None:
        standard = dist.Normal(torch.zeros_like(like), 1.0).to_event(1)
        self.standard = standard
        self.parts: list[tuple[Callable[[Tensor], Tensor], int]] = [(standard.log_prob, 0)]
        """Log-densities, and how many samples were drawn from each."""

    def add(self, proposal: Any, num: int) -> Tensor:
        """Draw a round's samples and take its proposal in.

        Args:
            proposal: a distribution of batch shape (N,) and event shape (D,).
            num: how many samples.

        Returns:
            (num, N, D).
        """
        broad = int(BROAD * num)
        self.parts[0] = self.parts[0][0], self.parts[0][1] + broad
        self.parts.append((proposal.log_prob, num - broad))
        return torch.cat([proposal.sample((num - broad,)), self.standard.sample((broad,))])

    def log_prob(self, u: Tensor) -> Tensor:
        """Return the log-density of samples.

        Args:
            u: (S, N, D).

        Returns:
            (S, N), in nats.
        """
        total, (_, n, d) = sum(count for _, count in self.parts), u.shape
        few = max(1, PIECE // (n * d * d))  # a t's log_prob copies its matrix for each sample

        def log_prob(some: Tensor) -> Tensor:
            terms = [log_q(some) + math.log(count / total) for log_q, count in self.parts if count]
            return torch.stack(terms).logsumexp(0)

        return torch.cat([log_prob(some) for some in u.split(few)])


def follow(u: Float[Tensor, "s n d"], log_weights: Float[Tensor, "s n"]) -> Any:
    """Return a Student's t around weighted samples, for each of N images.

    Args:
        u: (S, N, D).
        log_weights: (S, N), in nats.

    Returns:
        A distribution of batch shape (N,) and event shape (D,).
    """
    w = flattened(log_weights, FOLLOWED)
    mean = torch.einsum("sn,snd->nd", w, u)
    apart = u - mean
    variance = torch.einsum("sn,snd->nd", w, apart.square())
    shrink = SHRINK if u.shape[-1] <= FULL else 1.0
    covariance = shrink * variance.diag_embed()
    if shrink < 1:
        covariance = covariance + (1 - shrink) * torch.einsum("sn,sni,snj->nij", w, apart, apart)
    floor = 1e-4 * torch.eye(u.shape[-1]).to(u)
    tril = torch.linalg.cholesky(WIDEN * covariance + floor)
    return dist.MultivariateStudentT(torch.full((), FREEDOM).to(u), mean, tril)


def flattened(log_weights: Float[Tensor, "s n"], wanted: float) -> Float[Tensor, "s n"]:
    """Return weights to the largest power up to 1 that leaves enough effective samples.

    Args:
        log_weights: (S, N), in nats.
        wanted: effective samples of each image.

    Returns:
        (S, N); they add up to 1 over S.
    """
    log_weights = log_weights - log_weights.amax(0)
    low, high = torch.zeros_like(log_weights[0]), torch.ones_like(log_weights[0])
    for _ in range(30):
        power = (low + high) / 2
        enough = 1 / (power * log_weights).softmax(0).square().sum(0) >= wanted
        low, high = torch.where(enough, power, low), torch.where(enough, high, power)
    return (low * log_weights).softmax(0)
