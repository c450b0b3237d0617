"""An ordinary VAE's decoder, as a baseline of the recursion: a program without parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.activations import ELU
from pyro_rnp.arguments import whole
from pyro_rnp.config import RNPConfig
from pyro_rnp.likelihoods import canvas_of
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.placements import BLANK
from pyro_rnp.recursion import Recursion, Sites
from pyro_rnp.registry import PROGRAMS


@PROGRAMS.add("flat")
class FlatDecoder(nn.Module):
    """An MLP from z^K to the whole canvas, in the place of the recursion.

    It has as many layers as the encoder has fully connected ones. Its outputs are the logits of the
    probabilities that the canvas stands for (`pyro_rnp.likelihoods.logit`), so that with the
    likelihood `bernoulli` the model is the usual VAE of binary images.

    Args:
        config: gives |z| and the image's shape.
        units: units in each hidden layer, up to 100,000; by default 0, the fewest units with which
            the MLP has as many parameters as the recursion of the same configuration.

    Raises:
        ValueError: if `units` is out of its range.
    """

    def __init__(self, config: RNPConfig, *, units: int = 0) -> None:
        super().__init__()
        whole(0, 100_000, units=units)
        self.config = config
        self.levels = self.recompute_levels = 0
        layers: list[nn.Module] = []
        for i, o in pairwise(_widths(config, units or _units(config))):
            layers += [nn.Linear(i, o), ELU()]
        del layers[-1]
        nn.init.constant_(layers[-1].bias, BLANK)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers)

    def compile(self, inference: bool = True, **options: Any) -> None:
        """Compile the MLP in place.

        Args:
            inference: unused; it is compiled for use without gradients too.
            options: as `torch.compile` takes them.
        """
        self.layers.compile(**options)

    def forward(
        self,
        z: Float[Tensor, "n z"],
        sites: Sites | None = None,
        target: Float[Tensor, "n c h w"] | None = None,
    ) -> ParseTree:
        """Run the programs z^K of N images.

        Args:
            z: programs, (N, |z|).
            sites: unused, as there are no sites below the top.
            target: unused.

        Returns:
            A tree of N images without parts.
        """
        c = self.config
        canvas = canvas_of(self.layers(z))
        return ParseTree(z, canvas.view(-1, c.channels, c.image_size, c.image_size))

    def run_level(self, programs: Float[Tensor, "n z"], level: int) -> ParseTree:
        """Run programs at level 0, the only one.

        Args:
            programs: (N, |z|).
            level: 0.

        Raises:
            ValueError: if another level is asked for.
        """
        if level:
            raise ValueError(f"A flat program has level 0 alone, got {level}.")
        return self(programs)


def _widths(config: RNPConfig, units: int) -> list[int]:
    hidden = [units] * max(1, config.encoder_layers - 1)
    return [config.program_size, *hidden, config.channels * config.image_size**2]


def _units(config: RNPConfig) -> int:
    """The fewest units with which the MLP has as many parameters as the recursion."""
    with torch.device("meta"):
        wanted = sum(p.numel() for p in _recursion(config))

    def size(units: int) -> int:
        return sum((i + 1) * o for i, o in pairwise(_widths(config, units)))

    return next(units for units in count(1) if size(units) >= wanted)


def _recursion(config: RNPConfig) -> Iterator[nn.Parameter]:
    return Recursion(replace(config, program="recursive")).parameters()
