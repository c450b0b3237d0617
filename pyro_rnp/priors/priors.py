"""Priors on the top-level program.

A prior is a module, made from the configuration, whose call gives p(z^K): a distribution of Pyro's
with event shape (|z|,) and batch shape (), with `log_prob`, `expand`, and `rsample` or `sample`.
The model draws `z` from it under the plate of images. The call itself stands outside of the plate,
so that a `pyro.sample` in it is one latent for all images. A prior with a method `attach(rnp)` is
shown the whole model once it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.nn import DenseNN
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from pyro_rnp.affine import full_precision
from pyro_rnp.config import RNPConfig
from pyro_rnp.registry import PRIORS, within


@PRIORS.add("normal")
class StandardNormal(nn.Module):
    """z^K ~ Normal(0, I), the paper's."""

    loc: Tensor

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(config.program_size), persistent=False)

    def forward(self) -> Distribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)


@PRIORS.add("studentt")
class StudentT(StandardNormal):
    """z^K ~ Student's t in each dimension: heavier tails than the normal's, the lower `df` is.

    Args:
        df: degrees of freedom.
    """

    def __init__(self, config: RNPConfig, *, df: float = 4.0) -> None:
        super().__init__(config)
        within(0.1, 1e6, df=df)
        self.df = df

    def forward(self) -> Distribution:
        return dist.StudentT(torch.full_like(self.loc, self.df), self.loc).to_event(1)


def in_full_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of tensors, none of which autocast makes less of than float32."""

    @wraps(method)
    def careful(self: Any, *tensors: Tensor) -> Any:
        with torch.autocast(tensors[0].device.type, enabled=False):
            return method(self, *map(full_precision, tensors))

    return careful


@PRIORS.add("types")
class Types(StandardNormal):
    """z^K ~ Normal(0, I), and images of one class are alike: z = type + token.

    Along each of |z| axes, which are learned too, a share of the variance, learned, is the type's,
    which all images of a class have in common; the rest is each image's own. Of single images
    this is the standard normal: shares and axes are learned where training is told which images
    are of one class (`--drawings`).

    Args:
        contrast: weight of an auxiliary factor of training, see `pyro_rnp.class_model.class_term`;
            0 is the evidence lower bound alone.
    """

    def __init__(self, config: RNPConfig, *, contrast: float = 0.0) -> None:
        super().__init__(config)
        within(0, 1e6, contrast=contrast)
        self.contrast = contrast
        self.logit = nn.Parameter(torch.zeros(config.program_size))
        self.turn = nn.Parameter(torch.zeros(config.program_size, config.program_size))

    @property
    def share(self) -> Tensor:
        """The type's share of the variance along each axis, (|z|,), between 0 and 1."""
        return self.logit.sigmoid()

    @property
    def token(self) -> Tensor:
        """The rest."""
        return (-self.logit).sigmoid()

    @property
    def axes(self) -> Tensor:
        """The axes, orthonormal, a row each: (|z|, |z|)."""
        return torch.linalg.matrix_exp(self.turn - self.turn.mT)

    def types(self) -> Distribution:
        """p(type), before anything is known; types are in coordinates along the axes."""
        return dist.Normal(self.loc, self.share.sqrt()).to_event(1)

    @in_full_precision
    def of_type(self, type: Tensor) -> Distribution:
        """p(z | type) of an image, for types (..., |z|)."""
        return self._along(type, self.token)

    @in_full_precision
    def type_given(self, z: Tensor) -> Distribution:
        """p(type | z) for the programs of several images of each class, (..., images, |z|)."""
        total = z.shape[-2] * self.share + self.token
        loc = self.share / total * (z @ self.axes.mT).sum(-2)
        return dist.Normal(loc, (self.share * self.token / total).sqrt()).to_event(1)

    @in_full_precision
    def like(self, z: Tensor) -> Distribution:
        """p(z' | z) of another image of the same class, for programs (..., |z|)."""
        return self._along(self.share * (z @ self.axes.mT), self.token * (1 + self.share))

    @in_full_precision
    def log_like(self, z: Tensor, known: Tensor) -> Tensor:
        """Log p(z' | z) of each of the programs (..., T, |z|) given each of (..., E, |z|): TxE."""
        variance, axes = self.token * (1 + self.share), self.axes
        scale = variance.rsqrt()
        here, there = scale * (z @ axes.mT), scale * self.share * (known @ axes.mT)
        far = torch.cdist(here, there).square() / 2
        return -far - (variance.log().sum() + z.shape[-1] * math.log(2 * math.pi)) / 2

    def _along(self, loc: Tensor, variance: Tensor) -> Distribution:
        """A normal of z from its mean and variances along the axes."""
        axes = self.axes
        tril = torch.linalg.cholesky(axes.mT @ (variance.unsqueeze(-1) * axes))
        return dist.MultivariateNormal(loc @ axes, scale_tril=tril)


class Dense(DenseNN):
    """Pyro's, in full precision, since densities hang on it."""

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(full_precision(x))


class Mixture(dist.MixtureSameFamily):
    """Pyro's, for components that do not broadcast what they score by themselves.

    The components' support is all vectors, and so is the mixture's. Pyro's own states it as a
    constraint of a kind that `biject_to`, and with it NUTS and the automatic guides, cannot use.
    """

    support = constraints.real_vector

    def _pad(self, x: Tensor) -> Tensor:
        x = super()._pad(x)
        return x.expand(*x.shape[:-2], self._num_component, x.shape[-1])


@PRIORS.add("mixture")
class GaussianMixture(nn.Module):
    """z^K ~ a mixture of diagonal normals with learned weights, means and scales.

    At the start the means are drawn from Normal(0, I), with scales of one.
    """

    def __init__(self, config: RNPConfig, *, components: int = 20) -> None:
        super().__init__()
        within(1, 10_000, components=components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, config.program_size))
        self.log_scale = nn.Parameter(torch.zeros(components, config.program_size))

    def forward(self) -> Distribution:
        each = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return Mixture(dist.Categorical(logits=self.logits), each)


@PRIORS.add("vamp")
class VampPrior(nn.Module):
    """z^K ~ the mean of q(z^K | u) over learned pseudo-images u (Tomczak and Welling, 2018).

    For a guide without a density (`map`) each component is a normal around its point, with one
    learned scale a dimension.
    """

    def __init__(self, config: RNPConfig, *, components: int = 50) -> None:
        super().__init__()
        within(1, 10_000, components=components)
        shape = (components, config.channels, config.image_size, config.image_size)
        self.raw = nn.Parameter(torch.randn(shape) - 2)
        self.logits = nn.Parameter(torch.zeros(components))

    def attach(self, rnp: Any) -> None:
        """Keep the guide, whose parameters remain its own."""
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


@PRIORS.add("flow")
class Flow(StandardNormal):
    """z^K ~ a normalising flow: Normal(0, I) through Pyro's affine coupling layers.

    At the start it is Normal(0, I).

    Raises:
        ValueError: if |z| is 1, which leaves nothing to couple.
    """

    def __init__(self, config: RNPConfig, *, layers: int = 4, units: int = 64) -> None:
        super().__init__(config)
        within(1, 10_000, layers=layers, units=units)
        z = config.program_size
        if z < 2:
            raise ValueError("A flow prior needs program_size of at least 2.")
        self.networks = nn.ModuleList(
            Dense(z // 2, [units], [z - z // 2] * 2) for _ in range(layers)
        )
        for network in self.networks:
            start_as_identity(network.layers[-1])  # type: ignore[index, arg-type]

    def forward(self) -> Distribution:
        # Made afresh: a coupling remembers what last went through it.
        split = self.loc.shape[-1] // 2
        couplings = [transforms.AffineCoupling(split, network) for network in self.networks]
        return dist.TransformedDistribution(super().forward(), turned(couplings, self.loc))


def start_as_identity(last: nn.Module) -> None:
    """Set the last layer of a coupling's network to zero: no shift, and a scale of one."""
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def turned(couplings: Iterable[nn.Module], loc: Tensor) -> list[Any]:
    """The couplings, with the dimensions in reverse order after each, so that all are changed."""
    reverse = torch.arange(loc.shape[-1] - 1, -1, -1, device=loc.device)
    return [step for coupling in couplings for step in (coupling, transforms.Permute(reverse))]
