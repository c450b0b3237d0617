"""The contract of a guide q(z^K | x), and the Pyro callable that samples all sites from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, cast

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.checks import Images, observed
from pyro_rnp.compiling import Compiled
from pyro_rnp.config import RNPConfig
from pyro_rnp.contract import (
    DensitiesOnly,
    Drawn,
    OwnSites,
    check_event,
    how_many,
    plates,
    siblings_together,
)
from pyro_rnp.guides.masked import MaskedGuide
from pyro_rnp.missing import Target, filled
from pyro_rnp.params import Registered
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.precision import full_precision, plain_autograd
from pyro_rnp.sites import (
    Draw,
    FromNoise,
    PastRun,
    Propose,
    RandomSites,
    Site,
    beside,
    centre,
    drawn,
    group_name,
    groups,
    settle,
    state_of,
)


class TopGuide(nn.Module, ABC):
    """A guide of the top-level program: the contract of the pieces in `registry.GUIDES`.

    A guide that is chosen by name is made as `TopGuide(config, **options)`, where each option is a
    keyword-only argument with a default; an object may be made in any way. A class need not derive
    from this one; it needs `posterior`.

    A `pyro.sample` in `posterior` stands outside of the plate of images. A guide with a method
    `proposal(images)` offers with it a cheaper posterior, which runs no model, to the prior `vamp`.
    A guide with a method `attach(rnp)` receives the whole `RNP` once that is built.

    Laws, which `pyro_rnp.check` tries:

    - event shape (|z|,) and batch shape (N,) for any N of at least 1; images stay as they are;
    - the same distribution for the same images, and, in evaluation mode, for an image by itself as
      beside others; in double precision to six digits;
    - samples and their log-probabilities are finite, in the precision and on the device of the
      images, also with NaN at missing pixels where `sees_missing` is true;
    - all that is learned is a parameter of the module and gets a finite gradient;
    - latents of its own have other names than the model's sites (`z`, `a/0`, `x`, ...).
    """

    sees_missing = False
    """Whether `posterior` receives missing pixels as NaN; by default as 0."""

    @abstractmethod
    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The approximate posterior q(z^K | x).

        Args:
            images: (N, C, H, W) in [0, 1].

        Returns:
            A distribution of `pyro.distributions` with batch shape (N,) and event shape (|z|,). It
            has `log_prob` and `rsample`, which the objectives of training need; Pyro's own
            estimators, parsing and queries work with `sample`. Its centre is its `mean`, or the
            mean of 64 samples where it has none.
        """


def positive(raw: Tensor) -> Tensor:
    """An encoder's output as a scale, softplus(raw) + 1e-4.

    Args:
        raw: unbounded numbers, of any shape.
    """
    return F.softplus(raw) + 1e-4


class Guide(Registered):
    """The guide as a Pyro callable with the model's arguments.

    It samples `z` from the configuration's guide and, where levels below the top are random, their
    sites from its lower guide; all sites stand under the plate `images`, in the model's order.

    Args:
        config: names the guides, `guide`, `lower_guide` and `masked_guide`.
        objects: pieces that stand in for those names, by field; by default none.
    """

    passing: ClassVar[dict[str, Any]] = {"_compiled": None}
    settled_share: float | None = None
    """In training mode, the probability in [0, 1] with which all random sites of an image below the
    top take their predictions, as if the model determined them, at no cost in KL; drawn anew at
    each call as a Pyro program. By default it is None, which settles none. With `FreeBits_ELBO` the
    mean KL over a batch, from which that objective takes its floor, counts settled images too."""

    def __init__(self, config: RNPConfig, objects: Mapping[str, Any] | None = None) -> None:
        super().__init__("guide")
        self.config = config
        self.top = config.make("guide", objects)
        self.lower = config.make("lower_guide", objects) if config.any_random else None
        self.masked = None if config.masked_guide is None else MaskedGuide(config)
        """The guide that has seen masks, last, so that all others begin as they do without it."""
        self._compiled: Compiled | None = None

    def compile(self, inference: bool = True, **options: Any) -> None:
        """Compile, in place, runs that draw random sites below the top in training.

        Args:
            inference: whether runs without gradients are compiled too; by default true.
            options: as `torch.compile` takes them.
        """
        if self.config.any_random:
            self._compiled = Compiled(torch.compile(self._from_noise, **options), inference)

    def attach(self, model: Any) -> None:
        """Keep the model, which runs the programs.

        Args:
            model: a `pyro_rnp.model.Model`; its parameters do not become the guide's.
        """
        self.model = (model,)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The approximate posterior q(z^K | x).

        Args:
            images: (N, C, H, W) in [0, 1], NaN where a pixel is missing.

        Returns:
            A distribution with batch shape (N,), or (particles, N) where the guide samples sites of
            its own under particles, and event shape (|z|,).

        Raises:
            ValueError: if the configuration's guide gives anything else.
        """
        looked_at = images if getattr(self.top, "sees_missing", False) else filled(images)
        posterior = self.top.posterior(looked_at)
        particles = tuple(getattr(posterior, "batch_shape", ()))[:-1]  # of what it draws of its own
        check_event("guide", posterior, (self.config.program_size,), (*particles, len(images)))
        return posterior

    def proposal(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The posterior without steps that run the model, such as those of `Refined`.

        Args:
            images: (N, C, H, W) in [0, 1], none of whose pixels is missing.

        Returns:
            A distribution with batch shape (N,) and event shape (|z|,).
        """
        return getattr(self.top, "proposal", self.top.posterior)(images)

    def seen_posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The approximate posterior q(z^K | the pixels that are seen).

        Images that miss no pixel have the posterior of whole images.

        Args:
            images: (N, C, H, W) in [0, 1], NaN where a pixel is hidden.

        Returns:
            A distribution with batch shape (N,) and event shape (|z|,).

        Raises:
            ValueError: if the configuration names no `masked_guide`.
        """
        if self.masked is None:
            raise ValueError(
                "This model has no guide that has seen masks; train one with "
                "--mask_training halves,blocks."
            )
        hidden, masked = images.isnan().flatten(1).any(1), self.masked.posterior(images)
        if hidden.all():
            return masked
        return dist.MaskedMixture(hidden, self.posterior(images), masked)

    def forward(self, images: Images | None = None, num_images: Any = None) -> Tensor:
        """Sample the site `z` and all random sites below the top.

        To draw new images like given ones, use `Predictive(poutine.uncondition(rnp.model),
        guide=rnp.guide, num_samples=...)(images)`.

        Args:
            images: (N, C, H, W) in [0, 1], NaN where a pixel is missing.
            num_images: N or None, as the model takes it.

        Returns:
            The value of `z`, (N, |z|), or (particles, N, |z|) under vectorised particles.

        Raises:
            TypeError: if the images are neither a tensor nor an array.
            ValueError: if there are no images, `pyro_rnp.checks.observed` refuses them, or
                `num_images` is another number than theirs.
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
                run = self._run(whole, images, pyro.sample)
                if plain_autograd():
                    self.model[0].hand_over(z, run)
        return z

    def below(self, z: Tensor, images: Tensor, draw: Draw) -> ParseTree:
        """Run programs z^K, with the random sites below the top drawn from the lower guide.

        Args:
            z: programs, (..., N, |z|).
            images: (N, C, H, W) in [0, 1], NaN where a pixel is missing.
            draw: gives a random site's value from its name and distribution.

        Returns:
            The tree, with leading dimensions flattened into one.
        """
        return self._run(z, images, draw).tree

    def _run(self, z: Tensor, images: Tensor, draw: Draw) -> PastRun:
        (model,), batch, lower = self.model, z.shape[:-1], self.lower
        if lower is None:
            return PastRun((), model.recursion(z.flatten(0, -2)))
        repeated = images.expand(*batch, *images.shape[1:]).flatten(0, len(batch) - 1)
        features, settled = lower.look(filled(repeated)), None
        traced = draw is pyro.sample
        if traced and self.training and self.settled_share is not None:
            settled = torch.rand(batch, device=z.device) < self.settled_share
        target = repeated if lower.glimpses else None
        sites = RandomSites(
            self.config,
            model.scales,
            batch,
            draw,
            propose=partial(lower, features=features),
            brief=not traced or DensitiesOnly.open() is not None,
            together=traced and siblings_together(),
            settled=settled,
        )
        run, compiled, recursion = None, self._compiled, model.recursion
        able = sites.together and not recursion.recompute_levels
        if able and compiled is not None and compiled.now():
            run = self._compiled_run(z, target, features, settled)
            with Drawn(run.values):
                run = run if sites.repeats(run) else None
        if run is None:
            run = PastRun(sites.met, recursion(z.flatten(0, -2), sites, target))
        run.state = state_of(recursion) if plain_autograd() else None
        return run

    def _from_noise(
        self,
        z: Tensor,
        target: Target | None,
        features: Any,
        noise: list[Tensor],
        settled: Tensor | None,
    ) -> tuple[Tensor, Any, list[Any]]:
        """A run of tensors alone: canvas, parts and, of each group of random sites, its numbers."""
        assert self.lower is not None
        (model,), propose = self.model, cast(Propose, partial(self.lower, features=features))
        propose = propose if settled is None else settle(propose, settled)
        sites = FromNoise(self.config, model.scales, propose, noise)
        canvas, parts = model.recursion.run_top(z, sites, target)
        return canvas, parts, sites.met

    def _compiled_run(
        self, z: Tensor, images: Tensor | None, features: Any, settled: Tensor | None
    ) -> PastRun:
        """A run of programs z^K, (..., N, |z|), by compiled code, with siblings' sites together."""
        assert self._compiled is not None
        (model,), batch, c = self.model, z.shape[:-1], self.config
        found = groups(c, model.recursion.levels)
        random = [(kind, paths) for kind, paths in found if c.random(kind, len(paths[0]))]
        like, noise = full_precision(z), []
        for kind, paths in random:  # as `RandomSites` would draw it
            shape = (len(paths), 6 if kind == "a" else c.program_size)
            drawn = torch.randn(*batch, *shape, dtype=like.dtype, device=like.device)
            if settled is not None:
                drawn = drawn.masked_fill(settled[..., None, None], 0)
            noise.append(drawn.movedim(-2, 0).flatten(0, -2))
        target = None if images is None else Target.of(images)
        flat = z.flatten(0, -2)
        rows = None if settled is None else settled.flatten()
        canvas, parts, met = self._compiled.run(flat, target, features, noise, rows)
        sites = []
        for (kind, paths), numbers in zip(random, met, strict=True):
            several = len(paths) > 1
            predicted, mean, scale, value = (
                beside(x, len(paths), batch) if several else x.unflatten(0, batch) for x in numbers
            )
            name = group_name(kind, paths)
            sites.append(Site(name, kind, paths[0], predicted, value, 1 + several, mean, scale))
        return PastRun(sites, model.recursion.tree(flat, canvas, parts))

    def parse(self, images: Tensor, sample: bool) -> ParseTree:
        """Run the programs that the guide infers, without Pyro.

        Args:
            images: (N, C, H, W) in [0, 1], NaN where a pixel is missing.
            sample: draw all random values instead of taking each distribution's centre.

        Returns:
            The tree of N images.
        """
        posterior = self.posterior(images)

        def draw(_: str, distribution: Distribution) -> Tensor:
            return drawn(distribution) if sample else centre(distribution)

        return self.below(draw("z", posterior), images, draw)
