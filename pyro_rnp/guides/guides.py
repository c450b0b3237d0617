"""Guides: q(z^K | x), and of all that is random below.

A guide of the top is a module, made from the configuration, with a method `posterior(images)`
that gives q(z^K | x): a distribution of Pyro's with batch shape (N,) and event shape (|z|,), with
`log_prob` and, so that the objectives here can train it, `rsample`. Pyro's own estimators, parsing
and queries do with `sample`. Where it has no `mean`, its centre is the mean of some samples. A
`pyro.sample` of its own inside of `posterior` stands outside of the plate of images. A guide with a
method `attach(rnp)` is shown the whole model once it is made. `Guide` makes a Pyro callable of it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pyro.distributions import transforms
from pyro.nn import ConditionalDenseNN
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    register_kl,
)

from pyro_rnp.affine import full_precision
from pyro_rnp.checks import Images, observed
from pyro_rnp.config import RNPConfig
from pyro_rnp.contract import OwnSites, check_event, how_many, plates
from pyro_rnp.encoder import Encoder
from pyro_rnp.params import Registered
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.priors import start_as_identity, turned
from pyro_rnp.registry import GUIDES, LOWER_GUIDES, within
from pyro_rnp.sites import Draw, RandomSites, Run, centre, drawn


@register_kl(MultivariateNormal, Independent)
@register_kl(LowRankMultivariateNormal, Independent)
def _kl_normal_independent(q: Any, p: Any) -> Tensor:
    """KL from a normal with covariance to a diagonal one, which torch does not have."""
    base = p.base_dist
    if not isinstance(base, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    apart = (q.variance + (q.mean - base.loc).square()) / base.variance
    cross_entropy = 0.5 * (apart + (2 * math.pi * base.variance).log()).sum(-1)
    return cross_entropy - q.entropy()


def positive(raw: Tensor) -> Tensor:
    """A number that an encoder gives, made a scale."""
    return F.softplus(raw) + 1e-4


@GUIDES.add("diagonal")
class DiagonalNormal(nn.Module):
    """q(z^K | x) = Normal(loc(x), diag scale(x)^2), both from the encoder: the paper's guide."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config, 2 * config.program_size)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """q(z^K | x): batch shape (N,), event shape (|z|,)."""
        loc, raw_scale = full_precision(self.encoder(images)).chunk(2, -1)
        return dist.Normal(loc, positive(raw_scale)).to_event(1)


@GUIDES.add("lowrank")
class LowRankNormal(nn.Module):
    """A normal with covariance diag + F F^T; F, of a few columns, from the encoder too.

    F starts small beside the diagonal.
    """

    def __init__(self, config: RNPConfig, *, rank: int = 4) -> None:
        super().__init__()
        within(1, 10_000, rank=rank)
        self.rank, z = rank, config.program_size
        self.encoder = Encoder(config, (2 + rank) * z)
        self.sizes = [z, z, rank * z]

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """q(z^K | x): batch shape (N,), event shape (|z|,)."""
        loc, raw_scale, factor = full_precision(self.encoder(images)).split(self.sizes, -1)
        columns = 0.1 * factor.unflatten(-1, (-1, self.rank))
        return dist.LowRankMultivariateNormal(loc, columns, positive(raw_scale).square())


@GUIDES.add("full")
class FullNormal(nn.Module):
    """A normal with any covariance: its Cholesky factor comes from the encoder."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        z = config.program_size
        self.sizes = [z, z, z * (z - 1) // 2]
        self.encoder = Encoder(config, sum(self.sizes))
        self.register_buffer("below", torch.tril_indices(z, z, -1), persistent=False)

    below: Tensor

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """q(z^K | x): batch shape (N,), event shape (|z|,)."""
        loc, raw_scale, factor = full_precision(self.encoder(images)).split(self.sizes, -1)
        lower = positive(raw_scale).diag_embed()
        lower[..., self.below[0], self.below[1]] = 0.1 * factor
        return dist.MultivariateNormal(loc, scale_tril=lower)


class ConditionalDense(ConditionalDenseNN):
    """Pyro's, in full precision, since densities hang on it."""

    def forward(self, x: Tensor, context: Tensor) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(full_precision(x), full_precision(context))


@GUIDES.add("flow")
class FlowGuide(DiagonalNormal):
    """The diagonal normal through affine coupling layers that see the image too.

    At the start they change nothing.

    Raises:
        ValueError: if |z| is 1, which leaves nothing to couple.
    """

    def __init__(self, config: RNPConfig, *, layers: int = 4, units: int = 64) -> None:
        super().__init__(config)
        within(1, 10_000, layers=layers, units=units)
        z, seen = config.program_size, config.encoder_units
        if z < 2:
            raise ValueError("A flow guide needs program_size of at least 2.")
        self.encoder = Encoder(config, 2 * z + seen)
        self.sizes = [z, z, seen]
        made = []
        for _ in range(layers):
            network = ConditionalDense(z // 2, seen, [units], [z - z // 2] * 2)
            start_as_identity(network.layers[-1])
            made.append(transforms.ConditionalAffineCoupling(z // 2, network))
        self.couplings = nn.ModuleList(made)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """q(z^K | x): batch shape (N,), event shape (|z|,)."""
        loc, raw_scale, seen = full_precision(self.encoder(images)).split(self.sizes, -1)
        couplings = [coupling.condition(F.elu(seen)) for coupling in self.couplings]  # type: ignore[operator]
        base = dist.Normal(loc, positive(raw_scale)).to_event(1)
        return dist.TransformedDistribution(base, turned(couplings, loc))


@GUIDES.add("map")
class MAP(nn.Module):
    """A point, from the encoder: the most probable program, with no uncertainty.

    It has no density, so there is no evidence lower bound; what is maximised is log p(x, z^K),
    which has a largest value only where the prior is not learned.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config, config.program_size)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """q(z^K | x): batch shape (N,), event shape (|z|,)."""
        return dist.Delta(full_precision(self.encoder(images)), event_dim=1)


@GUIDES.add("refined")
class Refined(DiagonalNormal):
    """The encoder's normal, refined for each image by gradient steps on its own lower bound.

    Semi-amortised inference (Kim et al., 2018). A step follows the natural gradient, the mean's
    times the variance, of the bound at one sample; the noise of each step's sample is drawn once
    for all images, so that an image has one posterior. What is random below the top stays where
    it is predicted. The encoder learns as if the refinement were a constant that is added to
    what it says. The steps follow the bound itself, whatever weight training gives to the KL.

    Args:
        steps: gradient steps for each image.
        rate: how far a step goes.
    """

    def __init__(self, config: RNPConfig, *, steps: int = 3, rate: float = 0.1) -> None:
        super().__init__(config)
        within(0, 10_000, steps=steps, rate=rate)
        self.rate = rate
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(steps, config.program_size, generator=generator)
        self.register_buffer("noise", noise, persistent=False)

    noise: Tensor

    def attach(self, rnp: Any) -> None:
        """Keep the model, whose parameters remain its own."""
        self.model = (rnp.model,)

    def proposal(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The normal that the encoder gives by itself."""
        return super().posterior(images)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """q(z^K | x): batch shape (N,), event shape (|z|,).

        Raises:
            NotImplementedError: under `torch.jit.trace`, which records no gradient steps.
        """
        if torch.jit.is_tracing() and len(self.noise):
            raise NotImplementedError(
                "The guide refined takes gradient steps, which torch.jit.trace cannot record; "
                "use an ELBO without Jit in its name."
            )
        start = self.proposal(images).base_dist  # type: ignore[attr-defined]
        (model,) = self.model
        with torch.enable_grad():
            loc, log_scale = start.loc.detach(), start.scale.detach().log()
            for noise in self.noise:
                loc, log_scale = loc.requires_grad_(), log_scale.requires_grad_()
                z = loc + log_scale.exp() * noise
                canvas = model.recursion(z).canvas
                bound = model.likelihood(canvas).log_prob(images) + model.prior().log_prob(z)
                bound = bound.sum() + log_scale.sum()
                towards, wider = torch.autograd.grad(bound, [loc, log_scale])
                variance = (2 * log_scale).exp()
                loc = (loc + self.rate * (variance * towards).clamp(-1, 1)).detach()
                log_scale = (log_scale + self.rate * (wider / 2).clamp(-1, 1)).detach()
        loc = start.loc + (loc - start.loc).detach()
        scale = start.scale * (log_scale.exp() / start.scale).detach()
        return dist.Normal(loc, scale).to_event(1)


class Guide(Registered):
    """The guide, an ordinary Pyro callable with the model's arguments.

    It samples `z` from the posterior of the guide that the configuration names and, where levels
    below are random, their sites from a lower guide, all under the plate `images` and in the
    model's order.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__("guide")
        self.config = config
        self.top = GUIDES.make(config.guide, config)
        self.lower = LOWER_GUIDES.make(config.lower_guide, config) if config.any_random else None

    def attach(self, model: Any) -> None:
        """Keep the model, whose parameters remain its own; the levels below are guided by it."""
        self.model = (model,)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """q(z^K | x): batch shape (N,), event shape (|z|,).

        Raises:
            ValueError: in one sentence, if the guide gives anything else.
        """
        posterior = self.top.posterior(images)
        particles = tuple(getattr(posterior, "batch_shape", ()))[:-1]  # of what it draws of its own
        check_event("guide", posterior, (self.config.program_size,), (*particles, len(images)))
        return posterior

    def proposal(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The same, as far as it takes no run of the model: without refinement."""
        return getattr(self.top, "proposal", self.top.posterior)(images)

    def forward(self, images: Images | None = None, num_images: Any = None) -> Tensor:
        """Sample the site `z`, (N, |z|), and what is random below, for images (N, C, H, W).

        New images like given ones are `Predictive(poutine.uncondition(rnp.model),
        guide=rnp.guide, num_samples=...)(images)`.

        Args:
            images: (N, C, H, W) in [0, 1].
            num_images: as the model has it; N or None.

        Raises:
            TypeError, ValueError: if there are no images, they are not what
                `pyro_rnp.checks.observed` takes, or `num_images` is another number.
        """
        if images is None:
            raise ValueError(
                "The guide needs images to look at, got None; what the model draws by itself is "
                "Predictive(rnp.model, num_samples=...)(None, num_images)."
            )
        images = observed(images, self)
        n = how_many(images, num_images)
        self.take_over()
        posterior = self.posterior(images)  # outside of the plate, as the model's prior
        self.register()
        with pyro.plate("images", n, dim=-1), OwnSites():
            z = pyro.sample("z", posterior)  # type: ignore[arg-type]
            batch = torch.broadcast_shapes(z.shape[:-1], plates())
            if self.lower is not None:
                whole = z if z.shape[:-1] == batch else z.expand(*batch, -1)
                self.below(whole, images, pyro.sample)
        return z

    def below(self, z: Tensor, images: Tensor, draw: Draw) -> ParseTree:
        """Run programs z^K, (..., N, |z|), with what is random below drawn from the lower guide.

        Returns:
            The tree, leading dimensions flattened into one.
        """
        (model,), batch = self.model, z.shape[:-1]
        lower, propose, target = self.lower, None, None
        if lower is not None:
            repeated = images.expand(*batch, *images.shape[1:]).flatten(0, len(batch) - 1)
            propose = partial(lower, features=lower.look(repeated))
            target = repeated if lower.glimpses else None
        sites = RandomSites(self.config, model.scales, batch, draw, propose=propose)
        tree = model.recursion(z.flatten(0, -2), sites, target)
        if model.sharing and draw is pyro.sample:
            model.shared = Run(z, sites.met, tree)
        return tree

    def parse(self, images: Tensor, sample: bool) -> ParseTree:
        """Run the guide without Pyro: at its centre, or at a sample of it."""
        posterior = self.posterior(images)

        def draw(_: str, distribution: Distribution) -> Tensor:
            return drawn(distribution) if sample else centre(distribution)

        return self.below(draw("z", posterior), images, draw)
