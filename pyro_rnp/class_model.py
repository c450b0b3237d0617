"""A model above an RNP, for images of which one knows that they belong to one class.

With the prior `types`, for C classes: type_c ~ p(type), and for each image i of class c its program
z_i ~ p(z | type_c), which the RNP runs. Where the prior has a contrast, training adds an auxiliary
term, `class_term`.
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

from pyro_rnp.checks import Images
from pyro_rnp.model import RNP
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.priors import Types
from pyro_rnp.sites import centre


class _DrawnFrom(Reparam):
    """A site that is drawn from another distribution than the model names."""

    def __init__(self, fn: Distribution) -> None:
        self.fn = fn

    def apply(self, msg: Any) -> Any:
        return {**msg, "fn": self.fn}


@dataclass(frozen=True)
class SameClass:
    """Model and guide of images that come class by class.

    Beside the RNP's sites there is `type`, (C, |z|), under the plate `classes`. Its guide is its
    exact posterior given the programs, so it adds neither looseness nor noise to the bound.

    In training mode a prior with `decoded` = D has the RNP run on the first D images of each class
    alone. Their terms count each / D times, so that they stand for all; the others are encoded, for
    `class_term`. So a step encodes all images and decodes D of each class.

    Args:
        rnp: a model with the prior `types`.
        each: images of each class, which follow each other in a batch; the batch holds C * each.
    """

    rnp: RNP
    each: int

    @property
    def prior(self) -> Types:
        """The RNP's prior.

        Raises:
            ValueError: if it is not `types`.
        """
        return type_prior(self.rnp)

    @property
    def decoded(self) -> int:
        """How many images of each class the RNP runs on.

        Raises:
            ValueError: if the prior wants more than there are.
        """
        wanted = self.prior.decoded
        if wanted is None or not self.rnp.training:
            return self.each
        if wanted > self.each:
            raise ValueError(
                f"The prior decodes {wanted} images of each class, and a batch has {self.each}; "
                f"give types:decoded={self.each} at most, or more images of each class."
            )
        return wanted

    def model(self, images: Images) -> ParseTree:
        """Sample the classes' types, then run the RNP's model on the images.

        Args:
            images: (C * each, ch, H, W) in [0, 1], class by class.

        Returns:
            The tree of the images that the RNP runs on.
        """
        classes, decoded = len(images) // self.each, self.decoded
        with poutine.scale(scale=self.each / decoded):
            with pyro.plate("classes", classes, dim=-1):
                type = pyro.sample("type", self.prior.types())  # type: ignore[arg-type]
            tokens = self.prior.of_type(type.repeat_interleave(decoded, 0))
            with poutine.reparam(config={"z": _DrawnFrom(tokens)}):
                return self.rnp.model(self._split(images)[0])

    def guide(self, images: Images) -> Tensor:
        """Run the RNP's guide on the images, then sample the types.

        In training mode a factor adds `class_term` of the centres of q(z | x); the bound subtracts
        a guide's factors, hence its sign. With samples in place of centres the term would first
        have to outweigh their noise, and training makes all programs alike before it does.

        Args:
            images: as for `model`.

        Returns:
            The value of `z` of the images that the RNP runs on, (C * decoded, |z|).
        """
        each, decoded, prior = self.each, self.decoded, self.prior
        classes = pyro.plate("classes", len(images) // each, dim=-1)
        shown, others = self._split(images)
        with poutine.scale(scale=each / decoded):
            top: Any = poutine.trace(self.rnp.guide).get_trace(shown).nodes["z"]
            z = top["value"]
            with classes:
                pyro.sample("type", prior.type_given(z.unflatten(0, (-1, decoded))))
        if self.rnp.training and prior.contrast:
            centres = centre(top["fn"]).unflatten(0, (-1, decoded))
            if len(others):
                rest = centre(self.rnp.guide.posterior(others))
                centres = torch.cat([centres, rest.unflatten(0, (-1, each - decoded))], 1)
            term = class_term(prior, centres.flatten(0, 1), each)
            with classes:
                term = -prior.contrast * term.unflatten(0, (-1, each)).sum(1)
                pyro.factor("class_term", term, has_rsample=True)
        return z

    def _split(self, images: Images) -> tuple[Images, Tensor]:
        """The images that the RNP runs on, and the others."""
        decoded = self.decoded
        if decoded == self.each:
            return images, torch.empty(0)
        classes = self.rnp.check(images).unflatten(0, (-1, self.each))
        own, others = classes.split([decoded, self.each - decoded], 1)
        return own.flatten(0, 1), others.flatten(0, 1)


def class_term(prior: Types, z: Float[Tensor, "n z"], each: int) -> Float[Tensor, "n"]:
    """The log-probability that a program, told from the others by p(z' | z), is of its own class.

    One of the other programs of the batch is chosen, each with the same probability, and the
    program is drawn as an image of the chosen one's class; the term is the log of the posterior
    probability that the chosen program is of the same class. One-shot classification uses the prior
    in the same way. The term is discriminative and not part of the generative model.

    Source: neighbourhood components analysis (Goldberger et al., NeurIPS 2004), with p(z' | z) as
    the similarity.

    Args:
        prior: gives p(z' | z).
        z: programs, (N, |z|), class by class.
        each: programs of each class.

    Returns:
        Log-probabilities in nats, (N,), each at most 0.
    """
    like = prior.log_like(z, z)
    label = torch.arange(len(z), device=z.device) // each
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    like = like.masked_fill(itself, -torch.inf)
    others = like.masked_fill(label.unsqueeze(1) != label, -torch.inf)
    return others.logsumexp(1) - like.logsumexp(1)


def type_prior(rnp: RNP) -> Types:
    """The prior of a model that has learned which variation images of one class share.

    Args:
        rnp: a model with the prior `types`.

    Raises:
        ValueError: if it has another prior.
    """
    if not isinstance(rnp.model.prior, Types):
        raise ValueError(
            f"The prior {rnp.config.prior} does not know what images of one class share; train "
            "with --prior types --images_per_class 2 or more."
        )
    return rnp.model.prior
