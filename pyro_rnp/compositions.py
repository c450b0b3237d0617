"""Compositions: how patches that overlap share a canvas."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_rnp.config import RNPConfig
from pyro_rnp.registry import COMPOSITIONS


class Composition(ABC):
    """A rule for overlapping patches: the contract of the pieces in `registry.COMPOSITIONS`.

    A composition that is chosen by name is made as `Composition(config, **options)`; an object may
    be made in any way. The canvas is the sum over patches of the placed patch times its visible
    share, so that the summands are the parts' contributions.

    Laws, which `pyro_rnp.check` tries:

    - shares have the shape (parts, N, 1 or C, S, S), for any number of parts, and lie in [0, 1];
    - an image's shares depend on its own patches alone, and are the same at each call; arguments
      stay as they are;
    - numbers are finite, in the precision and on the device of the arguments; no site is drawn.

    Args:
        config: the model's configuration.
    """

    opaque = False
    """Whether a call receives covers."""

    def __init__(self, config: RNPConfig) -> None:
        self.config = config

    @abstractmethod
    def __call__(
        self,
        placed: Float[Tensor, "parts n c s s"],
        covers: Float[Tensor, "parts n 1 s s"] | None,
    ) -> Float[Tensor, "parts n _ s s"] | None:
        """The visible share of each patch at each pixel.

        Args:
            placed: the patches where they land, in the order in which the program places them.
            covers: where each patch covers the canvas at all, in [0, 1]; None unless `opaque`.

        Returns:
            Shares in [0, 1], for each channel or for all; None stands for ones.
        """


@COMPOSITIONS.add("sum")
class Sum(Composition):
    """Patches add up.

    Source: the paper, Algorithm 1.
    """

    def __call__(
        self,
        placed: Float[Tensor, "parts n c s s"],
        covers: Float[Tensor, "parts n 1 s s"] | None,
    ) -> Float[Tensor, "parts n _ s s"] | None:
        return None


@COMPOSITIONS.add("noisy_or")
class NoisyOr(Composition):
    """The canvas is 1 - prod(1 - patch), so that it stays below 1; earlier patches count first."""

    def __call__(
        self,
        placed: Float[Tensor, "parts n c s s"],
        covers: Float[Tensor, "parts n 1 s s"] | None,
    ) -> Float[Tensor, "parts n _ s s"]:
        left = (1 - placed).cumprod(0)
        return torch.cat([torch.ones_like(left[:1]), left[:-1]])


@COMPOSITIONS.add("over")
class Over(Composition):
    """Patches are opaque, blank or not, and later patches cover earlier ones."""

    opaque = True

    def __call__(
        self,
        placed: Float[Tensor, "parts n c s s"],
        covers: Float[Tensor, "parts n 1 s s"] | None,
    ) -> Float[Tensor, "parts n _ s s"]:
        assert covers is not None
        left = (1 - covers.flip(0)).cumprod(0).flip(0)  # what this patch and all later ones leave
        return torch.cat([left[1:], torch.ones_like(left[:1])])
