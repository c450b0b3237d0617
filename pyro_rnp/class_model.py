"""Images of which one knows that they are of one class: a model above an RNP.

With the prior `types`, for C classes: type_c ~ p(type), and for each image i of class c the
program z_i ~ p(z | type_c), which the RNP runs. Where the prior asks for contrast, what training
maximises has one more term, `class_term`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor
from torch.distributions import Distribution

from pyro_rnp import RNP, ParseTree
from pyro_rnp.checks import Images
from pyro_rnp.priors import Types
from pyro_rnp.sites import centre


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

    def model(self, images: Images) -> ParseTree:
        """The classes' types, then the RNP's model of each image."""
        classes = pyro.plate("classes", len(images) // self.each, dim=-1)
        with classes:
            type = pyro.sample("type", self.prior.types())  # type: ignore[arg-type]
        tokens = self.prior.of_type(type.repeat_interleave(self.each, 0))
        with poutine.reparam(config={"z": _Drawn(tokens)}):
            return self.rnp.model(images)

    def guide(self, images: Images) -> Tensor:
        """The RNP's guide of each image, then the types.

        In training there is the `class_term` of the posteriors' means, as a factor whose logarithm
        the bound takes off, hence its sign. (Of samples it would have to outweigh their noise from
        the first step on, and what learns first is to make all programs alike.)
        """
        top: Any = poutine.trace(self.rnp.guide).get_trace(images).nodes["z"]
        z = top["value"]
        with pyro.plate("classes", len(images) // self.each, dim=-1):
            pyro.sample("type", self.prior.type_given(z.unflatten(0, (-1, self.each))))
            if self.rnp.training and self.prior.contrast:
                term = class_term(self.prior, centre(top["fn"]), self.each)
                term = -self.prior.contrast * term.unflatten(0, (-1, self.each)).sum(1)
                pyro.factor("class_term", term, has_rsample=True)
        return z


def class_term(prior: Types, z: Float[Tensor, "n z"], each: int) -> Float[Tensor, "n"]:
    """Log-probability, for each program, that one of its class is what it is like.

    Of all other programs of the batch one is taken, each as probable, and the program drawn from
    p(z' | z) as an image of the same class; how probable is it that the one that was taken is of
    its class? Programs follow each other by class, `each` of one. This is how one-shot
    classification uses the prior, and no part of the generative model: a discriminative term that
    needs the classes' names, as neighbourhood components analysis has it (Goldberger et al., 2005).
    """
    like = prior.log_like(z, z)
    label = torch.arange(len(z), device=z.device) // each
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    like = like.masked_fill(itself, -torch.inf)
    others = like.masked_fill(label.unsqueeze(1) != label, -torch.inf)
    return others.logsumexp(1) - like.logsumexp(1)


def types(rnp: RNP) -> Types:
    """A model's prior, if it knows what images of a class share.

    Raises:
        ValueError: if it does not.
    """
    if not isinstance(rnp.model.prior, Types):
        raise ValueError(
            f"The prior {rnp.config.prior} does not know what images of one class share; train "
            "with --prior types --images_per_class 2 or more."
        )
    return rnp.model.prior
