"""The KL divergence of a site, in closed form where there is one."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, Normal, kl_divergence


def site_kl(q: Distribution, p: Distribution, value: Tensor) -> Tensor:
    """Return KL(q || p) in closed form where torch has one, else log q - log p at `value`, in nats.

    A point (`Delta`) has no entropy: its KL is -log p.

    Args:
        q, p: the guide's and the model's distribution of a site.
        value: a sample of q.

    Returns:
        A tensor of the distributions' batch shape.
    """
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(value) - p.log_prob(value)


def kl_to_diagonal_normal(q: Any, p: Any) -> Tensor:
    """KL(q || p) of a normal with covariances q from a diagonal normal p, in closed form.

    Args:
        q: a `MultivariateNormal` or `LowRankMultivariateNormal`, of event shape (d,).
        p: a `Normal` made `Independent` in its last dimension, of the same event shape.

    Returns:
        The KL in nats, (...).

    Raises:
        NotImplementedError: if `p` is any other `Independent` distribution.
    """
    base = p.base_dist
    if not isinstance(base, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    apart = (q.variance + (q.mean - base.loc).square()) / base.variance
    cross_entropy = 0.5 * (apart + (2 * math.pi * base.variance).log()).sum(-1)
    return cross_entropy - q.entropy()
