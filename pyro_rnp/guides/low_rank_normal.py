"""A guide with some covariance between dimensions: a diagonal and a low-rank part."""

from __future__ import annotations

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, register_kl

from pyro_rnp.arguments import whole
from pyro_rnp.config import RNPConfig
from pyro_rnp.encoder import Encoder
from pyro_rnp.guides.base import TopGuide, positive
from pyro_rnp.kl import kl_to_diagonal_normal
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import GUIDES

register_kl(LowRankMultivariateNormal, Independent)(kl_to_diagonal_normal)


@GUIDES.add("lowrank")
class LowRankNormal(TopGuide):
    """q(z^K | x) = Normal(loc(x), diag scale(x)^2 + F(x) F(x)^T), all from one encoder.

    F starts small beside the diagonal.

    Args:
        config: gives the encoder's shape and |z|, `program_size`.
        rank: columns of F, in [1, 10,000].

    Raises:
        ValueError: if `rank` is out of its range.
    """

    def __init__(self, config: RNPConfig, *, rank: int = 4) -> None:
        super().__init__()
        whole(1, 10_000, rank=rank)
        self.rank, z = rank, config.program_size
        self.encoder = Encoder(config, (2 + rank) * z)
        self.sizes = [z, z, rank * z]

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        loc, raw_scale, factor = full_precision(self.encoder(images)).split(self.sizes, -1)
        columns = 0.1 * factor.unflatten(-1, (-1, self.rank))
        return dist.LowRankMultivariateNormal(loc, columns, positive(raw_scale).square())
