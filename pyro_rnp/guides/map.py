"""A guide without uncertainty."""

from __future__ import annotations

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from pyro_rnp.config import RNPConfig
from pyro_rnp.encoder import Encoder
from pyro_rnp.guides.base import TopGuide
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import GUIDES


@GUIDES.add("map")
class MAP(TopGuide):
    """q(z^K | x) = a point from the encoder, trained to be the most probable program.

    A point has no density, so there is no evidence lower bound; training maximises log p(x, z^K),
    which is bounded only where the prior has no learned parameters.

    Args:
        config: gives the encoder's shape and |z|, `program_size`.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config, config.program_size)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        return dist.Delta(full_precision(self.encoder(images)), event_dim=1)
