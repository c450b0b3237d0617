"""A prior with heavier tails than the normal's."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch.distributions import Distribution

from pyro_rnp.arguments import within
from pyro_rnp.config import RNPConfig
from pyro_rnp.priors.base import StandardNormal
from pyro_rnp.registry import PRIORS


@PRIORS.add("studentt")
class StudentT(StandardNormal):
    """z^K ~ Student's t with location 0 and scale 1, each dimension by itself.

    Args:
        config: gives |z|, `program_size`.
        df: degrees of freedom, in [0.1, 1e6]; the lower, the heavier the tails.

    Raises:
        ValueError: if `df` is out of its range.
    """

    def __init__(self, config: RNPConfig, *, df: float = 4.0) -> None:
        super().__init__(config)
        within(0.1, 1e6, df=df)
        self.df = df

    def forward(self) -> Distribution:
        return dist.StudentT(torch.full_like(self.loc, self.df), self.loc).to_event(1)
