"""The contract of a prior p(z^K), and the paper's prior, the standard normal."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.config import RNPConfig
from pyro_rnp.registry import PRIORS


class Prior(nn.Module, ABC):
    """A prior on the top-level program: the contract of the pieces in `registry.PRIORS`.

    A prior that is chosen by name is made as `Prior(config, **options)`, where each option is a
    keyword-only argument with a default; an object may be made in any way. A class need not derive
    from this one; it needs `forward`.

    The model calls the prior outside of the plate of images, so that a `pyro.sample` in `forward`
    is one latent variable for all images, and then draws `z` under the plate. A prior with a method
    `attach(rnp)` receives the whole `RNP` once that is built.

    Laws, which `pyro_rnp.check` tries:

    - event shape (|z|,) and batch shape (), and the same distribution at each call;
    - samples and their log-probabilities are finite, in the precision and on the device of the
      module's parameters and buffers;
    - all that is learned is a parameter of the module and gets a finite gradient from the
      distribution, but for the names in `trained_elsewhere`;
    - latents of its own have other names than the model's sites (`z`, `a/0`, `x`, ...).

    >>> from pyro_rnp import RNP, RNPConfig
    >>> @PRIORS.add("wide")
    ... class Wide(Prior):
    ...     def __init__(self, config, *, scale=2.0):
    ...         super().__init__()
    ...         self.register_buffer("loc", torch.zeros(config.program_size))
    ...         self.scale = scale
    ...     def forward(self):
    ...         return dist.Normal(self.loc, self.scale).to_event(1)
    >>> RNP(RNPConfig(prior="wide:scale=3.0")).model.prior().variance.mean()
    tensor(9.)
    >>> del PRIORS.pieces["wide"]
    """

    trained_elsewhere: tuple[str, ...] = ()
    """Names of parameters that another term than this distribution trains."""

    @abstractmethod
    def forward(self) -> Distribution:
        """The distribution p(z^K).

        Returns:
            A distribution of `pyro.distributions` with event shape (|z|,) and batch shape (), which
            has `log_prob`, `expand`, and `rsample` or `sample`. Objectives in closed form need a
            KL that `torch.distributions.kl` knows; the others need none.
        """


@PRIORS.add("normal")
class StandardNormal(Prior):
    """z^K ~ Normal(0, I).

    Source: the paper, equation (1).

    Args:
        config: gives |z|, `program_size`.
    """

    loc: Tensor

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(config.program_size), persistent=False)

    def forward(self) -> Distribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
