"""The VampPrior: a mixture of the guide's posteriors of learned pseudo-images."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import Distribution

from pyro_rnp.arguments import whole
from pyro_rnp.config import RNPConfig
from pyro_rnp.priors.base import Prior
from pyro_rnp.priors.mixture import Mixture
from pyro_rnp.registry import PRIORS


@PRIORS.add("vamp")
class VampPrior(Prior):
    """z^K ~ a mixture of the guide's q(z^K | u) over learned pseudo-images u in [0, 1].

    A guide without a density (`map`) gives points; each component is then a normal around its
    point, with one learned scale a dimension for all components.

    Source: Tomczak and Welling, "VAE with a VampPrior", AISTATS 2018; the mixture's weights are
    learned too.

    Args:
        config: gives the shape of an image.
        components: number of pseudo-images, in [1, 10,000].

    Raises:
        ValueError: if `components` is out of its range.
    """

    def __init__(self, config: RNPConfig, *, components: int = 50) -> None:
        super().__init__()
        whole(1, 10_000, components=components)
        shape = (components, config.channels, config.image_size, config.image_size)
        self.raw = nn.Parameter(torch.randn(shape) - 2)
        self.logits = nn.Parameter(torch.zeros(components))

    def attach(self, rnp: Any) -> None:
        """Keep the guide, whose posteriors are the components.

        Args:
            rnp: a `pyro_rnp.RNP`; its guide's parameters do not become the prior's.
        """
        self.guide = (rnp.guide,)
        with torch.no_grad():
            (z,) = (each := self._components()).event_shape
        if isinstance(each, dist.Delta):
            self.log_scale = nn.Parameter(torch.zeros(z))

    def _components(self) -> Distribution:
        return self.guide[0].proposal(self.raw.sigmoid())

    def forward(self) -> Distribution:
        each = self._components()
        if isinstance(each, dist.Delta):
            each = dist.Normal(each.v, self.log_scale.exp()).to_event(1)
        return Mixture(dist.Categorical(logits=self.logits), each)
