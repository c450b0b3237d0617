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


class Sheets(NamedTuple):
    """Patches to be placed on a canvas, of each of N images, in the order of their placement."""

    pixels: Float[Tensor, "sheets n c s s"]
    """The patches in their own frames."""
    appearance: Float[Tensor, "sheets n appearance"] | None
    """Logits or coefficients of leaves, which a continuous placement reads in place of pixels."""
    to_source: Float[Tensor, "sheets n 2 3"]
    """The maps from the canvas's frame to the patches'."""

    @classmethod
    def join(cls, some: Sequence[Sheets]) -> Sheets:
        """Sheets in one stack, in order.

        Args:
            some: one or more, of which all have an appearance or none has.
        """
        looks = [sheets.appearance for sheets in some if sheets.appearance is not None]
        pixels, maps = (torch.cat([each[i] for each in some]) for i in (0, 2))  # type: ignore[misc]
        return cls(pixels, torch.cat(looks) if looks else None, maps)


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

    def place(self, sheets: Sheets, size: int) -> tuple[Tensor, Tensor | None]:
        """Each sheet where it lands, and its visible share.

        Args:
            sheets: one or more.
            size: pixels across the canvas.

        Returns:
            Placed sheets, (sheets, N, C, size, size), and shares that broadcast with them. The sum
            of their products is the canvas; None stands for shares of 1.
        """
        maps, number = sheets.to_source.flatten(0, 1), len(sheets.to_source)
        if sheets.appearance is not None:
            placed = self.placement.leaf(sheets.appearance.flatten(0, 1), maps, size)
        else:
            placed = self.placement.canvas(sheets.pixels.flatten(0, 1), maps, size)
        placed, covers = placed.unflatten(0, (number, -1)), None
        if self.composition.opaque:
            covers = self.placement.cover(maps, size).unflatten(0, (number, -1))
        return placed, self.composition(placed, covers)

    def render(self, sheets: Sheets, size: int) -> Float[Tensor, "n c {size} {size}"]:
        """The canvas that sheets make together.

        Source: the paper, Algorithm 1, canvas += g(patch, a), for all steps at once.

        Args:
            sheets: as `place` takes them.
            size: pixels across the canvas.
        """
        placed, seen = self.place(sheets, size)
        return (placed if seen is None else placed * seen).sum(0)
