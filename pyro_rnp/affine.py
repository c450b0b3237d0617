"""Actions: where a part sits in its parent's frame, as bounded affine maps.

An action is six numbers, in this order (`FIELDS`):

| field | unit |
|---|---|
| scale_x, scale_y | part size over parent size |
| rotation | radians, clockwise on the screen (x points right, y down) |
| shear | horizontal shift per unit of height |
| x, y | the part's centre, in half-widths of the parent's canvas |

It maps a point u of the part's frame, [-1, 1]^2, to the point A u + t of the parent's, with
A = R(rotation) [[1, shear], [0, 1]] diag(scale_x, scale_y). R and the shear have determinant 1, so
the part's area over its parent's is scale_x * scale_y, and the inverse needs no division but by
the scales.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Transform, constraints

from pyro_rnp.config import RNPConfig
from pyro_rnp.precision import full_precision

FIELDS = ("scale_x", "scale_y", "rotation", "shear", "x", "y")
UNITS = {
    "scale_x": "part size over parent size",
    "scale_y": "part size over parent size",
    "rotation": "radians, clockwise",
    "shear": "horizontal shift per unit of height",
    "x": "canvas half-widths, right of the centre",
    "y": "canvas half-widths, below the centre",
}


def bounded(raw: Float[Tensor, "*b 6"], config: RNPConfig) -> Float[Tensor, "*b 6"]:
    """Six unbounded numbers, as T_θ gives them, to an action within the configuration's bounds."""
    raw = full_precision(raw)
    c, turn = config, raw[..., 2:].tanh()
    scale = c.min_scale + (c.max_scale - c.min_scale) * raw[..., :2].sigmoid()
    rotation, shear = c.max_rotation * turn[..., :1], c.max_shear * turn[..., 1:2]
    return torch.cat([scale, rotation, shear, c.max_translation * turn[..., 2:]], -1)


def unbounded(action: Float[Tensor, "*b 6"], config: RNPConfig) -> Float[Tensor, "*b 6"]:
    """The inverse of `bounded`; at a bound it gives the largest number that floats can tell."""
    action = full_precision(action)
    c, edge = config, 1 - torch.finfo(action.dtype).eps
    scale = 2 * (action[..., :2] - c.min_scale) / (c.max_scale - c.min_scale) - 1
    rotation, shear = action[..., 2:3] / c.max_rotation, action[..., 3:4] / c.max_shear
    turn = torch.cat([rotation, shear, action[..., 4:] / c.max_translation], -1)
    # sigmoid(x) = (1 + tanh(x / 2)) / 2
    return torch.cat([2 * scale.clamp(-edge, edge).atanh(), turn.clamp(-edge, edge).atanh()], -1)


def distinct(raw: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 6"]:
    """Unbounded numbers no farther out than float32 can tell actions apart; gradients pass."""
    near = torch.cat([raw[..., :2].clamp(-10, 10), raw[..., 2:].clamp(-5, 5)], -1)
    return raw + (near - raw).detach()


def codomain(config: RNPConfig, like: Tensor | None = None) -> constraints.Constraint:
    """The box of actions that the configuration allows, as a constraint on six numbers.

    The box has the dtype and the device of `like`.
    """
    at = torch.empty(0) if like is None else like
    return _box(config, at.dtype, at.device)


@lru_cache
def _box(config: RNPConfig, dtype: torch.dtype, device: torch.device) -> constraints.Constraint:
    c = config
    turn = [c.max_rotation, c.max_shear, c.max_translation, c.max_translation]
    low = torch.tensor([c.min_scale, c.min_scale, *(-t for t in turn)], dtype=dtype, device=device)
    high = torch.tensor([c.max_scale, c.max_scale, *turn], dtype=dtype, device=device)
    return constraints.interval(low, high)


class Bounded(Transform):
    """`bounded` as a transform of distributions: six unbounded numbers to an action."""

    domain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, config: RNPConfig, like: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.codomain = codomain(config, like)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bounded) and other.config == self.config

    __hash__ = Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        c, action = self.config, bounded(x, self.config)
        scale = action[..., :2].clamp(c.min_scale, c.max_scale)  # a sum may end just beyond
        return torch.cat([scale, action[..., 2:]], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return unbounded(y, self.config)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The log of each number's derivative: log r - softplus(x) - softplus(-x), r its range."""
        c = self.config
        scale, turn = x[..., :2], 2 * x[..., 2:]
        logs = [math.log(c.max_scale - c.min_scale)]
        logs += [math.log(4 * m) for m in (c.max_rotation, c.max_shear, c.max_translation)]
        bell = -F.softplus(torch.cat([scale, turn], -1)) - F.softplus(-torch.cat([scale, turn], -1))
        rows = zip(bell.split([2, 1, 1, 2], -1), logs, strict=True)
        return torch.cat([row + log for row, log in rows], -1)


def matrix(action: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 2 3"]:
    """[A | t]: takes points of the part's frame to points of the parent's frame."""
    sx, sy, rotation, m, x, y = action.unbind(-1)
    c, s = rotation.cos(), rotation.sin()
    top = torch.stack([c * sx, (c * m - s) * sy, x], -1)
    bottom = torch.stack([s * sx, (s * m + c) * sy, y], -1)
    return torch.stack([top, bottom], -2)


def inverse_matrix(action: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 2 3"]:
    """[A | t]^-1 in closed form: takes points of the parent's frame to points of the part's."""
    sx, sy, rotation, m, x, y = action.unbind(-1)
    c, s = rotation.cos(), rotation.sin()
    a, b = (c + m * s) / sx, (s - m * c) / sx
    d, e = -s / sy, c / sy
    top = torch.stack([a, b, -(a * x + b * y)], -1)
    bottom = torch.stack([d, e, -(d * x + e * y)], -1)
    return torch.stack([top, bottom], -2)


def compose(
    outer: Float[Tensor, "*b 2 3"], inner: Float[Tensor, "*b 2 3"]
) -> Float[Tensor, "*b 2 3"]:
    """The map that applies `inner`, then `outer`: a sub-part's frame straight to the image's."""
    outer, inner = full_precision(outer), full_precision(inner)
    with torch.autocast(outer.device.type, enabled=False):
        linear = outer[..., :2] @ inner[..., :2]
        translation = outer[..., :2] @ inner[..., 2:] + outer[..., 2:]
        return torch.cat([linear, translation], -1)


def area(action: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b"]:
    """Area of the part over the area of its parent's canvas."""
    return action[..., 0] * action[..., 1]


def warp(
    image: Float[Tensor, "n c h w"],
    to_source: Float[Tensor, "n 2 3"],
    size: int,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Float[Tensor, "n c {size} {size}"]:
    """The image read at `to_source(p)` for each pixel centre p of a `size` x `size` canvas.

    Zero outside the image; frames span [-1, 1] from outer edge to outer edge.
    """
    with torch.autocast(image.device.type, enabled=False):
        grid = points(to_source, size)
        return F.grid_sample(full_precision(image), grid, mode=mode, align_corners=False)


def points(to_source: Float[Tensor, "n 2 3"], size: int) -> Float[Tensor, "n {size} {size} 2"]:
    """Where a map takes each pixel centre of a `size` x `size` canvas, as (x, y)."""
    to_source = full_precision(to_source)
    with torch.autocast(to_source.device.type, enabled=False):
        return (to_source.flatten(1) @ _grid(size, to_source)).view(-1, size, size, 2)


def _grid(size: int, like: Tensor) -> Float[Tensor, "6 grid"]:
    """What takes a map's six numbers to where it takes each pixel centre, (6, size * size * 2).

    One product for all maps; `F.affine_grid` makes one for each, 9 times slower on a CPU.
    """
    centre = (2 * torch.arange(size, dtype=like.dtype, device=like.device) + 1) / size - 1
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    point = torch.stack([x, y, torch.ones_like(x)])  # (3, size, size)
    return torch.einsum(
        "ij,phw->iphwj", torch.eye(2, dtype=like.dtype, device=like.device), point
    ).reshape(6, -1)


def place(
    patch: Float[Tensor, "n c h w"], action: Float[Tensor, "n 6"], size: int
) -> Float[Tensor, "n c {size} {size}"]:
    """g(patch, a): the patch on an empty `size` x `size` canvas of its parent (Algorithm 1)."""
    return warp(patch, inverse_matrix(action), size)


def glimpse(
    image: Float[Tensor, "n c h w"], action: Float[Tensor, "n 6"], size: int
) -> Float[Tensor, "n c {size} {size}"]:
    """The inverse of `place`: zoom into the parent's canvas where a part sits."""
    return warp(image, matrix(action), size)
