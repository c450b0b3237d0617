"""A guide with any covariance between dimensions."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, register_kl

from pyro_rnp.config import RNPConfig
from pyro_rnp.encoder import Encoder
from pyro_rnp.guides.base import TopGuide, positive
from pyro_rnp.kl import kl_to_diagonal_normal
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import GUIDES

register_kl(MultivariateNormal, Independent)(kl_to_diagonal_normal)


@GUIDES.add("full")
class FullNormal(TopGuide):
    """q(z^K | x) = Normal(loc(x), L(x) L(x)^T), with L lower triangular, from one encoder.

    L starts with small numbers below its diagonal.

    Args:
        config: gives the encoder's shape and |z|, `program_size`.
    """

    below: Tensor

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        z = config.program_size
        self.sizes = [z, z, z * (z - 1) // 2]
        self.encoder = Encoder(config, sum(self.sizes))
        self.register_buffer("below", torch.tril_indices(z, z, -1), persistent=False)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        loc, raw_scale, factor = full_precision(self.encoder(images)).split(self.sizes, -1)
        lower = positive(raw_scale).diag_embed()
        lower[..., self.below[0], self.below[1]] = 0.1 * factor
        return dist.MultivariateNormal(loc, scale_tril=lower)
