"""Actions: bounded affine maps that place a part in its parent's frame.

An action has six numbers, in this order (`FIELDS`):

| field | unit |
|---|---|
| scale_x, scale_y | part size over parent size |
| rotation | radians, clockwise on the screen (x points right, y down) |
| shear | horizontal shift per unit of height |
| x, y | the part's centre, in half-widths of the parent's canvas |

It maps a point u of the part's frame, [-1, 1]^2, to the point A u + t of the parent's, with
A = R(rotation) [[1, shear], [0, 1]] diag(scale_x, scale_y). R and the shear have determinant 1, so
the part's area over its parent's is scale_x * scale_y, and the inverse divides by the scales alone.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Transform, constraints

from pyro_rnp.config import RNPConfig
from pyro_rnp.precision import constant, full_precision

FIELDS = ("scale_x", "scale_y", "rotation", "shear", "x", "y")
"""Names of an action's numbers, in order."""
UNITS = {
    "scale_x": "part size over parent size",
    "scale_y": "part size over parent size",
    "rotation": "radians, clockwise",
    "shear": "horizontal shift per unit of height",
    "x": "canvas half-widths, right of the centre",
    "y": "canvas half-widths, below the centre",
}
"""The unit of each number."""


def bounded(raw: Float[Tensor, "*b 6"], config: RNPConfig) -> Float[Tensor, "*b 6"]:
    """An action within the configuration's bounds from six unbounded numbers.

    Scales are sigmoids between `min_scale` and `max_scale`; the other numbers are tanh times
    `max_rotation`, `max_shear` and `max_translation`.

    >>> bounded(torch.zeros(6), RNPConfig(min_scale=0.2, max_scale=0.4))
    tensor([0.3000, 0.3000, 0.0000, 0.0000, 0.0000, 0.0000])

    Args:
        raw: outputs of T_θ, (..., 6).
        config: gives the bounds.

    Returns:
        Actions, (..., 6), in the units of `UNITS`, in at least float32.
    """
    raw = full_precision(raw)
    middle, reach, slope, _ = _bounds(config, raw)
    return torch.addcmul(middle, reach, (raw * slope).tanh())


@constant
def _bounds(config: RNPConfig, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Six numbers each: middle and reach of the bounds, slope of the tanh, and `distinct`'s clamp.

    A sigmoid is a tanh too: sigmoid(x) = (1 + tanh(x / 2)) / 2.
    """
    c, lo, hi = config, config.min_scale, config.max_scale
    rounding = 2 * torch.finfo(dtype).eps * hi  # so that a sum, which is rounded, stays within
    turn = [c.max_rotation, c.max_shear, c.max_translation, c.max_translation]
    rows = (
        [(lo + hi) / 2] * 2 + [0.0] * 4,
        [max(0.0, (hi - lo) / 2 - rounding)] * 2 + turn,
        [0.5] * 2 + [1.0] * 4,
        [10.0] * 2 + [5.0] * 4,
    )
    return tuple(torch.tensor(row, dtype=dtype, device=device) for row in rows)


def unbounded(action: Float[Tensor, "*b 6"], config: RNPConfig) -> Float[Tensor, "*b 6"]:
    """The inverse of `bounded`.

    Args:
        action: actions within the bounds, (..., 6).
        config: gives the bounds.

    Returns:
        Unbounded numbers, (..., 6); of an action at a bound, the largest finite number that the
        precision can tell from the bound.
    """
    action = full_precision(action)
    c, edge = config, 1 - torch.finfo(action.dtype).eps
    scale = 2 * (action[..., :2] - c.min_scale) / (c.max_scale - c.min_scale) - 1
    rotation, shear = action[..., 2:3] / c.max_rotation, action[..., 3:4] / c.max_shear
    turn = torch.cat([rotation, shear, action[..., 4:] / c.max_translation], -1)
    # sigmoid(x) = (1 + tanh(x / 2)) / 2
    return torch.cat([2 * scale.clamp(-edge, edge).atanh(), turn.clamp(-edge, edge).atanh()], -1)


def distinct(raw: Float[Tensor, "*b 6"], config: RNPConfig) -> Float[Tensor, "*b 6"]:
    """Unbounded numbers, clamped to where float32 still tells actions apart.

    Args:
        raw: unbounded numbers of actions, (..., 6).
        config: gives the bounds.

    Returns:
        `raw` with scales in [-10, 10] and the others in [-5, 5], (..., 6); its gradient is that of
        the identity, also where a number is clamped.
    """
    far = _bounds(config, raw)[3]
    return raw + (raw.detach().clamp(-far, far) - raw.detach())


def codomain(config: RNPConfig, like: Tensor | None = None) -> constraints.Constraint:
    """The box of actions that the configuration allows, as a constraint on six numbers.

    Args:
        config: gives the bounds.
        like: a tensor with the dtype and the device of the box; by default torch's defaults.
    """
    return _box(config, torch.empty(0) if like is None else like)


@constant
def _box(config: RNPConfig, dtype: torch.dtype, device: torch.device) -> constraints.Constraint:
    c = config
    turn = [c.max_rotation, c.max_shear, c.max_translation, c.max_translation]
    low = torch.tensor([c.min_scale, c.min_scale, *(-t for t in turn)], dtype=dtype, device=device)
    high = torch.tensor([c.max_scale, c.max_scale, *turn], dtype=dtype, device=device)
    return constraints.interval(low, high)


class Bounded(Transform):
    """`bounded` as a transform of distributions: six unbounded numbers to an action.

    Args:
        config: gives the bounds.
        like: a tensor with the dtype and the device of the codomain; by default torch's defaults.
    """

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
        return bounded(x, self.config)

    def _inverse(self, y: Tensor) -> Tensor:
        return unbounded(y, self.config)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The log of each number's derivative: log r - softplus(x) - softplus(-x), r its range.

        Args:
            x: unbounded numbers, (..., 6).
            y: the actions of `x`; unused.

        Returns:
            Log-derivatives, (..., 6), one for each number.
        """
        c = self.config
        scale, turn = x[..., :2], 2 * x[..., 2:]
        logs = [math.log(c.max_scale - c.min_scale)]
        logs += [math.log(4 * m) for m in (c.max_rotation, c.max_shear, c.max_translation)]
        bell = -F.softplus(torch.cat([scale, turn], -1)) - F.softplus(-torch.cat([scale, turn], -1))
        rows = zip(bell.split([2, 1, 1, 2], -1), logs, strict=True)
        return torch.cat([row + log for row, log in rows], -1)


def matrix(action: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 2 3"]:
    """[A | t], the map from points of the part's frame to points of the parent's frame.

    Args:
        action: actions, (..., 6), in the units of `UNITS`.

    Returns:
        Maps, (..., 2, 3).
    """
    sx, sy, rotation, m, x, y = action.unbind(-1)
    c, s = rotation.cos(), rotation.sin()
    top = torch.stack([c * sx, (c * m - s) * sy, x], -1)
    bottom = torch.stack([s * sx, (s * m + c) * sy, y], -1)
    return torch.stack([top, bottom], -2)


def inverse_matrix(action: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 2 3"]:
    """[A | t]^-1 in closed form, the map from points of the parent's frame to the part's.

    Args:
        action: actions, (..., 6), in the units of `UNITS`, with scales above 0.

    Returns:
        Maps, (..., 2, 3).
    """
    sx, sy, rotation, m, x, y = action.unbind(-1)
    c, s = rotation.cos(), rotation.sin()
    a, b = (c + m * s) / sx, (s - m * c) / sx
    d, e = -s / sy, c / sy
    top = torch.stack([a, b, -(a * x + b * y)], -1)
    bottom = torch.stack([d, e, -(d * x + e * y)], -1)
    return torch.stack([top, bottom], -2)


def decompose(matrix: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b 6"]:
    """The action of a map: the inverse of `matrix`.

    >>> action = torch.tensor([0.5, 0.25, 0.3, 0.1, -0.2, 0.4])
    >>> torch.allclose(decompose(matrix(action)), action)
    True

    Args:
        matrix: maps with a positive determinant, (..., 2, 3), such as the products of actions'
            maps.

    Returns:
        Actions, (..., 6), in the units of `UNITS`, with the rotation in [-pi, pi].
    """
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in matrix.unbind(-2))
    sx = torch.hypot(a, c)
    sy = (a * d - b * c) / sx
    return torch.stack([sx, sy, torch.atan2(c, a), (a * b + c * d) / (sx * sy), x, y], -1)


def compose(
    outer: Float[Tensor, "*#b 2 3"], inner: Float[Tensor, "*#b 2 3"]
) -> Float[Tensor, "*b 2 3"]:
    """The map that applies `inner` first and `outer` second.

    With the maps of a sub-part and of its part it takes the sub-part's frame to the image's.

    Args:
        outer: maps, (..., 2, 3).
        inner: maps, (..., 2, 3), of shapes that broadcast.

    Returns:
        Maps, (..., 2, 3), in at least float32.
    """
    outer, inner = full_precision(outer), full_precision(inner)
    with torch.autocast(outer.device.type, enabled=False):
        linear = outer[..., :2] @ inner[..., :2]
        translation = outer[..., :2] @ inner[..., 2:] + outer[..., 2:]
        return torch.cat([linear, translation], -1)


def area(action: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b"]:
    """The area of a part over the area of its parent's canvas.

    Args:
        action: actions, (..., 6).

    Returns:
        Ratios, (...), scale_x * scale_y.
    """
    return action[..., 0] * action[..., 1]


def coverage(config: RNPConfig) -> tuple[float, ...]:
    """The share of the image that the parts of each level can cover at most, in [0, 1].

    It is bounded by the parts' number and area, and by how far from the centre they reach. With a
    share below 1, some of an image that is full of ink or colour stays blank.

    >>> coverage(RNPConfig(steps=(4, 4), max_scale=0.25))  # 4/16, and 4/16 of that
    (0.25, 0.0625)

    Args:
        config: gives the number of parts and the bounds of actions.

    Returns:
        A share for each level, that of the parts first; () of a flat program.
    """
    c, m = config, 1 + config.max_shear
    # The farthest corner of a part of scale 1, to the right of its centre and below it.
    x, y = min(c.max_rotation, math.atan(1 / m)), min(c.max_rotation, math.atan(m))
    corner = (m * math.cos(x) + math.sin(x), m * math.sin(y) + math.cos(y))
    reach = math.prod(min(1.0, c.max_translation + c.max_scale * far) for far in corner)
    edge = math.inf if c.composed else reach  # composed leaves may leave their part's frame

    def share(steps: tuple[int, ...]) -> float:
        """Of a parent's canvas, by parts that are as full as their own parts can make them."""
        return min(edge, steps[0] * c.max_scale**2 * share(steps[1:])) if steps else 1.0

    return tuple(min(1.0, edge, share(c.steps[: d + 1])) for d in range(c.depth))


def warp(
    image: Float[Tensor, "n c h w"],
    to_source: Float[Tensor, "n 2 3"],
    size: int,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Float[Tensor, "n c {size} {size}"]:
    """Read images at `to_source(p)` for each pixel centre p of a `size` x `size` canvas.

    Frames span [-1, 1] from outer edge to outer edge (`align_corners=False`); outside of the image
    there are zeros.

    Args:
        image: images to read, (N, C, H, W).
        to_source: maps from the canvas's frame to the image's, (N, 2, 3).
        size: pixels across the canvas.
        mode: the interpolation between pixels.

    Returns:
        Canvases, (N, C, size, size), in at least float32.
    """
    with torch.autocast(image.device.type, enabled=False):
        grid = points(to_source, size)
        return F.grid_sample(full_precision(image), grid, mode=mode, align_corners=False)


def points(to_source: Float[Tensor, "n 2 3"], size: int) -> Float[Tensor, "n {size} {size} 2"]:
    """The points to which maps take each pixel centre of a `size` x `size` canvas.

    Args:
        to_source: maps, (N, 2, 3).
        size: pixels across the canvas.

    Returns:
        Points (x, y), (N, size, size, 2), by row and column.
    """
    to_source = full_precision(to_source)
    with torch.autocast(to_source.device.type, enabled=False):
        return (to_source.flatten(1) @ _grid(size, to_source)).view(-1, size, size, 2)


@constant
def _grid(size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "6 grid"]:
    """The matrix that takes a map's six numbers to the images of all pixel centres.

    One product serves all maps; `F.affine_grid` makes one for each, 9 times slower on a CPU.
    """
    centre = (2 * torch.arange(size, dtype=dtype, device=device) + 1) / size - 1
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    point = torch.stack([x, y, torch.ones_like(x)])  # (3, size, size)
    eye = torch.eye(2, dtype=dtype, device=device)
    return torch.einsum("ij,phw->iphwj", eye, point).reshape(6, -1)


def place(
    patch: Float[Tensor, "n c h w"], action: Float[Tensor, "n 6"], size: int
) -> Float[Tensor, "n c {size} {size}"]:
    """g(patch, a): a patch on an otherwise empty canvas of its parent.

    Source: the paper, Algorithm 1.

    Args:
        patch: patches, (N, C, H, W).
        action: where they go, (N, 6).
        size: pixels across the parent's canvas.

    Returns:
        Canvases, (N, C, size, size).
    """
    return warp(patch, inverse_matrix(action), size)


def glimpse(
    image: Float[Tensor, "n c h w"], action: Float[Tensor, "n 6"], size: int
) -> Float[Tensor, "n c {size} {size}"]:
    """The inverse of `place`: zoom into the parent's canvas at a part's place.

    Args:
        image: the parent's canvases, or images, (N, C, H, W).
        action: where the parts are, (N, 6).
        size: pixels across the result.

    Returns:
        Patches, (N, C, size, size), in the parts' own frames.
    """
    return warp(image, matrix(action), size)
