"""Likelihoods of an image given its canvas.

A likelihood is a module whose call takes canvases (..., C, H, W) to p(x | canvas), a distribution
with event shape (C, H, W).
"""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.config import RNPConfig


class NormalLikelihood(nn.Module):
    """x ~ Normal(canvas, sigma), each pixel by itself: squared error over 2 sigma^2, in nats."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.sigma = config.sigma

    def forward(self, canvas: Tensor) -> Distribution:
        scale = canvas.new_full(
            (), self.sigma
        )  # a number would be copied to a device, and waited for
        return dist.Normal(canvas, scale).to_event(3)
