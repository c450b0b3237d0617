"""How parts come to be pixels: placement of a patch, and composition of patches on a canvas.

A patch travels as `ink`, what the networks give before it is bounded: logits of pixels, or the
coefficients of a function of coordinates. Pixels of a finished canvas travel as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.affine import compose, inverse_matrix, points, warp
from pyro_rnp.config import RNPConfig
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import COMPOSITIONS, PLACEMENTS

if TYPE_CHECKING:
    from pyro_rnp.parse_tree import ParseTree

BLANK = -3.0
"""The logit of a patch at the start: sums of patches begin below the ink they must explain."""


@PLACEMENTS.add("bilinear")
class Bilinear(nn.Module):
    """Pixels, interpolated where they land: the paper's spatial transformer.

    The contract of a placement: `ink` numbers make a patch, `blank` an empty one's; `patch` makes
    pixels of them; `canvas` reads pixels through maps from the pixels of a larger canvas; `cover`
    is where they are at all. One that is `continuous` also has `leaf`, which reads the ink itself.
    """

    mode: Any = "bilinear"
    continuous = False

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.shape = (config.channels, config.patch_size, config.patch_size)
        self.ink = math.prod(self.shape)

    def blank(self) -> Float[Tensor, "ink"]:
        """The ink of an empty patch."""
        return torch.full((self.ink,), BLANK)

    def patch(self, ink: Float[Tensor, "n ink"]) -> Float[Tensor, "n c s s"]:
        """A leaf's pixels in its own frame, in (0, 1)."""
        return ink.sigmoid().view(-1, *self.shape)

    def canvas(
        self, pixels: Float[Tensor, "n c s s"], to_source: Float[Tensor, "n 2 3"], size: int
    ) -> Float[Tensor, "n c {size} {size}"]:
        """A canvas read at `to_source(p)` for each pixel centre p."""
        return warp(pixels, to_source, size, self.mode)

    def cover(
        self, to_source: Float[Tensor, "n 2 3"], size: int
    ) -> Float[Tensor, "n 1 {size} {size}"]:
        """1 inside the frame, 0 outside, with an edge as wide as a pixel of the patch."""
        far = points(full_precision(to_source), size).abs()
        return ((1 - far) * self.shape[-1] / 2 + 0.5).clamp(0, 1).prod(-1).unsqueeze(1)


@PLACEMENTS.add("bicubic")
class Bicubic(Bilinear):
    """Pixels, interpolated by cubic polynomials; edges may swing a little past what is there."""

    mode = "bicubic"


@PLACEMENTS.add("continuous")
class Continuous(Bilinear):
    """A leaf as a function of coordinates, evaluated where it lands, without interpolation.

    Its logit is a sum of products of cosines, cos(pi i (x + 1) / 2) cos(pi j (y + 1) / 2), with as
    many frequencies as the patch has pixels, at most 12. The canvas of a program is made of
    pixels all the same; with `composed`, none is on the way.
    """

    continuous = True

    def __init__(self, config: RNPConfig) -> None:
        super().__init__(config)
        self.waves = min(12, config.patch_size)
        self.ink = config.channels * self.waves**2

    def blank(self) -> Float[Tensor, "ink"]:
        coefficients = torch.zeros(self.shape[0], self.waves, self.waves)
        coefficients[:, 0, 0] = BLANK * self.waves / 2
        return coefficients.flatten()

    def patch(self, ink: Float[Tensor, "n ink"]) -> Float[Tensor, "n c s s"]:
        same = torch.eye(2, 3, dtype=ink.dtype, device=ink.device).expand(len(ink), -1, -1)
        return self._pixels(ink, same, self.shape[-1])

    def leaf(
        self, ink: Float[Tensor, "n ink"], to_source: Float[Tensor, "n 2 3"], size: int
    ) -> Float[Tensor, "n c {size} {size}"]:
        """A leaf read at `to_source(p)` for each pixel centre p."""
        return self._pixels(ink, to_source, size) * self.cover(to_source, size)

    def _pixels(self, ink: Tensor, to_source: Tensor, size: int) -> Tensor:
        with torch.autocast(ink.device.type, enabled=False):
            place = points(full_precision(to_source), size).flatten(1, 2)  # (n, pixels, 2)
            order = torch.arange(self.waves, dtype=place.dtype, device=place.device)
            # Far outside the frame, where nothing shows, the function need not be known.
            angle = (place.clamp(-2, 2).unsqueeze(-1) + 1) * (math.pi / 2 * order)
            across, down = angle.cos().unbind(2)
            c = self.shape[0]
            coefficients = full_precision(ink).view(-1, c, self.waves, self.waves)
            rows = torch.einsum("ncij,npj->ncpi", coefficients, down)
            logits = (rows * across.unsqueeze(1)).sum(-1) * (2 / self.waves)
            return logits.sigmoid().view(-1, c, size, size)


@COMPOSITIONS.add("sum")
class Sum:
    """Patches add up (Algorithm 1).

    The contract of a composition: from patches where they land, in order, and, if it is `opaque`,
    where each covers the canvas at all, the share of each that is seen, a factor for each of its
    pixels; None stands for ones. What is seen adds up to the canvas.
    """

    opaque = False

    def __init__(self, config: RNPConfig) -> None:
        pass

    def __call__(
        self,
        placed: Float[Tensor, "parts n c s s"],
        covers: Float[Tensor, "parts n 1 s s"] | None,
    ) -> Float[Tensor, "parts n _ s s"] | None:
        """The share of each patch that is seen."""
        return None


@COMPOSITIONS.add("noisy_or")
class NoisyOr(Sum):
    """A pixel has no ink where no patch puts any: 1 - prod (1 - p). The first comes first."""

    def __call__(
        self,
        placed: Float[Tensor, "parts n c s s"],
        covers: Float[Tensor, "parts n 1 s s"] | None,
    ) -> Float[Tensor, "parts n _ s s"]:
        """The share of each patch that is seen."""
        left = (1 - placed).cumprod(0)
        return torch.cat([torch.ones_like(left[:1]), left[:-1]])


@COMPOSITIONS.add("over")
class Over(Sum):
    """Patches are opaque, blank or not, and later ones lie over earlier ones."""

    opaque = True

    def __call__(
        self,
        placed: Float[Tensor, "parts n c s s"],
        covers: Float[Tensor, "parts n 1 s s"] | None,
    ) -> Float[Tensor, "parts n _ s s"]:
        """The share of each patch that is seen."""
        assert covers is not None
        left = (1 - covers.flip(0)).cumprod(0).flip(0)  # what this patch and all later ones leave
        return torch.cat([left[1:], torch.ones_like(left[:1])])


class Painter(nn.Module):
    """Paints parts on the canvas of their parent, as the configuration says."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.composed = config.composed
        self.placement = PLACEMENTS.make(config.placement, config)
        self.seen = COMPOSITIONS.make(config.composition, config)

    def sheets(self, parts: Sequence[ParseTree]) -> list[tuple[ParseTree, Tensor]]:
        """What is painted for these parts: nodes, and maps (N, 2, 3) from the parent's frame.

        Each part itself, or, with `composed`, all leaves below, by the product of their
        ancestors' inverse actions.
        """
        made = []
        actions = [part.action for part in parts if part.action is not None]
        maps = inverse_matrix(torch.cat(actions)).chunk(len(parts))
        for part, own in zip(parts, maps, strict=True):
            if self.composed and part.children:
                below = self.sheets(part.children)
                made += [(leaf, compose(inner, own)) for leaf, inner in below]
            else:
                made.append((part, own))
        return made

    def place(
        self, sheets: Sequence[tuple[ParseTree, Tensor]], size: int
    ) -> tuple[Tensor, Tensor | None]:
        """Each sheet where it lands, (sheets, N, C, size, size), and the share that is seen.

        Their product adds up to the canvas; None stands for ones.
        """
        maps = torch.cat([to_source for _, to_source in sheets])
        if sheets[0][0].ink is not None:
            inks = torch.cat([node.ink for node, _ in sheets if node.ink is not None])
            placed = self.placement.leaf(inks, maps, size)
        else:
            pixels = torch.cat([node.canvas for node, _ in sheets])
            placed = self.placement.canvas(pixels, maps, size)
        placed = placed.unflatten(0, (len(sheets), -1))
        covers = None
        if self.seen.opaque:
            covers = self.placement.cover(maps, size).unflatten(0, (len(sheets), -1))
        return placed, self.seen(placed, covers)

    def paint(self, parts: Sequence[ParseTree], size: int) -> Float[Tensor, "n c {size} {size}"]:
        """The canvas that these parts make, in order."""
        placed, seen = self.place(self.sheets(parts), size)
        return (placed if seen is None else placed * seen).sum(0)
