"""A prior that learns which variation images of one class share."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.arguments import whole, within
from pyro_rnp.config import RNPConfig
from pyro_rnp.precision import in_full_precision
from pyro_rnp.priors.base import StandardNormal
from pyro_rnp.registry import PRIORS


@PRIORS.add("types")
class Types(StandardNormal):
    """z^K ~ Normal(0, I) as z = type + token, where images of one class share their type.

    Along each of |z| learned orthonormal axes the type has a learned share s of the variance and
    the token the rest: type ~ Normal(0, s), token ~ Normal(0, 1 - s). A single image has a standard
    normal program whatever s and the axes are; training learns both where it knows which images
    belong to one class (see `pyro_rnp.class_model.SameClass`).

    Source: two-covariance probabilistic linear discriminant analysis (Ioffe, 2006; Brümmer and de
    Villiers, 2010), with the total covariance fixed at the identity.

    Args:
        config: gives |z|, `program_size`.
        contrast: weight of an auxiliary training term, `pyro_rnp.class_model.class_term`, in
            [0, 1e6]; 0 leaves the evidence lower bound as it is.
        decoded: how many images of each class a step of training decodes, in [1, 10,000]; the
            others enter the class term alone, which makes a step cheaper. None: all.

    Raises:
        ValueError: if an option is out of its range.
    """

    trained_elsewhere = ("logit", "turn")

    def __init__(
        self, config: RNPConfig, *, contrast: float = 0.0, decoded: int | None = None
    ) -> None:
        super().__init__(config)
        within(0, 1e6, contrast=contrast)
        if decoded is not None:
            whole(1, 10_000, decoded=decoded)
        self.contrast, self.decoded = contrast, decoded
        self.logit = nn.Parameter(torch.zeros(config.program_size))
        self.turn = nn.Parameter(torch.zeros(config.program_size, config.program_size))

    @property
    def share(self) -> Float[Tensor, "z"]:
        """The type's share of the variance along each axis, in (0, 1)."""
        return self.logit.sigmoid()

    @property
    def token(self) -> Float[Tensor, "z"]:
        """The token's share of the variance along each axis, 1 - `share`."""
        return (-self.logit).sigmoid()

    @property
    def axes(self) -> Float[Tensor, "z z"]:
        """The orthonormal axes, one in each row."""
        return torch.linalg.matrix_exp(self.turn - self.turn.mT)

    def types(self) -> Distribution:
        """The prior p(type) in coordinates along the axes: event shape (|z|,), batch shape ()."""
        return dist.Normal(self.loc, self.share.sqrt()).to_event(1)

    @in_full_precision
    def of_type(self, type: Float[Tensor, "... z"]) -> Distribution:
        """The distribution p(z | type) of the program of an image whose type is known.

        Args:
            type: types in coordinates along the axes, (..., |z|).

        Returns:
            A distribution of programs with batch shape (...) and event shape (|z|,).
        """
        return self._along(type, self.token)

    @in_full_precision
    def type_given(self, z: Float[Tensor, "... images z"]) -> Distribution:
        """The posterior p(type | z) given the programs of several images of each class.

        Args:
            z: programs, (..., images, |z|).

        Returns:
            A distribution of types, along the axes, with batch shape (...) and event shape (|z|,).
        """
        total = z.shape[-2] * self.share + self.token
        loc = self.share / total * (z @ self.axes.mT).sum(-2)
        return dist.Normal(loc, (self.share * self.token / total).sqrt()).to_event(1)

    @in_full_precision
    def like(self, z: Float[Tensor, "... z"]) -> Distribution:
        """The predictive p(z' | z) of the program of another image of the same class.

        Args:
            z: programs, (..., |z|).

        Returns:
            A distribution of programs with batch shape (...) and event shape (|z|,).
        """
        return self._along(self.share * (z @ self.axes.mT), self.token * (1 + self.share))

    @in_full_precision
    def log_like(
        self, z: Float[Tensor, "... t z"], known: Float[Tensor, "... e z"]
    ) -> Float[Tensor, "... t e"]:
        """The log-density log p(z' | z) of every pair of two sets of programs, in nats.

        Args:
            z: the programs z' that are scored, (..., T, |z|).
            known: the programs z that they are scored given, (..., E, |z|).

        Returns:
            Log-densities, (..., T, E).
        """
        variance, axes = self.token * (1 + self.share), self.axes
        scale = variance.rsqrt()
        here, there = scale * (z @ axes.mT), scale * self.share * (known @ axes.mT)
        far = torch.cdist(here, there).square() / 2
        return -far - (variance.log().sum() + z.shape[-1] * math.log(2 * math.pi)) / 2

    def _along(self, loc: Tensor, variance: Tensor) -> Distribution:
        """A normal of programs from means and variances along the axes."""
        axes = self.axes
        tril = torch.linalg.cholesky(axes.mT @ (variance.unsqueeze(-1) * axes))
        return dist.MultivariateNormal(loc @ axes, scale_tril=tril)
