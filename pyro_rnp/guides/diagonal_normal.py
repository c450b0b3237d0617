"""The paper's guide: a diagonal normal."""

from __future__ import annotations

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from pyro_rnp.config import RNPConfig
from pyro_rnp.encoder import Encoder
from pyro_rnp.guides.base import TopGuide, positive
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import GUIDES


@GUIDES.add("diagonal")
class DiagonalNormal(TopGuide):
    """q(z^K | x) = Normal(loc(x), diag scale(x)^2), with loc and scale from one encoder.

    Source: the paper, section 2.1.

    Args:
        config: gives the encoder's shape and |z|, `program_size`.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config, 2 * config.program_size)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        loc, raw_scale = full_precision(self.encoder(images)).chunk(2, -1)
        return dist.Normal(loc, positive(raw_scale)).to_event(1)
