"""Priors on the top-level program.

A prior is a module whose call gives p(z^K), a distribution with event shape (|z|,) and batch
shape (); the model draws `z` from it under the plate of images.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.config import RNPConfig


class StandardNormal(nn.Module):
    """z^K ~ Normal(0, I), the paper's."""

    loc: Tensor

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(config.program_size), persistent=False)

    def forward(self) -> Distribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
