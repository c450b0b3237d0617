"""The RNP as a probabilistic program: p(x, z^K) and q(z^K | x), in Pyro."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp import baselines, guides, likelihoods, priors, recursion  # noqa: F401 (they register)
from pyro_rnp.affine import warp
from pyro_rnp.checks import Images, as_images, observed
from pyro_rnp.config import RNPConfig
from pyro_rnp.contract import PYRO, OwnSites, check_event, conditioned, how_many, plates
from pyro_rnp.guides import Guide
from pyro_rnp.params import NAME, Registered
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.registry import LIKELIHOODS, PRIORS, PROGRAMS
from pyro_rnp.sites import Handover, RandomSites, Scales, drawn, is_random


class Model(Registered):
    """The generative model, an ordinary Pyro callable.

    Sites, under the plate `images`: `z` the program z^K; `z/0`, `z/0/2`, ... the programs of parts
    and sub-parts and `a/0`, `a/0/2`, ... their actions, each drawn where the configuration has it
    random and deterministic otherwise, a part's action before its program; `canvas` the image
    before noise (deterministic); `x` the image. In training mode (`model.train()`) there is also
    the auxiliary factor `part_term`, see `part_term`.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__("model")
        self.config = config
        self.prior = PRIORS.make(config.prior, config)
        self.scales = Scales(config)
        self.recursion = PROGRAMS.make(config.program, config)
        self.likelihood = LIKELIHOODS.make(config.likelihood, config)
        self.handover: Handover | None = None
        """Passes the guide's run on to the model, while `one_run` lasts."""
        self._warned = False

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("prior", "likelihood"):
            self._checked = False  # a new piece has to keep its contract too

    @contextmanager
    def one_run(self) -> Iterator[None]:
        """Let the model use the guide's run of the recursion, instead of running it again.

        Where levels below the top are random, the guide runs the recursion to propose their sites;
        a model that is replayed with exactly these values would compute the same tree. A model
        under an intervention or other values runs by itself. Parameters must not change in between.
        """
        self.handover = Handover()
        try:
            yield
        finally:
            self.handover = None

    def forward(self, images: Images | None = None, num_images: Any = None) -> ParseTree:
        """Run the program.

        Args:
            images: (N, C, H, W) in [0, 1], observed at `x`; None samples them. Samples of the
                likelihood may lie beyond: `pyro.validation_enabled(False)` lets them pass.
            num_images: N, a number, where `images` is None; by default 1.

        Returns:
            The tree; under vectorised particles the leading dimensions are flattened into one.

        Raises:
            TypeError, ValueError: if the images are not what `pyro_rnp.checks.observed` takes,
                `num_images` is no number or another one than that of the images, the prior or the
                likelihood does not keep its contract, or a site of one's own stands inside of the
                plate of images.
        """
        images = None if images is None else observed(images, self)
        n = how_many(images, num_images)
        self.check_pieces()
        self.register()
        prior = self.prior()  # outside of the plate: a latent of its own is drawn once, not N times
        with pyro.plate("images", n, dim=-1), OwnSites():
            z = pyro.sample("z", prior)
            batch = torch.broadcast_shapes(z.shape[:-1], plates())  # (N,), or (particles, N)
            sites = RandomSites(self.config, self.scales, batch, pyro.sample, self._named)
            run = None if self.handover is None else self.handover.take()
            whole = z.shape[:-1] == batch
            if run is not None and whole and run.used("z", z) and sites.repeats(run):
                tree = run.tree
            else:
                tree = self.recursion(z.expand(*batch, -1).flatten(0, -2), sites)
            canvas = tree.canvas.unflatten(0, batch)
            canvas = self._named("canvas", canvas, 3).expand(*batch, -1, -1, -1)
            tree = replace(tree, canvas=canvas.flatten(0, -4))
            pyro.sample("x", self.likelihood(canvas), obs=images)
            if self.training and images is not None and self.config.part_weight:
                repeated = images.expand(*batch, *images.shape[1:]).flatten(0, -4)
                error = part_term(tree, repeated).view(batch)
                pyro.factor(
                    "part_term", -self.config.part_weight * error / (2 * self.config.sigma**2)
                )
        return tree

    def _named(self, name: str, value: Tensor, event_dim: int = 1) -> Tensor:
        """The value that a determined site takes, which `pyro.do` may have set."""
        if not self._warned and conditioned(name):
            self._warned = True
            warnings.warn(
                f"This model determines {name}: pyro.condition sets it, as pyro.do does, and what "
                "stands above does not learn of it. For its posterior use "
                f"inference.posterior.query(rnp, given={{{name!r}: value}}), or a model in which "
                "it is random (RNPConfig.stochastic) and rnp.condition.",
                stacklevel=2,
            )
        return pyro.deterministic(name, value, event_dim=event_dim)

    def check_pieces(self) -> None:
        """Raise unless prior and likelihood keep their contracts, once for each.

        Raises:
            ValueError: in one sentence, if one does not.
        """
        if self._checked:
            return
        c = self.config
        shape = (c.channels, c.image_size, c.image_size)
        devices = [p.device for p in self.parameters() if p.device.type == "cuda"][:1]
        like = next(self.parameters(), torch.zeros(()))
        with poutine.block(), torch.no_grad(), torch.random.fork_rng(devices):
            check_event("prior", self.prior(), (c.program_size,), ())
            with OwnSites():
                likelihood = self.likelihood(like.new_zeros(1, *shape))
            check_event("likelihood", likelihood, shape, (1,))
        self._checked = True

    def run(self, z: Tensor) -> ParseTree:
        """Run programs z^K, (N, |z|), with what is random below drawn; without Pyro."""

        def draw(_: str, distribution: Distribution) -> Tensor:
            return distribution.sample()

        return self.recursion(z, RandomSites(self.config, self.scales, z.shape[:-1], draw))


def part_term(tree: ParseTree, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """Squared error of the parents' own decodings of their parts (equation (1)).

    D_θ(h_state) of each part that is itself a program is held against the glimpse of the image at
    the part's place, with no gradient through the target; summed over pixels, averaged over the
    parts of a level, summed over levels. Its target comes from the image itself, so it is no part
    of the generative model.
    """
    error = torch.zeros_like(images[:, 0, 0, 0])
    for depth in range(1, tree.level):
        maps, parts = tree.matrices(depth), tree.nodes(depth)
        repeated = images.detach().repeat_interleave(len(parts), 0)
        # Detached inputs, not no_grad, which a jit trace does not record.
        targets = warp(repeated, maps.detach().flatten(0, 1), parts[0].canvas.shape[-1])
        decodings = torch.stack([part.decoding for part in parts if part.decoding is not None], 1)
        wrong = decodings - targets.view_as(decodings)
        error = error + wrong.square().sum((-3, -2, -1)).mean(1)
    return error


class Conditioned(NamedTuple):
    """A model and its guide, both conditioned."""

    model: Any
    guide: Any


class RNP(nn.Module):
    """A recursive neural program: `model` and `guide`, parsing and sampling.

    >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 2), program_size=3))
    >>> tree = rnp.parse(torch.rand(5, 1, 8, 8))
    >>> tree.canvas.shape, tree[1][0].action.shape
    (torch.Size([5, 1, 8, 8]), torch.Size([5, 6]))

    Args:
        config: its shape and pieces; by default the paper's for MNIST.
        name: of its parameters in Pyro's parameter store, which holds them as
            `name.model$$$...` and `name.guide$$$...`. Two models in use at one time want two names.
    """

    def __init__(self, config: RNPConfig | None = None, name: str = NAME) -> None:
        super().__init__()
        self.config = RNPConfig() if config is None else config
        self.model = Model(self.config)
        self.guide = Guide(self.config)
        self.guide.attach(self.model)
        self.model.beside, self.guide.beside = (self.guide,), (self.model,)
        self.name = name
        for piece in (self.guide.top, self.model.prior, self.model.likelihood):
            if hasattr(piece, "attach"):
                piece.attach(self)

    @property
    def name(self) -> str:
        """The name of its parameters in Pyro's parameter store."""
        return self.model.name

    @name.setter
    def name(self, name: str) -> None:
        self.model.name = self.guide.name = name

    def take_over(self) -> None:
        """Let values that Pyro's parameter store has under this model's name take effect.

        Model and guide do so by themselves whenever they are run.

        Raises:
            ValueError: if a parameter there has another shape.
        """
        self.model.take_over()

    def condition(self, data: Mapping[str, Any]) -> Conditioned:
        """Model and guide with some of the random sites at given values, for any Pyro algorithm.

        >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2,), stochastic="actions"))
        >>> action = torch.tensor([0.3, 0.3, 0.0, 0.0, -0.5, 0.5])
        >>> model, guide = rnp.condition({"a/0": action})
        >>> adam, elbo = pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
        >>> loss = pyro.infer.SVI(model, guide, adam, elbo).step(torch.rand(2, 1, 8, 8))

        Args:
            data: names of sites that the model draws to values, (d,) for all images or (N, d), of
                any precision.

        Returns:
            The model, in which these sites are observed, and the guide, which takes them as they
            are and no longer draws them.

        Raises:
            ValueError: if the model has no such site, determines it instead of drawing it, or
                draws values of another shape.
        """
        like, values = next(self.parameters()), {}
        for name, value in data.items():
            if not is_random(self.config, name):
                raise ValueError(
                    f"This model determines {name}, so it cannot be conditioned on it; use "
                    f"inference.posterior.query(rnp, given={{{name!r}: value}}), or pyro.do to "
                    "set it."
                )
            values[name] = torch.as_tensor(value).to(like)
            size, shape = 6 if name[0] == "a" else self.config.program_size, values[name].shape
            if len(shape) not in (1, 2) or shape[-1] != size:
                raise ValueError(
                    f"{name} must have shape ({size},) or (N, {size}), got {tuple(shape)}."
                )
        guide = poutine.block(pyro.condition(self.guide, values), hide=list(values))
        return Conditioned(pyro.condition(self.model, values), guide)

    def parse(self, images: Images, sample: bool = False) -> ParseTree:
        """Take images apart: run the programs at the guide's centre, or at a sample of it.

        The centre is the mean; of a flow, and of an action, what becomes of the mean before it.

        Args:
            images: (N, C, H, W) in [0, 1], a tensor or an array, looked at before use.
            sample: draw z^K, and what is random below, from the guide instead of taking the centre.

        Raises:
            ValueError: if the images have another shape, type or range, or are none.
        """
        images = self.check(images)
        with PYRO:
            self.take_over()
            return self.guide.parse(images, sample)

    def check(self, images: Images) -> Tensor:
        """Images as the model reads them; raise unless its likelihood can give them.

        Args:
            images: a tensor or an array, of any floating-point type, on any device.

        Returns:
            (N, C, H, W) in [0, 1], of the model's precision and on its device.

        Raises:
            TypeError: if the images are neither a tensor nor an array.
            ValueError: if the images have another shape, type or range, are none, or are such as
                the likelihood does not give; or if prior or likelihood break their contract.
        """
        found = as_images(images, self)
        with PYRO:
            self.model.check_pieces()
        if not self.model.likelihood(found[:1]).support.check(found).all():
            raise ValueError(
                f"The likelihood {self.config.likelihood} gives no images like these: pixels must "
                "be 0 or 1 for bernoulli, and --binarize true makes them so."
            )
        return found

    @torch.no_grad()
    def sample(self, num_images: int) -> ParseTree:
        """Draw programs from the prior and run them, at most 1,000 at a time, without gradients.

        Raises:
            ValueError: if `num_images` is not positive, or prior or likelihood break their
                contract.
        """
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {num_images}.")
        with PYRO:
            self.take_over()
            self.model.check_pieces()
            z = drawn(self.model.prior(), (num_images,))
            return ParseTree.join([self.model.run(some) for some in z.split(1000)])

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device
