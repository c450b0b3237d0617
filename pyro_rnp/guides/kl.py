"""A KL divergence that torch does not have: from a normal with covariances to a diagonal one."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.distributions import Normal


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
