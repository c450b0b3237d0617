"""A normalising flow as the prior."""

from __future__ import annotations

import pyro.distributions as dist
from pyro.distributions import transforms
from torch import nn
from torch.distributions import Distribution

from pyro_rnp.arguments import whole
from pyro_rnp.config import RNPConfig
from pyro_rnp.couplings import Dense, permuted, start_as_identity
from pyro_rnp.priors.base import StandardNormal
from pyro_rnp.registry import PRIORS


@PRIORS.add("flow")
class Flow(StandardNormal):
    """z^K ~ Normal(0, I) through affine coupling layers, which start as the identity.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.

    Args:
        config: gives |z|, `program_size`.
        layers: number of coupling layers, in [1, 10,000].
        units: hidden units in each layer's network, in [1, 10,000].

    Raises:
        ValueError: if an option is out of its range, or |z| is 1, which leaves nothing to couple.
    """

    def __init__(self, config: RNPConfig, *, layers: int = 4, units: int = 64) -> None:
        super().__init__(config)
        whole(1, 10_000, layers=layers, units=units)
        z = config.program_size
        if z < 2:
            raise ValueError("A flow prior needs program_size of at least 2.")
        self.networks = nn.ModuleList(
            Dense(z // 2, [units], [z - z // 2] * 2) for _ in range(layers)
        )
        for network in self.networks:
            start_as_identity(network.layers[-1])  # type: ignore[index, arg-type]

    def forward(self) -> Distribution:
        # Made at each call: a coupling caches the last value that went through it.
        split = self.loc.shape[-1] // 2
        couplings = [transforms.AffineCoupling(split, network) for network in self.networks]
        return dist.TransformedDistribution(super().forward(), permuted(couplings, self.loc))
