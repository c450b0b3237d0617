"""Images of which one knows that they are of one class: a model above an RNP.

With the prior `types`, for C classes: type_c ~ p(type), and for each image i of class c the
program z_i ~ p(z | type_c), which the RNP runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
from jaxtyping import Float
from pyro import poutine
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor
from torch.distributions import Distribution

from pyro_rnp import RNP, ParseTree
from pyro_rnp.priors import Types


class _Drawn(Reparam):
    """A site that is drawn from another distribution."""

    def __init__(self, fn: Distribution) -> None:
        self.fn = fn

    def apply(self, msg: Any) -> Any:
        return {**msg, "fn": self.fn}


@dataclass(frozen=True)
class SameClass:
    """Model and guide of images, the `each` of a class one after the other.

    Beside the RNP's sites there is `type`, (C, |z|), under the plate `classes`. Its guide is its
    exact posterior given the programs, so that it adds nothing to the bound's looseness or noise.
    """

    rnp: RNP
    each: int

    @property
    def prior(self) -> Types:
        return types(self.rnp)

    def model(self, images: Float[Tensor, "n c h w"]) -> ParseTree:
        """The classes' types, then the RNP's model of each image."""
        with pyro.plate("classes", len(images) // self.each, dim=-1):
            type = pyro.sample("type", self.prior.types())  # type: ignore[arg-type]
        tokens = self.prior.of_type(type.repeat_interleave(self.each, 0))
        with poutine.reparam(config={"z": _Drawn(tokens)}):
            return self.rnp.model(images)

    def guide(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The RNP's guide of each image, then the types."""
        z = self.rnp.guide(images)
        with pyro.plate("classes", len(images) // self.each, dim=-1):
            pyro.sample("type", self.prior.type_given(z.unflatten(0, (-1, self.each))))  # type: ignore[arg-type]
        return z


def types(rnp: RNP) -> Types:
    """A model's prior, if it knows what images of a class share.

    Raises:
        ValueError: if it does not.
    """
    if not isinstance(rnp.model.prior, Types):
        raise ValueError(
            f"The prior {rnp.config.prior} does not know what images of one class share; train "
            "with --prior types --drawings 2 or more."
        )
    return rnp.model.prior
