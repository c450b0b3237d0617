"""The renderer: parts that have an action become the canvas of their parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.compositions import Composition
from pyro_rnp.config import RNPConfig
from pyro_rnp.placements import Placement


class Sheet(NamedTuple):
    """One patch to be placed on a canvas, of each of N images."""

    pixels: Float[Tensor, "n c s s"]
    """The patch in its own frame."""
    appearance: Float[Tensor, "n appearance"] | None
    """Logits or coefficients of a leaf, which a continuous placement reads in place of pixels."""
    to_source: Float[Tensor, "n 2 3"]
    """The map from the canvas's frame to the patch's."""


class Renderer(nn.Module):
    """Places sheets on a canvas by a placement and lets them share it by a composition.

    Args:
        config: names both pieces, `placement` and `composition`, and says by `composed` whether
            leaves go straight to the image.
        objects: pieces that stand in for those names, by field; by default none.
    """

    def __init__(self, config: RNPConfig, objects: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.composed = config.composed
        self.placement: Placement = config.make("placement", objects)
        self.composition: Composition = config.make("composition", objects)

    def place(self, sheets: Sequence[Sheet], size: int) -> tuple[Tensor, Tensor | None]:
        """Each sheet where it lands, and its visible share.

        Args:
            sheets: one or more, in the order in which they are placed; all have an appearance or
                none has.
            size: pixels across the canvas.

        Returns:
            Placed sheets, (sheets, N, C, size, size), and shares that broadcast with them. The sum
            of their products is the canvas; None stands for shares of 1.
        """
        maps = torch.cat([sheet.to_source for sheet in sheets])
        appearances = [sheet.appearance for sheet in sheets if sheet.appearance is not None]
        if appearances:
            placed = self.placement.leaf(torch.cat(appearances), maps, size)
        else:
            pixels = torch.cat([sheet.pixels for sheet in sheets])
            placed = self.placement.canvas(pixels, maps, size)
        placed = placed.unflatten(0, (len(sheets), -1))
        covers = None
        if self.composition.opaque:
            covers = self.placement.cover(maps, size).unflatten(0, (len(sheets), -1))
        return placed, self.composition(placed, covers)

    def render(self, sheets: Sequence[Sheet], size: int) -> Float[Tensor, "n c {size} {size}"]:
        """The canvas that sheets make together.

        Source: the paper, Algorithm 1, canvas += g(patch, a), for all steps at once.

        Args:
            sheets: as `place` takes them.
            size: pixels across the canvas.
        """
        placed, seen = self.place(sheets, size)
        return (placed if seen is None else placed * seen).sum(0)
