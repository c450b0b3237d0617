"""What if a part were elsewhere, other, or not there at all: interventions on a parse.

`what_if` runs a tree's program again with some sites set from outside, by Pyro's `do`. `moved`,
`turned`, `scaled` and `removed` make actions of actions; `grafted` takes a part out of one tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from jaxtyping import Float
from torch import Tensor

from inference.given import is_random, site_value
from inference.target import at_rest
from pyro_rnp import RNP, ParseTree
from pyro_rnp.affine import matrix
from pyro_rnp.tree import Path, site_name


@torch.no_grad()
def what_if(
    rnp: RNP, tree: ParseTree, edits: Mapping[str, Tensor], *, react: bool = False
) -> ParseTree:
    """The tree that the program makes where some of its sites are set from outside.

    What is inside a part whose program is set is run anew. All else that is random keeps its
    value, and what the model determines keeps it too or, with `react`, follows: later parts see
    what was done to earlier ones.

    Args:
        tree: of N images, as `rnp.parse`, `rnp.sample` or a query gives it.
        edits: sites, as `z/1` or `a/0`, to values, (N, d) or (d,) for all images. Actions may lie
            outside of the configuration's bounds.
        react: whether later steps may react.

    Raises:
        ValueError: in one sentence, if a site does not exist or a value is not what it takes.
    """
    edits = {
        name: site_value(rnp.config, name, value, bounds=False).to(tree.program)
        for name, value in edits.items()
    }
    n = len(tree.program)
    for name, value in edits.items():
        if value.ndim == 2 and len(value) not in (1, n):
            raise ValueError(f"{name} is set for {len(value)} images, but the tree has {n}.")
    held = {
        name: value
        for name, value in tree.sites().items()
        if name != "canvas"
        and (is_random(rnp.config, name) or not react)
        and not any(_inside(name, program) for program in edits if program[0] == "z")
    }
    values: Any = {name: v.expand(n, -1) for name, v in {**held, **edits}.items()}
    devices = [rnp.device] if rnp.device.type == "cuda" else []
    with torch.random.fork_rng(devices), at_rest(rnp):
        return pyro.do(rnp.model, data=values)(None, n)


def _inside(name: str, program: str) -> bool:
    """Whether a site is below the part that has this program."""
    path, outer = name.split("/")[1:], program.split("/")[1:]
    return len(path) > len(outer) and path[: len(outer)] == outer


def moved(action: Float[Tensor, "*b 6"], x: float = 0.0, y: float = 0.0) -> Float[Tensor, "*b 6"]:
    """The action of a part that is x to the right and y farther down, in half-widths."""
    return action + action.new_tensor([0, 0, 0, 0, x, y])


def turned(action: Float[Tensor, "*b 6"], angle: float) -> Float[Tensor, "*b 6"]:
    """The action of a part that is turned by an angle, in radians, clockwise."""
    return action + action.new_tensor([0, 0, angle, 0, 0, 0])


def scaled(action: Float[Tensor, "*b 6"], factor: float) -> Float[Tensor, "*b 6"]:
    """The action of a part that is larger by a factor both ways, about its own centre.

    Raises:
        ValueError: if the factor is not positive.
    """
    if factor <= 0:
        raise ValueError(f"A part is scaled by a positive factor, got {factor}.")
    return action * action.new_tensor([factor, factor, 1, 1, 1, 1])


def removed(action: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 6"]:
    """The action of a part that lies just out of sight, beyond the nearest edge left or right.

    What lies there draws nothing; a later step that reacts sees a part that is far out.
    """
    reach = matrix(action)[..., 0, :2].abs().sum(-1)  # half the frame's width
    side = torch.where(action[..., 4] < 0, -1.0, 1.0)
    beyond = side * (1.25 + reach)  # a patch's outermost pixels fade out half a pixel beyond it
    return torch.cat([action[..., :4], beyond.unsqueeze(-1), action[..., 5:]], -1)


def grafted(
    source: ParseTree, path: Path, at: Path | None = None, pose: bool = True
) -> dict[str, Tensor]:
    """The edits that put a part of one tree into another: its program and all that is below.

    Args:
        source: a tree of as many images as the tree that it goes into, or of one.
        path: the part, (1,) for the second, (1, 3) for its fourth sub-part.
        at: which part of the other tree it becomes; by default the same.
        pose: whether it brings its action, its place in its parent's frame, along.

    Raises:
        ValueError: if the source has no such part, or the other part has another level.
    """
    at = path if at is None else at
    if not path or len(at) != len(path):
        raise ValueError(
            f"A part takes the place of one of its own level, not {path} that of {at}."
        )
    node = source
    for i in path:
        if not 0 <= i < len(node):
            raise ValueError(f"There is no part {site_name('z', path)[2:]} in the tree.")
        node = node[i]
    edits = {}
    for below, found in node.walk():
        edits[site_name("z", (*at, *below))] = found.program
        if found.action is not None and (below or pose):
            edits[site_name("a", (*at, *below))] = found.action
    return edits
