"""Random sites below the top: the programs and actions of parts and sub-parts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, Literal, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.activations import ELU
from pyro_rnp.affine import Bounded, bounded, distinct
from pyro_rnp.config import RNPConfig
from pyro_rnp.parse_tree import ParseTree, Path, site_name
from pyro_rnp.precision import full_precision
from pyro_rnp.recursion import Sites

Kind = Literal["z", "a"]
"""The kind of a site: "z" for a program, "a" for an action."""
Draw = Callable[[str, Any], Tensor]
"""Gives a random site's value from its name and its distribution, of z^K's batch shape."""
Fixed = Callable[[str, Tensor], Tensor]
"""Gives the value that a deterministic site uses from its name and its value; may broadcast."""
Propose = Callable[[Kind, Path, Tensor, Tensor, "Tensor | None"], "tuple[Tensor, Tensor]"]
"""Gives a mean and a standard deviation from the arguments of `guides.LowerGuide.forward`."""


def sites(config: RNPConfig) -> dict[str, tuple[Kind, int]]:
    """The sites of programs and actions of a model, parts before sub-parts.

    >>> sites(RNPConfig(steps=(2,)))
    {'z': ('z', 0), 'a/0': ('a', 1), 'z/0': ('z', 1), 'a/1': ('a', 1), 'z/1': ('z', 1)}

    Args:
        config: gives the number of levels and steps.

    Returns:
        Kind and depth of each site by name; depth 0 is the top.
    """
    found: dict[str, tuple[Kind, int]] = {"z": ("z", 0)}
    for depth in range(1, config.depth + 1):
        for path in product(*(range(n) for n in config.steps[:depth])):
            found[site_name("a", path)] = ("a", depth)
            found[site_name("z", path)] = ("z", depth)
    return found


def is_random(config: RNPConfig, name: str) -> bool:
    """Whether the model draws a site, instead of determining its value from the sites above.

    Args:
        config: says which sites are random, `stochastic`.
        name: of a program or an action, such as `a/0/2`.

    Raises:
        ValueError: if there is no such site.
    """
    known = sites(config)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1, 0)
        raise ValueError(
            f"There is no site {name!r}; the closest is {close[0] if close else 'z'!r}. There are "
            f"{', '.join(known)}; parts count from 0."
        )
    kind, depth = known[name]
    return depth == 0 or config.random(kind, depth)


class Scales(nn.Module):
    """Standard deviations of random programs and actions around their predictions.

    One for each level; or, where `learn_scales` is "predicted", one for each number of a site, the
    level's times a factor that a network gives, which starts at 1.

    Args:
        config: gives `program_scale`, `action_scale` and, by `learn_scales`, whether the logarithms
            are parameters and whether there are networks, with `network_units` units.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.networks, self.places = nn.ModuleDict(), nn.ParameterDict()
        """Networks by kind and depth, and embeddings of the steps, (steps, units), likewise."""
        units = config.network_units
        kinds: list[tuple[Kind, float, int]] = [
            ("z", config.program_scale, config.program_size),
            ("a", config.action_scale, 6),
        ]
        for kind, scale, size in kinds:
            for depth in range(1, config.depth + 1):
                if not config.random(kind, depth):
                    continue
                value, name = torch.tensor(scale).log(), f"{kind}{depth}"
                if config.learn_scales:
                    self.register_parameter(name, nn.Parameter(value))
                else:
                    self.register_buffer(name, value, persistent=False)
                if config.learn_scales == "predicted":
                    last = nn.Linear(units, size)
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)
                    self.networks[name] = nn.Sequential(nn.Linear(size, units), ELU(), last)
                    self.places[name] = nn.Parameter(torch.randn(config.steps[depth - 1], units))

    def forward(self, kind: Kind, path: Path, predicted: Tensor) -> Tensor:
        """The standard deviations of siblings' sites.

        Args:
            kind: "z" for programs; "a" for actions, before they are bounded.
            path: the path of one of the siblings, which differ in the steps above the last.
            predicted: their predictions, (..., d).

        Returns:
            A number, shape (), or (..., d).
        """
        name = f"{kind}{len(path)}"
        level = getattr(self, name).exp()
        if name not in self.networks:
            return level
        network: Any = self.networks[name]
        factor = network[1:](network[0](predicted) + self.places[name][path[-1]])
        return level * factor.clamp(-10, 10).exp()


class SettledNormal(dist.Normal):
    """A normal whose samples lie at its mean in some places; all else is as of a normal.

    Args:
        loc: mean, (...).
        scale: standard deviation, (...).
        settled: True where samples lie at the mean, (...).
    """

    def __init__(self, loc: Tensor, scale: Tensor, settled: Tensor) -> None:
        super().__init__(loc, scale)
        self.settled = settled

    def expand(self, batch_shape: Any, _instance: Any = None) -> SettledNormal:
        """Return the distribution with another batch shape."""
        arguments = (self.loc, self.scale, self.settled)
        return SettledNormal(*(x.expand(batch_shape) for x in arguments))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return samples without a gradient, the sample shape before (...)."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return samples, the sample shape before (...)."""
        return torch.where(self.settled, self.loc, super().rsample(torch.Size(sample_shape)))


def settle(propose: Propose, settled: Tensor) -> Propose:
    """Let some images propose nothing: theirs are the predictions and the model's own scales.

    Args:
        propose: see `Propose`.
        settled: True of these images, (N,).
    """

    def proposal(
        kind: Kind, path: Path, predicted: Tensor, scale: Tensor, glimpsed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        mean, own = propose(kind, path, predicted, scale, glimpsed)
        rows = settled.repeat(len(predicted) // len(settled)).unsqueeze(-1)
        return torch.where(rows, predicted, mean), torch.where(rows, scale, own)

    return proposal


def distribution(
    kind: Kind,
    loc: Tensor,
    scale: Tensor,
    config: RNPConfig,
    event_dim: int = 1,
    settled: Tensor | None = None,
) -> Distribution:
    """The distribution of a program or an action around a prediction.

    Args:
        kind: "z" or "a".
        loc: mean, (..., d); of an action, before it is bounded.
        scale: standard deviation, (..., d), likewise.
        config: gives the bounds of actions.
        event_dim: the dimensions of the event, by default that of d alone.
        settled: True where samples lie at the mean, (...); by default nowhere.

    Returns:
        A normal distribution of programs, or a normal that is bounded to actions in their units;
        batch shape (...), event shape (d,).
    """
    loc, scale = full_precision(loc), full_precision(scale)
    mean = distinct(loc, config) if kind == "a" else loc
    if settled is None:
        normal: Any = dist.Normal(mean, scale)
    else:
        inside = settled.view(*settled.shape, *[1] * event_dim)
        normal = SettledNormal(mean, scale, inside.expand_as(mean))
    if kind == "a":
        normal = dist.TransformedDistribution(normal, [Bounded(config, loc)])
    return normal.to_event(event_dim)


def drawn(distribution: Any, shape: tuple[int, ...] = ()) -> Tensor:
    """Samples of a distribution of Pyro's, with a gradient where the distribution has `rsample`.

    Args:
        distribution: of `pyro.distributions`.
        shape: the sample shape.
    """
    return distribution(torch.Size(shape))


def centre(distribution: Any) -> Tensor:
    """The centre of a distribution, at which images are parsed.

    Args:
        distribution: of `pyro.distributions`.

    Returns:
        Its mean; of a transformed distribution the image of its base's centre; without a `mean` the
        mean of 64 samples, the same at each call.
    """
    if isinstance(distribution, dist.Independent):
        return centre(distribution.base_dist)
    if isinstance(distribution, dist.TransformedDistribution):
        value = centre(distribution.base_dist)
        for transform in distribution.transforms:
            value = transform(value)
        return value
    try:
        return distribution.mean
    except NotImplementedError:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return drawn(distribution, (64,)).mean(0)


class Site(NamedTuple):
    """A site below the top, as a run met it; batch shapes as z^K's."""

    name: str
    """The name of the Pyro site."""
    kind: Kind
    path: Path
    """Of the part, or of the first of siblings that are drawn together."""
    predicted: Tensor
    """The networks' prediction, (..., d); of a random action, before it is bounded."""
    value: Tensor
    event_dim: int = 1
    """2 where siblings are drawn together, (..., M, d)."""
    mean: Tensor | None = None
    """The mean of a guide's proposal, of the shape of `predicted`, where the run keeps it."""
    scale: Tensor | None = None
    """Its standard deviation, likewise."""


class PastRun:
    """A run of the recursion, with the values that it was made of.

    Args:
        sites: all sites below the top, in the order of the run; those of a deterministic run may be
            left out where nobody looks at them.
        tree: the tree that the run gave.
        state: what else the tree depends on, see `state_of`.
    """

    def __init__(self, sites: Sequence[Site], tree: ParseTree, state: object = None) -> None:
        self.sites, self.tree, self.state = sites, tree, state

    @property
    def values(self) -> dict[str, Tensor]:
        """The values of all sites by name."""
        return {site.name: site.value for site in self.sites}

    @classmethod
    def determined(cls, tree: ParseTree, batch: torch.Size, config: RNPConfig) -> PastRun:
        """A run in which nothing below the top is random.

        Args:
            tree: the tree that it gave.
            batch: the batch shape of z^K.
            config: of the model.
        """
        values, found = tree.sites(), []
        for kind, path in order(config, tree.level):
            name = site_name(kind, path)
            value = values[name].unflatten(0, batch)
            found.append(Site(name, kind, path, value, value))
        return cls(found, tree)


def state_of(recursion: nn.Module) -> object:
    """All that a run depends on beside the values of its sites, to tell whether it is still true.

    Args:
        recursion: the module that runs.
    """
    own = [
        (p.untyped_storage()._cdata, 0 if p.is_inference() else p._version, p.requires_grad)
        for p in recursion.parameters()
    ]
    return torch.is_grad_enabled(), getattr(recursion, "levels", None), own


@lru_cache
def groups(config: RNPConfig, levels: int) -> tuple[tuple[Kind, tuple[Path, ...]], ...]:
    """The sites below the top, siblings that run side by side as one group, in the run's order.

    Args:
        config: gives the steps and the feedback.
        levels: the levels that run, from the top.
    """

    def below(paths: list[Path]) -> Iterator[tuple[Kind, tuple[Path, ...]]]:
        depth = len(paths[0])
        if depth == levels:
            return
        steps = range(config.steps[depth])
        for t in steps:
            here = [(*path, t) for path in paths]
            yield "a", tuple(here)
            yield "z", tuple(here)
            if config.feedback == "canvas":
                yield from below(here)
        if config.feedback == "decoding":
            yield from below([(*path, t) for t in steps for path in paths])

    return tuple(below([()]))


def order(config: RNPConfig, levels: int) -> list[tuple[Kind, Path]]:
    """The sites below the top in the order in which a run of the recursion meets them.

    Args:
        config: gives the steps and the feedback.
        levels: the levels that run, from the top.
    """
    return [(kind, path) for kind, paths in groups(config, levels) for path in paths]


def group_name(kind: Kind, paths: Sequence[Path]) -> str:
    """The name of the site of siblings that are drawn together, such as `z/*/2`.

    Args:
        kind: "z" or "a".
        paths: of one or more siblings.
    """
    steps = [str(t[0]) if len(set(t)) == 1 else "*" for t in zip(*paths, strict=True)]
    return "/".join([kind, *steps])


def beside(values: Tensor, siblings: int, batch: torch.Size) -> Tensor:
    """Values of M siblings, (M * N, d), as those of one site, (..., M, d).

    Args:
        values: all N of the first sibling first.
        siblings: M.
        batch: the shape (...) of the N images.
    """
    return values.unflatten(0, (siblings, *batch)).movedim(0, -2)


class FromNoise(Sites):
    """Random sites whose noise was drawn before the run, which is then a function of tensors alone.

    Args:
        config: says which sites are random.
        scales: the model's standard deviations.
        propose: see `Propose`.
        noise: of each group of random sites in order, (M * N, d), of a standard normal.
    """

    def __init__(
        self, config: RNPConfig, scales: Scales, propose: Propose, noise: Sequence[Tensor]
    ) -> None:
        super().__init__(config)
        self.scales, self.propose, self.noise = scales, propose, list(noise)
        self.met: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        """Of each group of random sites so far: prediction, mean, standard deviation and value."""

    def action(self, paths: list[Path], raw: Tensor, glimpsed: Tensor | None) -> Tensor:
        if not self.config.random("a", len(paths[0])):
            return super().action(paths, raw, glimpsed)
        return self._drawn("a", paths[0], raw, glimpsed)

    def program(self, paths: list[Path], h_state: Tensor, glimpsed: Tensor | None) -> Tensor:
        if not self.config.random("z", len(paths[0])):
            return super().program(paths, h_state, glimpsed)
        return self._drawn("z", paths[0], h_state, glimpsed)

    def _drawn(self, kind: Kind, path: Path, predicted: Tensor, glimpsed: Tensor | None) -> Tensor:
        scale = self.scales(kind, path, predicted)
        mean, scale = self.propose(kind, path, predicted, scale, glimpsed)
        loc, noise = full_precision(mean), self.noise[len(self.met)]
        if kind == "a":
            loc = distinct(loc, self.config)
        value = loc + full_precision(scale) * noise
        if kind == "a":
            value = bounded(value, self.config)
        self.met.append((predicted, mean, scale, value))
        return value


class RandomSites(Sites):
    """Draws random sites below the top, around the networks' predictions or a guide's proposals.

    Args:
        config: says which sites are random.
        scales: the model's standard deviations.
        batch: the batch shape of z^K; the run sees it flattened, as its images.
        draw: see `Draw`.
        fixed: see `Fixed`; by default a deterministic site's value is used as it is.
        propose: see `Propose`; by default the prediction and the model's scale.
        brief: whether sites that are not random are left out of `met`; by default false.
        together: whether siblings that run side by side are drawn as one site, such as `z/*/2` of
            all third sub-parts, which takes less time; by default each is a site of its own.
        settled: True of images whose sites take their predictions, of the shape `batch`; by default
            of none.
    """

    def __init__(
        self,
        config: RNPConfig,
        scales: Scales,
        batch: torch.Size,
        draw: Draw,
        fixed: Fixed | None = None,
        propose: Propose | None = None,
        brief: bool = False,
        together: bool = False,
        settled: Tensor | None = None,
    ) -> None:
        super().__init__(config)
        self.brief = brief
        self.scales, self.batch, self.draw = scales, batch, draw
        self.fixed, self.propose, self.together, self.settled = fixed, propose, together, settled
        if settled is not None and propose is not None:
            self.propose = settle(propose, settled.flatten())
        self.met: list[Site] = []
        """All sites so far, in order."""
        self._settled: dict[str, Tensor] = {}
        """Values by name of sites that `repeats` has drawn, for a run that goes on from there."""

    def action(self, paths: list[Path], raw: Tensor, glimpsed: Tensor | None) -> Tensor:
        return self._sites("a", paths, raw, glimpsed)

    def program(self, paths: list[Path], h_state: Tensor, glimpsed: Tensor | None) -> Tensor:
        return self._sites("z", paths, h_state, glimpsed)

    def repeats(self, run: PastRun) -> bool:
        """Draw the sites of a run; whether all have the run's values.

        If so, the run's tree is this run's tree. At the first site with another value, as under an
        intervention, it stops; running the recursion then goes on from there.

        Args:
            run: of the same z^K.
        """
        for site in run.sites:
            random = self.config.random(site.kind, len(site.path))
            if not random and self.brief:
                continue
            loc, scale = site.predicted, None
            if random and self.propose is not None and site.mean is not None:
                loc, scale = site.mean, site.scale
            elif random:
                scale = self.scales(site.kind, site.path, loc)
            value = self._value(site.name, site.kind, loc, scale, site.event_dim)
            self._settled[site.name] = value
            if value is not site.value:  # nor equal numbers, which may carry another gradient
                return False
        return True

    def _sites(
        self, kind: Kind, paths: list[Path], predicted: Tensor, glimpsed: Tensor | None
    ) -> Tensor:
        """Siblings' values, (M * N, d), from their predictions, (M * N, d)."""
        depth, mean, scale = len(paths[0]), predicted, None
        random = self.config.random(kind, depth)
        if random:
            scale = self.scales(kind, paths[0], predicted)
            if self.propose is not None:
                mean, scale = self.propose(kind, paths[0], predicted, scale, glimpsed)
        elif kind == "a":
            mean = predicted = bounded(predicted, self.config)
        if not random and self.brief:
            return mean
        if random and self.together and len(paths) > 1:
            return self._siblings(kind, paths, predicted, mean, scale)
        predictions = means = self._apart(predicted, paths)
        if mean is not predicted:
            means = self._apart(mean, paths)
        scales: Any = [scale] * len(paths)
        if scale is not None and scale.ndim:
            scales = self._apart(scale, paths)
        values = []
        for path, said, centre, deviation in zip(paths, predictions, means, scales, strict=True):
            name = site_name(kind, path)
            value = self._value(name, kind, centre, deviation)
            self.met.append(Site(name, kind, path, said, value))
            values.append(value.expand(*self.batch, -1).flatten(0, -2))
        return values[0] if len(values) == 1 else torch.cat(values)

    def _siblings(
        self, kind: Kind, paths: list[Path], predicted: Tensor, mean: Tensor, scale: Any
    ) -> Tensor:
        """Siblings' values, (M * N, d), drawn as one site."""

        def inside(x: Tensor) -> Tensor:
            return beside(x, len(paths), self.batch)

        name = group_name(kind, paths)
        scale = inside(scale) if scale.ndim else scale
        value = self._value(name, kind, inside(mean), scale, 2)
        self.met.append(Site(name, kind, paths[0], inside(predicted), value, 2))
        return value.movedim(-2, 0).flatten(0, -2)

    def _apart(self, values: Tensor, paths: list[Path]) -> Sequence[Tensor]:
        return values.unflatten(0, (len(paths), *self.batch)).unbind()

    def _value(
        self, name: str, kind: Kind, loc: Tensor, scale: Tensor | None, event_dim: int = 1
    ) -> Tensor:
        """A site's value, which broadcasts with its batch where an intervention sets it."""
        if name in self._settled:
            return self._settled.pop(name)
        if scale is not None:
            scale = scale if scale.ndim else scale.expand_as(loc)
            settings = (scale, self.config, event_dim, self.settled)
            return self.draw(name, distribution(kind, loc, *settings))
        return loc if self.fixed is None else self.fixed(name, loc)
