"""Placements: how a patch becomes pixels, and how it is read where it lands on a larger canvas.

A patch travels as its appearance, the output of D before it is bounded: logits of pixels, or the
coefficients of a function of coordinates. A finished canvas travels as pixels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.affine import points, warp
from pyro_rnp.config import RNPConfig
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import PLACEMENTS

BLANK = -3.0
"""Logit of a patch's pixels at the start, so that a sum of patches begins darker than an image."""


class Placement(nn.Module, ABC):
    """A way to make and place patches: the contract of the pieces in `registry.PLACEMENTS`.

    A placement that is chosen by name is made as `Placement(config, **options)`; an object may be
    made in any way. Frames span [-1, 1] in both directions, from outer edge to outer edge; outside
    of its frame a patch is 0.

    Laws, which `pyro_rnp.check` tries:

    - results have the shapes that stand beside each method, for patches of any size; pixels of
      `patch` and of `cover` lie in [0, 1]; `canvas`, `leaf` and `cover` are 0 beyond the frame;
    - gradients reach pixels, appearance and map, and are finite; a patch is placed by itself as
      beside others, and alike at each call; arguments stay as they are;
    - numbers are finite, in the precision and on the device of the arguments (`blank` starts a
      parameter, which follows by itself); no site is drawn.

    Args:
        config: gives the shape of a patch.
    """

    appearance_size: int
    """Length of a patch's appearance."""
    continuous = False
    """Whether leaves are placed by `leaf`, from their appearance, instead of by `canvas`."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.shape = (config.channels, config.patch_size, config.patch_size)
        self.appearance_size = math.prod(self.shape)

    @abstractmethod
    def blank(self) -> Float[Tensor, "appearance"]:
        """The appearance of the nearly blank patch at the start, with pixels of logit `BLANK`."""

    @abstractmethod
    def patch(self, appearance: Float[Tensor, "n appearance"]) -> Float[Tensor, "n c s s"]:
        """A leaf's pixels in its own frame, in (0, 1).

        Args:
            appearance: outputs of D, (N, appearance_size), unbounded.
        """

    @abstractmethod
    def canvas(
        self, pixels: Float[Tensor, "n c s s"], to_source: Float[Tensor, "n 2 3"], size: int
    ) -> Float[Tensor, "n c {size} {size}"]:
        """A patch's pixels where they land on a larger canvas.

        Args:
            pixels: (N, C, S, S).
            to_source: maps from the larger canvas's frame to the patch's.
            size: pixels across the larger canvas.
        """

    def leaf(
        self,
        appearance: Float[Tensor, "n appearance"],
        to_source: Float[Tensor, "n 2 3"],
        size: int,
    ) -> Float[Tensor, "n c {size} {size}"]:
        """A leaf where it lands, from its appearance; called only if `continuous`.

        Args:
            appearance: outputs of D, (N, appearance_size), unbounded.
            to_source: maps from the larger canvas's frame to the patch's.
            size: pixels across the larger canvas.
        """
        raise NotImplementedError

    def cover(
        self, to_source: Float[Tensor, "n 2 3"], size: int
    ) -> Float[Tensor, "n 1 {size} {size}"]:
        """The patch's frame on a larger canvas: 1 inside, 0 outside.

        The edge is as wide as a pixel of the patch.

        Args:
            to_source: maps from the larger canvas's frame to the patch's.
            size: pixels across the larger canvas.
        """
        far = points(full_precision(to_source), size).abs()
        return ((1 - far) * self.shape[-1] / 2 + 0.5).clamp(0, 1).prod(-1).unsqueeze(1)


@PLACEMENTS.add("bilinear")
class Bilinear(Placement):
    """Pixels, interpolated bilinearly where they land: the paper's spatial transformer.

    Source: the paper, Algorithm 1, g(patch, a); Jaderberg et al., "Spatial transformer networks",
    2015.
    """

    mode: Literal["bilinear", "bicubic"] = "bilinear"

    def blank(self) -> Float[Tensor, "appearance"]:
        return torch.full((self.appearance_size,), BLANK)

    def patch(self, appearance: Float[Tensor, "n appearance"]) -> Float[Tensor, "n c s s"]:
        return appearance.sigmoid().view(-1, *self.shape)

    def canvas(
        self, pixels: Float[Tensor, "n c s s"], to_source: Float[Tensor, "n 2 3"], size: int
    ) -> Float[Tensor, "n c {size} {size}"]:
        return warp(pixels, to_source, size, self.mode)


@PLACEMENTS.add("bicubic")
class Bicubic(Bilinear):
    """Pixels, interpolated by cubic polynomials, which may pass the patch's values at edges."""

    mode = "bicubic"


@PLACEMENTS.add("continuous")
class Continuous(Bilinear):
    """A leaf as a function of coordinates, evaluated where it lands, without interpolation.

    Its logit is a sum of products of cosines, cos(pi i (x + 1) / 2) cos(pi j (y + 1) / 2), with as
    many frequencies in each direction as the patch has pixels across, at most 12. The canvas of a
    part that is itself a program consists of pixels and is interpolated; with
    `RNPConfig.composed` there is no such canvas on the way to the image.

    Args:
        config: gives the shape of a patch.
    """

    continuous = True

    def __init__(self, config: RNPConfig) -> None:
        super().__init__(config)
        self.waves = min(12, config.patch_size)
        self.appearance_size = config.channels * self.waves**2

    def blank(self) -> Float[Tensor, "appearance"]:
        coefficients = torch.zeros(self.shape[0], self.waves, self.waves)
        coefficients[:, 0, 0] = BLANK * self.waves / 2
        return coefficients.flatten()

    def patch(self, appearance: Float[Tensor, "n appearance"]) -> Float[Tensor, "n c s s"]:
        same = torch.eye(2, 3, dtype=appearance.dtype, device=appearance.device)
        return self._pixels(appearance, same.expand(len(appearance), -1, -1), self.shape[-1])

    def leaf(
        self,
        appearance: Float[Tensor, "n appearance"],
        to_source: Float[Tensor, "n 2 3"],
        size: int,
    ) -> Float[Tensor, "n c {size} {size}"]:
        return self._pixels(appearance, to_source, size) * self.cover(to_source, size)

    def _pixels(self, appearance: Tensor, to_source: Tensor, size: int) -> Tensor:
        with torch.autocast(appearance.device.type, enabled=False):
            position = points(full_precision(to_source), size).flatten(1, 2)  # (n, pixels, 2)
            order = torch.arange(self.waves, dtype=position.dtype, device=position.device)
            # Far outside of the frame, where nothing shows, the function need not be known.
            angle = (position.clamp(-2, 2).unsqueeze(-1) + 1) * (math.pi / 2 * order)
            across, down = angle.cos().unbind(2)
            c = self.shape[0]
            coefficients = full_precision(appearance).view(-1, c, self.waves, self.waves)
            rows = torch.einsum("ncij,npj->ncpi", coefficients, down)
            logits = (rows * across.unsqueeze(1)).sum(-1) * (2 / self.waves)
            return logits.sigmoid().view(-1, c, size, size)
