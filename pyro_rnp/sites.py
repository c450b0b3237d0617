"""Random sites below the top: the programs and actions of parts and sub-parts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.affine import Bounded, bounded, distinct
from pyro_rnp.config import RNPConfig
from pyro_rnp.parse_tree import ParseTree, Path, site_name
from pyro_rnp.precision import full_precision
from pyro_rnp.recursion import Sites

Kind = Literal["z", "a"]
Draw = Callable[[str, Any], Tensor]
"""A random site's name and distribution (batch shape as z^K's) to its value."""
Fixed = Callable[[str, Tensor], Tensor]
"""A deterministic site's name and value to the value that is used, which may broadcast."""
Propose = Callable[[Kind, Path, Tensor, Tensor, "Tensor | None"], "tuple[Tensor, Tensor]"]
"""Kind, a sibling's path, prediction, the model's scale and glimpse to a mean and a scale."""


def sites(config: RNPConfig) -> dict[str, tuple[Kind, int]]:
    """The sites of programs and actions, with kind and depth; parts before sub-parts."""
    found: dict[str, tuple[Kind, int]] = {"z": ("z", 0)}
    for depth in range(1, config.depth + 1):
        for path in product(*(range(n) for n in config.steps[:depth])):
            found[site_name("a", path)] = ("a", depth)
            found[site_name("z", path)] = ("z", depth)
    return found


def is_random(config: RNPConfig, name: str) -> bool:
    """Whether a site is drawn; else what runs above it determines it.

    Raises:
        ValueError: if there is no such site.
    """
    known = sites(config)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1, 0)
        raise ValueError(
            f"There is no site {name!r}; the closest is {close[0] if close else 'z'!r}. There are "
            f"{', '.join(known)}."
        )
    kind, depth = known[name]
    return depth == 0 or config.random(kind, depth)


class Scales(nn.Module):
    """Standard deviations of random programs and actions around their predictions, by level."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        kinds: list[tuple[Kind, float]] = [("z", config.program_scale), ("a", config.action_scale)]
        for kind, scale in kinds:
            for depth in range(1, config.depth + 1):
                if config.random(kind, depth):
                    value = torch.tensor(scale).log()
                    name = f"{kind}{depth}"
                    if config.learn_scales:
                        self.register_parameter(name, nn.Parameter(value))
                    else:
                        self.register_buffer(name, value, persistent=False)

    def forward(self, kind: Kind, depth: int) -> Tensor:
        """The scale, a number, of what is `depth` levels below the top."""
        return getattr(self, f"{kind}{depth}").exp()


def distribution(kind: Kind, loc: Tensor, scale: Tensor, config: RNPConfig) -> Distribution:
    """Normal(loc, scale) of a program; for an action, of its numbers before they are bounded."""
    loc, scale = full_precision(loc), full_precision(scale)
    if kind == "a":
        normal = dist.Normal(distinct(loc), scale)
        return dist.TransformedDistribution(normal, [Bounded(config, loc)]).to_event(1)
    return dist.Normal(loc, scale).to_event(1)


def drawn(distribution: Any, shape: tuple[int, ...] = ()) -> Tensor:
    """Samples of a distribution of Pyro's, with a gradient where it has such."""
    return distribution(torch.Size(shape))


def centre(distribution: Any) -> Tensor:
    """A distribution's mean; where it is a transformed one, what becomes of the mean below.

    Where a distribution has no `mean`, this is the mean of 64 samples, which are the same at each
    call.
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

    kind: Kind
    path: Path
    predicted: Tensor
    """What the networks say; of an action that is random, before it is bounded."""
    value: Tensor


class Run(NamedTuple):
    """What a run of the recursion from a program z^K met, in order, and the tree it gave."""

    z: Tensor
    sites: list[Site]
    tree: ParseTree


class RandomSites(Sites):
    """Draws what is random below the top, around what the networks predict or a guide proposes.

    Args:
        batch: the batch shape of z^K; what a run sees as its images is this, flattened.
        draw: see `Draw`.
        fixed: see `Fixed`; by default the value is used as it is.
        propose: see `Propose`; by default the prediction and the model's scale.
    """

    def __init__(
        self,
        config: RNPConfig,
        scales: Scales,
        batch: torch.Size,
        draw: Draw,
        fixed: Fixed | None = None,
        propose: Propose | None = None,
    ) -> None:
        super().__init__(config)
        self.scales, self.batch, self.draw = scales, batch, draw
        self.fixed, self.propose = fixed, propose
        self.met: list[Site] = []
        """All sites so far, in order."""
        self._settled: dict[str, Tensor] = {}

    def action(self, paths: list[Path], raw: Tensor, glimpsed: Tensor | None) -> Tensor:
        return self._sites("a", paths, raw, glimpsed)

    def program(self, paths: list[Path], h_state: Tensor, glimpsed: Tensor | None) -> Tensor:
        return self._sites("z", paths, h_state, glimpsed)

    def again(self, run: Run) -> bool:
        """Meet the sites of another run; whether each has its value there, and so the tree holds.

        Where one differs, those after it are not met; running the recursion then goes on from it.
        """
        for kind, path, predicted, value in run.sites:
            random = self.config.random(kind, len(path))
            scale = self.scales(kind, len(path)).expand_as(predicted) if random else None
            used = self._value(kind, path, predicted, scale)
            self._settled[site_name(kind, path)] = used
            if used is not value:
                return False
        return True

    def _sites(
        self, kind: Kind, paths: list[Path], predicted: Tensor, glimpsed: Tensor | None
    ) -> Tensor:
        """Siblings' sites, from what is predicted of them to their values."""
        depth = len(paths[0])
        scales: Sequence[Tensor | None]
        if self.config.random(kind, depth):
            loc, scale = predicted, self.scales(kind, depth)
            if self.propose is not None:
                loc, scale = self.propose(kind, paths[0], predicted, scale, glimpsed)
            scales = self._apart(scale.expand_as(loc), paths)
        else:
            loc = predicted = bounded(predicted, self.config) if kind == "a" else predicted
            scales = [None] * len(paths)
        saids = means = self._apart(predicted, paths)
        if loc is not predicted:
            means = self._apart(loc, paths)
        for path, said, mean, deviation in zip(paths, saids, means, scales, strict=True):
            value = self._value(kind, path, mean, deviation)
            self.met.append(Site(kind, path, said, value))
        values = [site.value.expand(*self.batch, -1) for site in self.met[-len(paths) :]]
        return torch.cat([value.flatten(0, -2) for value in values])

    def _apart(self, values: Tensor, paths: list[Path]) -> Sequence[Tensor]:
        return values.unflatten(0, (len(paths), *self.batch)).unbind()

    def _value(self, kind: Kind, path: Path, loc: Tensor, scale: Tensor | None) -> Tensor:
        """A site's value, which an intervention may leave to be broadcast."""
        name = site_name(kind, path)
        if name in self._settled:
            return self._settled.pop(name)
        if scale is not None:
            return self.draw(name, distribution(kind, loc, scale, self.config))
        return loc if self.fixed is None else self.fixed(name, loc)
