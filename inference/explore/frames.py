"""Frames of parts in the image, with handles by which they are moved, turned, scaled and sheared.

Places in the image are shares of its width and height, (0, 0) at the upper left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from matplotlib.colors import to_hex
from torch import Tensor

from pyro_rnp import ParseTree, RNPConfig
from pyro_rnp.affine import FIELDS, UNITS, codomain, compose, matrix
from pyro_rnp.plotting import COLOURS, shades

COLOUR_BLIND = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""A palette whose colours people of every kind of colour vision tell apart (Okabe and Ito, 2008),
as near to the paper's as it allows."""
HANDLES = {
    "move": (0.0, 0.0),
    "scale": (1.0, 1.0),
    "scale_x": (1.0, 0.0),
    "scale_y": (0.0, 1.0),
    "rotate": (0.0, -1.0),
    "shear": (-1.0, 1.0),
}
"""Handles of a frame, with their places in the part's own frame, [-1, 1]^2."""
CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
FIELD_LABELS = dict(
    zip(FIELDS, ("Width", "Height", "Rotation", "Shear", "Right", "Down"), strict=True)
)
"""What to call an action's numbers."""


class Number(NamedTuple):
    """One of an action's six numbers."""

    field: str
    """Of `pyro_rnp.affine.FIELDS`."""
    label: str
    value: float
    unit: str
    low: float
    """The least that the model allows."""
    high: float
    """The most that the model allows."""


@dataclass(frozen=True)
class Part:
    """A part of the parse, to be drawn and taken hold of."""

    path: str
    """Numbers of the part and the sub-parts down to it, as `1/3`; they count from 0."""
    depth: int
    """1 of a part, 2 of a sub-part."""
    level: int
    """K - 1 of a part, 0 of a leaf."""
    label: str
    """Such as `part 1`, `sub-part 1/3`."""
    colour: str
    """As #1f77b4."""
    corners: tuple[tuple[float, float], ...]
    """The four corners of the frame in the image: upper left, upper right, lower right, lower left
    of the part's own frame."""
    numbers: tuple[Number, ...]
    """The six numbers of its action."""
    outer: Float[Tensor, "2 3"]
    """The map from the frame of its parent to that of the image, both [-1, 1]^2."""

    @property
    def site(self) -> str:
        """The name of its action's site, as `a/1/3`."""
        return f"a/{self.path}"

    @property
    def program(self) -> str:
        """The name of its program's site, as `z/1/3`."""
        return f"z/{self.path}"

    @property
    def action(self) -> tuple[float, ...]:
        """The values of its six numbers."""
        return tuple(number.value for number in self.numbers)

    @property
    def removed(self) -> bool:
        """Whether it was taken away: its centre lies farther out than the model allows."""
        across = self.numbers[FIELDS.index("x")]
        return not across.low <= across.value <= across.high

    def bounded(self, values: Sequence[float]) -> list[float]:
        """Return numbers of an action within the model's bounds.

        Args:
            values: six numbers.
        """
        return [min(max(v, n.low), n.high) for v, n in zip(values, self.numbers, strict=True)]


def parts(tree: ParseTree, config: RNPConfig, palette: Sequence[Any] = COLOURS) -> list[Part]:
    """List all parts of a parse to every depth, parts before sub-parts.

    Args:
        tree: of one image.
        config: the model's, for the bounds of actions.
        palette: colours of the parts, in their order; they repeat, and sub-parts have shades of
            them. `COLOUR_BLIND` is another.
    """
    box: Any = codomain(config, tree.program)
    bounds = list(zip(box.lower_bound.tolist(), box.upper_bound.tolist(), strict=True))
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    maps, above, found = torch.eye(2, 3).unsqueeze(0), [tuple[int, ...]()], []
    for depth in range(1, tree.level + 1):
        colours = shades(tree, depth, palette) if depth > 1 else [*palette] * len(tree)
        nodes = [(path, node) for path, node in tree.walk() if len(path) == depth]
        outer = maps[[above.index(path[:-1]) for path, _ in nodes]]
        actions = torch.cat([node.action for _, node in nodes if node.action is not None]).cpu()
        maps, above = compose(outer, matrix(actions)), [path for path, _ in nodes]
        places = (1 + corners @ maps[:, :, :2].mT + maps[:, :, 2].unsqueeze(1)) / 2
        for i, ((path, node), action, where, colour) in enumerate(
            zip(nodes, actions.tolist(), places.tolist(), colours, strict=False)
        ):
            name = "/".join(map(str, path))
            numbers = tuple(
                Number(field, FIELD_LABELS[field], value, UNITS[field], *limits)
                for field, value, limits in zip(FIELDS, action, bounds, strict=True)
            )
            found.append(
                Part(
                    path=name,
                    depth=depth,
                    level=node.level,
                    label=f"{'sub-' * (depth - 1)}part {name}",
                    colour=to_hex(colour),
                    corners=tuple((x, y) for x, y in where),
                    numbers=numbers,
                    outer=outer[i],
                )
            )
    return found


def _shown(to_image: Tensor, u: tuple[float, float]) -> tuple[float, float]:
    """The place in the image of a point of a frame."""
    x, y = (to_image[:, :2] @ to_image.new_tensor(u) + to_image[:, 2]).tolist()
    return (x + 1) / 2, (y + 1) / 2


def handles(part: Part) -> dict[str, tuple[float, float]]:
    """Return the places of a part's handles in the image, by the names of `HANDLES`.

    Args:
        part: the part.
    """
    to_image = compose(part.outer, matrix(torch.tensor(part.action)))
    return {name: _shown(to_image, u) for name, u in HANDLES.items()}


def dragged(part: Part, handle: str, dx: float, dy: float) -> list[float]:
    """Return the six numbers of a part's action after one of its handles was dragged.

    Numbers stop at their bounds.

    Args:
        part: as it was when the handle was taken.
        handle: of `HANDLES`. "move" moves the centre; the others leave it where it is.
        dx, dy: how far the handle was dragged in all, to the right and down, as shares of the
            image's width and height.

    Raises:
        ValueError: in one sentence, if there is no such handle, or a number is not finite.
    """
    if handle not in HANDLES:
        raise ValueError(f"There is no handle {handle!r}; there are {', '.join(HANDLES)}.")
    if not (math.isfinite(dx) and math.isfinite(dy)):
        raise ValueError(f"A handle is dragged by finite numbers, got {dx}, {dy}.")
    sx, sy, rotation, shear, x, y = part.action
    linear = part.outer[:, :2].double()
    by = torch.linalg.solve(linear, linear.new_tensor([2 * dx, 2 * dy]))
    u = by.new_tensor(HANDLES[handle])
    before = matrix(by.new_tensor(part.action))[:, :2] @ u
    (bx, by_), (ax, ay) = before.tolist(), (before + by).tolist()
    if handle == "move":
        x, y = x + ax, y + ay
    elif handle == "rotate":
        turn = math.atan2(ay, ax) - math.atan2(by_, bx)
        rotation += math.remainder(turn, 2 * math.pi)
    else:
        c, s = math.cos(rotation), math.sin(rotation)
        ax, ay = c * ax + s * ay, c * ay - s * ax  # in axes that turn with the part
        if handle == "shear":
            shear = (ax - u[0].item() * sx) / (u[1].item() * sy)
        else:
            sx = ax - shear * ay if handle != "scale_y" else sx
            sy = ay if handle != "scale_x" else sy
    return part.bounded((sx, sy, rotation, shear, x, y))
