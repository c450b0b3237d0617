"""Guides: q(z^K | x).

A guide is a Pyro callable with the model's arguments that samples the site `z` under the plate
`images`, and whose `posterior(images)` is the distribution that it samples from.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch.nn.functional as F
from jaxtyping import Float
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.affine import full_precision
from pyro_rnp.checks import check_images
from pyro_rnp.config import RNPConfig
from pyro_rnp.encoder import Encoder
from pyro_rnp.params import register


class DiagonalNormal(nn.Module):
    """q(z^K | x) = Normal(loc(x), diag scale(x)^2), both from the encoder: the paper's guide."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, 2 * config.program_size)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """q(z^K | x): batch shape (N,), event shape (|z|,)."""
        loc, raw_scale = full_precision(self.encoder(images)).chunk(2, -1)
        return dist.Normal(loc, F.softplus(raw_scale) + 1e-4).to_event(1)

    def forward(self, images: Tensor, num_images: int | None = None) -> Tensor:
        """Sample the site `z`, (N, |z|), for images (N, C, H, W).

        Its density counts `kl_weight` times in training mode, as the prior's does in the model.

        Raises:
            ValueError: if the images are not of the shape and type that the configuration says.
        """
        register(self)
        check_images(images, self.config, values=False)
        weight = self.config.kl_weight if self.training else 1.0
        with pyro.plate("images", len(images), dim=-1), poutine.scale(scale=weight):
            return pyro.sample("z", self.posterior(images))  # type: ignore[arg-type]
