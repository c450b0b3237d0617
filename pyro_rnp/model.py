"""The recursive neural program in Pyro: the generative model, and model and guide in one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp import baselines, guides, likelihoods, priors, recursion  # noqa: F401 (they register)
from pyro_rnp.arguments import whole
from pyro_rnp.checks import Images, as_images, observed
from pyro_rnp.compiling import compiles
from pyro_rnp.config import OBJECTS, RNPConfig
from pyro_rnp.contract import (
    PYRO,
    DensitiesOnly,
    OwnSites,
    bind,
    check_event,
    check_object,
    conditioned,
    how_many,
    plates,
    sets_below,
    siblings_together,
)
from pyro_rnp.encoder import Encoder
from pyro_rnp.guides import Guide
from pyro_rnp.missing import Target, filled, independent, of_seen, split
from pyro_rnp.params import NAME, Registered
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.registry import object_text
from pyro_rnp.rendering import Renderer
from pyro_rnp.sites import PastRun, RandomSites, Scales, drawn, is_random, state_of
from pyro_rnp.trials import TRIALS, unseen

COMPILED = (Encoder, recursion.Recursion, baselines.FlatDecoder, Guide)
"""Modules with a method `compile` of their own, which `RNP.compile` calls."""
AT_ONCE = 1000
"""Programs that are run together where there are many."""


class Model(Registered):
    """The generative model p(x, z) as a Pyro callable.

    Sites, all under the plate `images`:

    - `z`, the program z^K, (N, |z|);
    - `a/0`, `a/0/2`, ..., the actions of parts and sub-parts, (N, 6), and their programs `z/0`,
      `z/0/2`, ..., (N, |z|), a part's action before its program; each is sampled where the
      configuration has it random (`RNPConfig.stochastic`) and deterministic otherwise;
    - `canvas`, the image before noise, (N, C, H, W), deterministic;
    - `x`, the image, (N, C, H, W); where pixels are missing, the value is 0 and the density is of
      the others;
    - in training mode with images also the auxiliary factor `part_term`, see `part_term`.

    Source: the paper, section 2 and Algorithm 1.

    Args:
        config: the model's shape and pieces.
        objects: pieces that stand in for those that `config` names, by field; by default none.
    """

    passing: ClassVar[dict[str, Any]] = {"_handed": None}

    def __init__(self, config: RNPConfig, objects: Mapping[str, Any] | None = None) -> None:
        super().__init__("model")
        self.config = config
        self.prior = config.make("prior", objects)
        self.scales = Scales(config)
        self.recursion = _program(config, objects)
        self.likelihood = config.make("likelihood", objects)
        self._warned = False
        self._handed: tuple[Tensor, PastRun] | None = None
        self._checked: tuple[nn.Module, ...] = ()
        """The prior and the likelihood that were found to keep their contracts."""

    def hand_over(self, z: Tensor, run: PastRun) -> None:
        """Keep a run of the guide, for the model to use once; the next one takes its place.

        Where levels below the top are random, the guide runs the recursion to propose their sites.
        A model that is replayed with exactly these values takes over the tree instead of computing
        it again; under an intervention, other values or other weights it runs by itself.

        Args:
            z: the value of the site `z`.
            run: its run.
        """
        self._handed = (z, run)

    def _past(self, z: Tensor, batch: torch.Size) -> PastRun | None:
        """A run that may be this one too: the guide's, or one in which nothing is random."""
        whole = z.shape[:-1] == batch
        if self._handed is not None and self._handed[0] is z:
            run, self._handed = self._handed[1], None
            if whole and run.state == state_of(self.recursion):
                return run
        if self.config.any_random or sets_below():
            return None
        tree = self.recursion(z.expand(*batch, -1).flatten(0, -2))
        if DensitiesOnly.open():
            return PastRun((), tree)
        return PastRun.determined(tree, batch, self.config)

    def forward(self, images: Images | None = None, num_images: Any = None) -> ParseTree:
        """Sample the program and all sites below it, and observe or sample the image.

        Args:
            images: (N, C, H, W) in [0, 1], NaN where a pixel is missing, observed at `x`; by
                default None, which samples `x`.
                Samples of a likelihood may lie beyond [0, 1]; `pyro.validation_enabled(False)` lets
                them pass as images.
            num_images: N where `images` is None, by default 1.

        Returns:
            The tree; under vectorised particles leading dimensions are flattened into one.

        Raises:
            TypeError: if the images are neither a tensor nor an array.
            ValueError: if `pyro_rnp.checks.observed` refuses the images, `num_images` is not
                positive or another number than theirs, the prior or the likelihood breaks its
                contract, a foreign site stands inside of the plate of images, or pixels are
                missing and those of the likelihood are not independent.
        """
        images = None if images is None else observed(images, self)
        n = how_many(images, num_images)
        self.check_pieces()
        self.register()
        prior = self.prior()  # outside of the plate: a latent of its own is drawn once, not N times
        with pyro.plate("images", n, dim=-1), OwnSites():
            z = pyro.sample("z", prior)
            batch = torch.broadcast_shapes(z.shape[:-1], plates())  # (N,), or (particles, N)
            named = None if DensitiesOnly.open() else self._named
            sites = RandomSites(
                self.config,
                self.scales,
                batch,
                pyro.sample,
                named,
                brief=named is None,
                together=siblings_together(),
            )
            run = self._past(z, batch)
            if run is not None and sites.repeats(run):
                tree = run.tree
            else:
                tree = self.recursion(z.expand(*batch, -1).flatten(0, -2), sites)
            canvas = tree.canvas.unflatten(0, batch)
            canvas = canvas if named is None else named("canvas", canvas, 3)
            canvas = canvas.expand(*batch, -1, -1, -1)
            tree = replace(tree, canvas=canvas.flatten(0, -4))
            likelihood, pixels = self._of_seen(self.likelihood(canvas), images)
            pyro.sample("x", likelihood, obs=pixels)
            if self.training and images is not None and self.config.part_weight:
                repeated = images.expand(*batch, *images.shape[1:]).flatten(0, -4)
                error = part_term(tree, repeated).view(batch)
                pyro.factor(
                    "part_term", -self.config.part_weight * error / (2 * self.config.sigma**2)
                )
        return tree

    def _of_seen(self, likelihood: Any, images: Tensor | None) -> tuple[Any, Tensor | None]:
        """The likelihood of the pixels that are seen, and images with 0 elsewhere."""
        if images is None or not (independent(likelihood) or images.isnan().any()):
            return likelihood, images
        pixels, seen = split(images)
        return likelihood if seen is None else of_seen(likelihood, seen), pixels

    def _named(self, name: str, value: Tensor, event_dim: int = 1) -> Tensor:
        """The value of a deterministic site, which `pyro.do` may have set."""
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
        """Raise unless prior and likelihood keep their contracts; later calls check new pieces.

        Raises:
            ValueError: if one gives no distribution, or one of other shapes.
        """
        if self._checked == (self.prior, self.likelihood):
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
        self._checked = (self.prior, self.likelihood)

    def run(self, z: Tensor) -> ParseTree:
        """Run programs without Pyro, with random sites below the top sampled.

        Args:
            z: programs z^K, (N, |z|).

        Returns:
            The tree of N images.
        """
        if not self.config.any_random:
            return self.recursion(z)

        def draw(_: str, distribution: Distribution) -> Tensor:
            return distribution.sample()

        return self.recursion(z, RandomSites(self.config, self.scales, z.shape[:-1], draw))


def _program(config: RNPConfig, objects: Mapping[str, Any] | None) -> Any:
    """The decoder of z^K, with a placement or a composition that is an object, if there is one."""
    given = [field for field in ("placement", "composition") if field in (objects or {})]
    if not given:
        return config.make("program")
    if config.program != "recursive":
        raise ValueError(f"The program {config.program} places no parts; leave out {given[0]}=.")
    return recursion.Recursion(config, Renderer(config, objects))


def part_term(tree: ParseTree, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """The squared error of the parents' own decodings of their parts.

    The decoding D_θ(h_state) of each part that is itself a program is compared with the glimpse of
    the image at the part's place, without a gradient through the target. The target comes from the
    image itself, so the term is auxiliary and not part of the generative model. A glimpse's pixel
    counts as far as the pixels of the image that it is interpolated from are seen.

    Source: the paper, equation (1).

    Args:
        tree: of N images.
        images: (N, C, H, W) in [0, 1], NaN where a pixel is missing.

    Returns:
        Squared errors, (N,), summed over pixels, averaged over the parts of a level and summed over
        levels.
    """
    error = torch.zeros_like(images[:, 0, 0, 0])
    for depth in range(1, tree.level):
        maps, parts = tree.matrices(depth), tree.nodes(depth)
        repeated = Target.of(images.detach().repeat_interleave(len(parts), 0))
        # Detached inputs, not no_grad, which a jit trace does not record.
        targets = repeated.seen_at(maps.detach().flatten(0, 1), parts[0].canvas.shape[-1])
        decodings = torch.stack([part.decoding for part in parts if part.decoding is not None], 1)
        wrong = targets.minus(decodings.flatten(0, 1)).pixels.view_as(decodings)
        error = error + wrong.square().sum((-3, -2, -1)).mean(1)
    return error


def _gradients(wanted: bool) -> torch.set_grad_enabled:
    """A context with gradients only where they are wanted and were on before."""
    return torch.set_grad_enabled(wanted and torch.is_grad_enabled())


class Conditioned(NamedTuple):
    """A model and its guide, both conditioned, as `RNP.condition` returns them."""

    model: Any
    """A Pyro callable in which the given sites are observed."""
    guide: Any
    """A Pyro callable that takes the given values as they are and does not sample them."""


class RNP(nn.Module):
    """A recursive neural program: a `model` and a `guide` for Pyro, parsing and sampling.

    >>> config = RNPConfig(image_size=8, patch_size=4, steps=(2, 2), program_size=3)
    >>> rnp = RNP(config, name="example")
    >>> tree = rnp.parse(torch.rand(5, 1, 8, 8))
    >>> tree.canvas.shape, tree[1][0].action.shape
    (torch.Size([5, 1, 8, 8]), torch.Size([5, 6]))

    Both Pyro callables work with any Pyro algorithm:

    >>> svi = pyro.infer.SVI(
    ...     rnp.model, rnp.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
    ... )
    >>> loss = svi.step(torch.rand(5, 1, 8, 8))

    Pieces may be objects of one's own. The configuration then says of which class they were, and
    `load` asks for them:

    >>> class Sparse(nn.Module):
    ...     def forward(self):
    ...         return pyro.distributions.Laplace(torch.zeros(3), 1.0).to_event(1)
    >>> rnp = RNP(config, "sparse", prior=Sparse())
    >>> rnp.sample(2).canvas.shape, rnp.config.prior.endswith('Sparse"')
    (torch.Size([2, 1, 8, 8]), True)

    Source: Fisher and Rao, "Recursive neural programs", arXiv 2206.08462.

    Args:
        config: the model's shape and pieces; by default the paper's for MNIST.
        name: the first part of the parameters' names in Pyro's parameter store,
            `name.model$$$...` and `name.guide$$$...`. Two models in use at one time need two names.
        prior: p(z^K), see `pyro_rnp.priors.Prior`. This piece and those below are used as they are
            and become part of the model; text names a piece as in `config`. By default the piece
            that `config` names.
        guide: q(z^K | x), see `pyro_rnp.guides.TopGuide`.
        lower_guide: of random sites below the top, see `pyro_rnp.guides.LowerGuide`.
        likelihood: p(x | canvas), see `pyro_rnp.likelihoods.Likelihood`.
        placement: of parts on a canvas, see `pyro_rnp.placements.Placement`.
        composition: of parts that overlap, see `pyro_rnp.compositions.Composition`.

    Raises:
        ValueError: if a piece refuses the configuration, such as a flow with |z| = 1, or an object
            is no piece, gives results of other shapes than its contract names, has no use in this
            model, or serves another RNP in a way that binds it. `pyro_rnp.check` tries the other
            laws of its contract too.
    """

    def __init__(
        self,
        config: RNPConfig | None = None,
        name: str = NAME,
        *,
        prior: Any = None,
        guide: Any = None,
        lower_guide: Any = None,
        likelihood: Any = None,
        placement: Any = None,
        composition: Any = None,
    ) -> None:
        super().__init__()
        pieces = (prior, guide, lower_guide, likelihood, placement, composition)
        given = {f: piece for f, piece in zip(OBJECTS, pieces, strict=True) if piece is not None}
        objects = {field: piece for field, piece in given.items() if not isinstance(piece, str)}
        for field, piece in objects.items():
            check_object(field, piece)
        texts = {**given, **{field: object_text(piece) for field, piece in objects.items()}}
        self.config = replace(RNPConfig() if config is None else config, **texts)
        if "lower_guide" in objects and not self.config.any_random:
            raise ValueError("A lower guide needs random sites below the top; set stochastic.")
        self.model = Model(self.config, objects)
        self.guide = Guide(self.config, objects)
        self.guide.attach(self.model)
        self.model.beside, self.guide.beside = (self.guide,), (self.model,)
        self.name = name
        for field, piece in self.pieces().items():
            if hasattr(piece, "attach"):
                bind(field, piece, self)
                piece.attach(self)
        self._try(objects)

    def _try(self, objects: Mapping[str, Any]) -> None:
        """Raise unless objects give results of the shapes of their contracts, on few made images.

        Those that keep the model, and may run it, are left to their first use; so are all while
        parts of the model are on several devices or have no numbers yet.

        Args:
            objects: pieces by field.

        Raises:
            ValueError: if one does not.
        """
        like = next(self.parameters())
        if {(p.device, p.dtype) for p in self.parameters()} != {(like.device, like.dtype)}:
            return
        if like.is_meta:
            return
        with PYRO, unseen(self), torch.no_grad():
            for field, piece in objects.items():
                if not hasattr(piece, "attach"):
                    TRIALS[field](piece, self.config).once(like=like)

    def compile(self, inference: bool = True, **options: Any) -> None:
        """Compile the recursion and the encoders in place, by `torch.compile`.

        The first call of each shape then takes a minute or two, and later calls less time than
        before; torch keeps what it compiled on disk. Results are equal to rounding. Runs in which
        sites are drawn, set or conditioned below the top are not compiled, but for those of the
        guide in the library's own training, which take several minutes to compile; runs that write
        weights again (`recompute_levels`) are not either. Compiled code gives no second
        derivatives, and no gradient of a canvas with respect to the programs and actions of its
        parts. Where `torch.compile` does not work, a warning says so and nothing changes.
        `copy.deepcopy` and `save` give a model that is not compiled.

        Args:
            inference: whether `parse`, `sample` and other runs without gradients are compiled too;
                by default true.
            options: as `torch.compile` takes them, such as `mode`.
        """
        if compiles(self.device, **options):
            for module in self.modules():
                if isinstance(module, COMPILED):
                    module.compile(inference, **options)

    def pieces(self) -> dict[str, Any]:
        """The pieces of this model by field, named or given as objects; those that it has."""
        renderer = getattr(self.model.recursion, "renderer", None)
        found = {
            "prior": self.model.prior,
            "guide": self.guide.top,
            "lower_guide": self.guide.lower,
            "likelihood": self.model.likelihood,
            "placement": getattr(renderer, "placement", None),
            "composition": getattr(renderer, "composition", None),
        }
        return {field: piece for field, piece in found.items() if piece is not None}

    @property
    def name(self) -> str:
        """The first part of the parameters' names in Pyro's parameter store."""
        return self.model.name

    @name.setter
    def name(self, name: str) -> None:
        self.model.name = self.guide.name = name

    def take_over(self) -> None:
        """Take over values that others put into Pyro's parameter store under this model's name.

        Model and guide do so by themselves whenever they run.

        Raises:
            ValueError: if a parameter there has another shape.
        """
        self.model.take_over()

    def condition(self, data: Mapping[str, Any]) -> Conditioned:
        """Condition model and guide on values of random sites, for any Pyro algorithm.

        >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2,), stochastic="actions"))
        >>> action = torch.tensor([0.3, 0.3, 0.0, 0.0, -0.5, 0.5])
        >>> model, guide = rnp.condition({"a/0": action})
        >>> adam, elbo = pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
        >>> loss = pyro.infer.SVI(model, guide, adam, elbo).step(torch.rand(2, 1, 8, 8))

        Args:
            data: values by the names of sites, (d,) for all images or (N, d), of any precision;
                actions in the units of `pyro_rnp.affine.UNITS`.

        Returns:
            The model, in which these sites are observed, and the guide, which takes the values and
            does not sample these sites.

        Raises:
            ValueError: if the model has no such site, the site is deterministic, or a value has
                another shape.
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

    def parse(self, images: Images, sample: bool = False, *, grad: bool = False) -> ParseTree:
        """Parse images: infer their programs by the guide and run them.

        Args:
            images: (N, C, H, W), a tensor or an array, as `pyro_rnp.checks.as_images` takes them:
                also (N, H, W) or (N, H, W, C); floats in [0, 1], NaN where a pixel is missing, or
                bytes.
            sample: draw z^K and all random sites below from the guide; by default false, which
                takes each distribution's centre, `pyro_rnp.sites.centre`.
            grad: whether the tree carries gradients, to the images and the parameters; by default
                false, so that `tree.canvas.numpy()` works and no graph is kept.

        Returns:
            The tree of N images.

        Raises:
            TypeError: if the images are neither a tensor nor an array.
            ValueError: if `check` refuses the images.
        """
        with PYRO, _gradients(grad):
            images = self.check(images)
            self.take_over()
            return self.guide.parse(images, sample)

    def encode(self, images: Images, *, grad: bool = False) -> Any:
        """The approximate posterior q(z^K | x) of images.

        Args:
            images: as `parse` takes them.
            grad: whether the distribution carries gradients; by default false.

        Returns:
            A distribution of `pyro.distributions` of batch shape (N,) and event shape (|z|,);
            `pyro_rnp.sites.centre` gives the programs that `parse` runs.

        Raises:
            TypeError: if the images are neither a tensor nor an array.
            ValueError: if `check` refuses the images.
        """
        with PYRO, _gradients(grad):
            images = self.check(images)
            self.take_over()
            return self.guide.posterior(images)

    def decode(
        self, z: Tensor | np.ndarray, sample: bool = False, *, grad: bool = False
    ) -> ParseTree:
        """Run programs.

        >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 2), program_size=3))
        >>> rnp.decode(torch.zeros(5, 3)).canvas.shape
        torch.Size([5, 1, 8, 8])

        Args:
            z: programs z^K, (N, |z|), a tensor or an array, such as the `program` of a tree.
            sample: draw random sites below the top; by default false, which takes the values that
                the networks predict for them.
            grad: whether the tree carries gradients; by default false.

        Returns:
            The tree of N images; its canvas is the image before noise.

        Raises:
            ValueError: if `z` has another shape or is not finite.
        """
        programs = self._programs("z", z, (2,))
        with PYRO, _gradients(grad):
            self.take_over()
            run = self.model.run if sample else self.model.recursion
            return ParseTree.join([run(some) for some in programs.split(AT_ONCE)])

    def interpolate(
        self, a: Tensor | np.ndarray, b: Tensor | np.ndarray, steps: int = 8, *, grad: bool = False
    ) -> ParseTree:
        """Run the programs on the straight line between two programs.

        >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 2), program_size=3))
        >>> a, b = rnp.parse(torch.rand(2, 1, 8, 8)).program
        >>> rnp.interpolate(a, b, 7).canvas.shape
        torch.Size([7, 1, 8, 8])

        Args:
            a: the first program, (|z|,), or one for each of N lines, (N, |z|), as the `program` of
                a tree.
            b: the last program, likewise.
            steps: programs on a line, with both ends, at least 2; by default 8.
            grad: whether the tree carries gradients; by default false.

        Returns:
            The tree of N * steps images, those of the first line first; `tree.split(steps)` gives a
            tree a line. Random sites below the top have the values that the networks predict.

        Raises:
            TypeError: if `steps` is no whole number.
            ValueError: if `steps` is below 2, or the programs are of another shape or not finite.
        """
        whole(2, steps=steps)
        first, last = self._programs("a", a, (1, 2)), self._programs("b", b, (1, 2))
        if first.ndim == last.ndim == 2 and len(first) != len(last):
            raise ValueError(f"a holds {len(first)} programs and b {len(last)}; give as many.")
        share = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device).unsqueeze(-1)
        line = torch.lerp(first.unsqueeze(-2), last.unsqueeze(-2), share)
        return self.decode(line.reshape(-1, self.config.program_size), grad=grad)

    def _programs(self, name: str, z: Any, ndims: tuple[int, ...]) -> Tensor:
        """Programs, checked, on the model's device and in its precision."""
        programs, size = torch.as_tensor(z).to(next(self.parameters())), self.config.program_size
        if programs.ndim not in ndims or programs.shape[-1] != size or not len(programs):
            wanted = f"(N, {size})" if ndims == (2,) else f"({size},) or (N, {size})"
            raise ValueError(f"{name} must have shape {wanted}, got {tuple(programs.shape)}.")
        if not programs.isfinite().all():
            raise ValueError(f"{name} must be finite, got NaN or infinity.")
        return programs

    def check(self, images: Images, first: int = 0) -> Tensor:
        """Check images, bring them into the model's form, and raise unless they are possible.

        Args:
            images: as `pyro_rnp.checks.as_images` takes them, on any device.
            first: the number of the first image, for messages; by default 0.

        Returns:
            (N, C, H, W) in [0, 1], NaN where a pixel is missing, of the model's precision and on
            its device.

        Raises:
            TypeError: if the images are neither a tensor nor an array.
            ValueError: if the images have another shape, type or range, there are none, one has no
                pixel that is seen, the likelihood cannot give them, or prior or likelihood breaks
                its contract.
        """
        found = as_images(images, self, first=first)
        with PYRO:
            self.model.check_pieces()
        pixels = filled(found)
        if not self.model.likelihood(pixels[:1]).support.check(pixels).all():
            raise ValueError(
                f"The likelihood {self.config.likelihood} gives no images like these: pixels must "
                "be 0 or 1 for bernoulli, and --binarize true makes them so."
            )
        return found

    def sample(self, num_images: int, *, grad: bool = False) -> ParseTree:
        """Sample programs from the prior and run them.

        Args:
            num_images: N, at least 1; programs run at most 1,000 at a time.
            grad: whether the tree carries gradients, which keeps the graph of all N runs; by
                default false.

        Returns:
            The tree of N images; its canvas is the image before noise.

        Raises:
            TypeError: if `num_images` is no whole number.
            ValueError: if `num_images` is not positive, or prior or likelihood breaks its contract.
        """
        whole(1, num_images=num_images)
        with PYRO, _gradients(grad):
            self.take_over()
            self.model.check_pieces()
            z = drawn(self.model.prior(), (num_images,))
            return ParseTree.join([self.model.run(some) for some in z.split(AT_ONCE)])

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device
