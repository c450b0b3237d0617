"""What is random below the top: the programs and actions of parts and sub-parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.affine import Bounded, bounded, distinct, full_precision
from pyro_rnp.config import RNPConfig
from pyro_rnp.recursion import Sites
from pyro_rnp.tree import Path, site_name

Kind = Literal["z", "a"]
Draw = Callable[[str, Any], Tensor]
"""A random site's name and distribution (batch shape as z^K's) to its value."""
Fixed = Callable[[str, Tensor], Tensor]
"""A deterministic site's name and value to the value that is used, which may broadcast."""
Propose = Callable[[Kind, Path, Tensor, Tensor, "Tensor | None"], "tuple[Tensor, Tensor]"]
"""Kind, a sibling's path, prediction, the model's scale and glimpse to a mean and a scale."""


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
        return dist.TransformedDistribution(normal, [Bounded(config)]).to_event(1)
    return dist.Normal(loc, scale).to_event(1)


def centre(distribution: Distribution) -> Tensor:
    """A distribution's mean; where it is a transformed one, what becomes of the mean below."""
    if isinstance(distribution, dist.Independent):
        return centre(distribution.base_dist)
    if isinstance(distribution, dist.TransformedDistribution):
        value = centre(distribution.base_dist)
        for transform in distribution.transforms:
            value = transform(value)
        return value
    return distribution.mean


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

    def action(self, paths: list[Path], raw: Tensor, glimpsed: Tensor | None) -> Tensor:
        return self._site("a", paths, raw, glimpsed)

    def program(self, paths: list[Path], h_state: Tensor, glimpsed: Tensor | None) -> Tensor:
        return self._site("z", paths, h_state, glimpsed)

    def _site(
        self, kind: Kind, paths: list[Path], predicted: Tensor, glimpsed: Tensor | None
    ) -> Tensor:
        path = paths[0]
        if not self.config.random(kind, len(path)):
            value = bounded(predicted, self.config) if kind == "a" else predicted
            if self.fixed is None:
                return value
            rows = zip(paths, value.split(len(value) // len(paths)), strict=True)
            return torch.cat([self._used(self.fixed(*self._named(kind, p, v))) for p, v in rows])
        loc, scale = predicted, self.scales(kind, len(path))
        if self.propose is not None:
            loc, scale = self.propose(kind, path, predicted, scale, glimpsed)
        scale = scale.expand_as(loc)
        n = len(loc) // len(paths)
        values = []
        for p, mean, deviation in zip(paths, loc.split(n), scale.split(n), strict=True):
            name, mean = self._named(kind, p, mean)
            around = distribution(kind, mean, deviation.unflatten(0, self.batch), self.config)
            values.append(self._used(self.draw(name, around)))
        return torch.cat(values)

    def _named(self, kind: Kind, path: Path, value: Tensor) -> tuple[str, Tensor]:
        return site_name(kind, path), value.unflatten(0, self.batch)

    def _used(self, value: Tensor) -> Tensor:
        return value.expand(*self.batch, -1).flatten(0, -2)  # an intervention may broadcast
