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

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pyro_rnp.config import RNPConfig

FIELDS = ("scale_x", "scale_y", "rotation", "shear", "x", "y")
UNITS = {
    "scale_x": "part size over parent size",
    "scale_y": "part size over parent size",
    "rotation": "radians, clockwise",
    "shear": "horizontal shift per unit of height",
    "x": "canvas half-widths, right of the centre",
    "y": "canvas half-widths, below the centre",
}


def full_precision(x: Tensor) -> Tensor:
    """At least float32: geometry and densities are not computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def bounded(raw: Float[Tensor, "*b 6"], config: RNPConfig) -> Float[Tensor, "*b 6"]:
    """Six unbounded numbers, as T_θ gives them, to an action within the configuration's bounds."""
    raw = full_precision(raw)
    c, turn = config, raw[..., 2:].tanh()
    scale = c.min_scale + (c.max_scale - c.min_scale) * raw[..., :2].sigmoid()
    rotation, shear = c.max_rotation * turn[..., :1], c.max_shear * turn[..., 1:2]
    return torch.cat([scale, rotation, shear, c.max_translation * turn[..., 2:]], -1)


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
    linear = outer[..., :2] @ inner[..., :2]
    translation = outer[..., :2] @ inner[..., 2:] + outer[..., 2:]
    return torch.cat([linear, translation], -1)


def area(action: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b"]:
    """Area of the part over the area of its parent's canvas."""
    return action[..., 0] * action[..., 1]


def warp(
    image: Float[Tensor, "n c h w"], to_source: Float[Tensor, "n 2 3"], size: int
) -> Float[Tensor, "n c {size} {size}"]:
    """The image read at `to_source(p)` for each pixel centre p of a `size` x `size` canvas.

    Bilinear, zero outside the image; frames span [-1, 1] from outer edge to outer edge.
    """
    with torch.autocast(image.device.type, enabled=False):
        grid = to_source.flatten(1) @ _grid(size, to_source)
        grid = grid.view(-1, size, size, 2)
        return F.grid_sample(full_precision(image), grid, align_corners=False)


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
