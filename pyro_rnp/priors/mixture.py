"""A mixture of normals as the prior."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from pyro_rnp.arguments import whole
from pyro_rnp.config import RNPConfig
from pyro_rnp.priors.base import Prior
from pyro_rnp.registry import PRIORS


class Mixture(dist.MixtureSameFamily):
    """Pyro's `MixtureSameFamily`, for components whose `log_prob` does not broadcast values.

    The support is all vectors, as the components' is. Pyro states the support as a constraint that
    `biject_to`, and with it NUTS and the automatic guides, cannot use.
    """

    support = constraints.real_vector

    def _pad(self, x: Tensor) -> Tensor:
        x = super()._pad(x)
        return x.expand(*x.shape[:-2], self._num_component, x.shape[-1])


@PRIORS.add("mixture")
class GaussianMixture(Prior):
    """z^K ~ a mixture of diagonal normals with learned weights, means and scales.

    Weights start equal, means as draws from Normal(0, I) and scales at 1.

    Args:
        config: gives |z|, `program_size`.
        components: number of normals, in [1, 10,000].

    Raises:
        ValueError: if `components` is out of its range.
    """

    def __init__(self, config: RNPConfig, *, components: int = 20) -> None:
        super().__init__()
        whole(1, 10_000, components=components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, config.program_size))
        self.log_scale = nn.Parameter(torch.zeros(components, config.program_size))

    def forward(self) -> Distribution:
        each = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return Mixture(dist.Categorical(logits=self.logits), each)
