"""What if a part were elsewhere, other, or not there at all: interventions on a parse.

`intervene` runs a tree's program again with some sites set from outside, by Pyro's `do`. `move`,
`rotate`, `scale` and `remove` make actions of actions; `graft` takes a part out of one tree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor

from inference.isolation import frozen
from inference.posterior.evidence import site_value
from inference.posterior.reparam import NonCentered, base_normal, whiten
from pyro_rnp import RNP, ParseTree, RNPConfig
from pyro_rnp.affine import matrix
from pyro_rnp.parse_tree import Path, site_name
from pyro_rnp.sites import is_random


@torch.no_grad()
def intervene(
    rnp: RNP, tree: ParseTree, edits: Mapping[str, Tensor], *, react: bool = False
) -> ParseTree:
    """The tree that the program makes where some of its sites are set from outside.

    What is inside a part whose program changes is run anew. All else keeps its value or, with
    `react`, follows: later parts see what was done to earlier ones. What is random and follows
    keeps the noise with which it was drawn around what the program predicts, so that nothing is
    drawn here (a counterfactual, Pearl, 2009).

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
    old = {name: value for name, value in tree.sites().items() if name != "canvas"}
    new: Any = {name: value.expand(n, -1) for name, value in {**old, **edits}.items()}
    changed = [name for name in edits if name[0] == "z" and not torch.equal(new[name], old[name])]
    loose = {
        name
        for name in old.keys() - edits.keys() - {"z"}
        if react or any(_inside(name, program) for program in changed)
    }
    with frozen(rnp, seed=0):  # nothing that is drawn here is used
        as_it_is: Any = old
        before: Any = poutine.trace(pyro.do(rnp.model, data=as_it_is)).get_trace(None, n).nodes
        noise: Any = {}
        for name in [name for name in loose if is_random(rnp.config, name)]:
            fn = before[name]["fn"]
            if fn.support.check(old[name]).all():
                noise[name] = _SameNoise(fn, old[name])
            else:  # an earlier edit put it where no noise does
                loose.remove(name)
        set_to = {name: value for name, value in new.items() if name not in loose}
        return pyro.do(poutine.reparam(rnp.model, config=noise), data=set_to)(None, n)


class _SameNoise(Reparam):
    """A random site with the noise that it was drawn with, whatever is now predicted."""

    def __init__(self, fn: Any, value: Tensor) -> None:
        self.fn, self.value = fn, value

    def apply(self, msg: Any) -> Any:
        found = NonCentered(whiten(self.fn, self.value)[0]).apply(msg)
        same = base_normal(msg["fn"])[0].loc == base_normal(self.fn)[0].loc
        value = torch.where(same.all(-1, keepdim=True), self.value, found["value"])  # bit for bit
        return {"fn": dist.Delta(value, event_dim=1), "value": value, "is_observed": True}


def _inside(name: str, program: str) -> bool:
    """Whether a site is below the part that has this program."""
    path, outer = name.split("/")[1:], program.split("/")[1:]
    return len(path) > len(outer) and path[: len(outer)] == outer


def move(action: Float[Tensor, "*b 6"], x: float = 0.0, y: float = 0.0) -> Float[Tensor, "*b 6"]:
    """The action of a part that is x to the right and y farther down, in half-widths.

    Raises:
        ValueError: if that is more than 4, as pixels would be.
    """
    if not max(abs(x), abs(y)) <= 4:
        raise ValueError(
            f"A part is moved by half-widths of its parent, from -4 to 4, got {x:g}, {y:g}."
        )
    return action + action.new_tensor([0, 0, 0, 0, x, y])


def rotate(action: Float[Tensor, "*b 6"], angle: float) -> Float[Tensor, "*b 6"]:
    """The action of a part that is turned by an angle, in radians, clockwise.

    Raises:
        ValueError: if that is more than once around, as degrees would be.
    """
    if not abs(angle) <= 2 * math.pi:
        raise ValueError(f"A part is turned by radians, from -6.28 to 6.28, got {angle:g}.")
    return action + action.new_tensor([0, 0, angle, 0, 0, 0])


def scale(action: Float[Tensor, "*b 6"], factor: float) -> Float[Tensor, "*b 6"]:
    """The action of a part that is larger by a factor both ways, about its own centre.

    Raises:
        ValueError: if the factor is not positive, or more than 10, as a percentage would be.
    """
    if not 0 < factor <= 10:
        raise ValueError(f"A part is scaled by a factor above 0, at most 10, got {factor:g}.")
    return action * action.new_tensor([factor, factor, 1, 1, 1, 1])


def remove(action: Float[Tensor, "*b 6"], config: RNPConfig | None = None) -> Float[Tensor, "*b 6"]:
    """The action of a part that lies out of sight, beyond the nearest edge left or right.

    What lies there draws nothing; a later step that reacts sees a part that is far out.

    Args:
        config: the model's. It is needed where placement is composed: a part is then not cut off
            at its parent's frame, and must be moved beyond the image's.
    """
    reach = matrix(action)[..., 0, :2].abs().sum(-1)  # half the frame's width
    side = torch.where(action[..., 4] < 0, -1.0, 1.0)
    beyond = 1.25 + 2 * reach  # sub-parts and outermost pixels reach a little beyond the frame
    if config is not None and config.composed:
        beyond = beyond / config.min_scale ** (config.depth - 1)
    beyond = side * beyond
    return torch.cat([action[..., :4], beyond.unsqueeze(-1), action[..., 5:]], -1)


EDITS: dict[str, tuple[Callable[..., Tensor], int, str]] = {
    "move": (move, 2, "PART:X,Y in half-widths, right and down"),
    "rotate": (rotate, 1, "PART:ANGLE in radians, clockwise"),
    "scale": (scale, 1, "PART:FACTOR"),
    "remove": (remove, 0, "PART"),
}
"""Edits of an action by name, with how many numbers they take and how they are written."""


def read_edit(
    config: RNPConfig, tree: ParseTree, kind: str, text: str, edits: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """An edit of `EDITS` as commands write it: `move` with `1:0.2,0` moves part 1 by 0.2, 0.

    Args:
        edits: what is changed already, and is changed further.

    Raises:
        ValueError: in one sentence, if the text is not such an edit, or there is no such part.
    """
    edit, count, form = EDITS[kind]
    name, _, rest = text.partition(":")
    try:
        numbers = [float(number) for number in rest.split(",") if rest]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"--{kind} takes {form}; got {text!r}.")
    path = read_path(name)
    site = site_name("a", path)
    own = part(tree, path).action if site not in edits else edits[site]
    return {site: edit(own, *(numbers if count else [config]))}


def read_path(text: str) -> Path:
    """A part's place in the tree, from `1` for the second part or `1/3` for its fourth sub-part.

    Raises:
        ValueError: if the text is neither.
    """
    if not re.fullmatch(r"\d+(/\d+)*", text):
        raise ValueError(f"A part is written as 1, a sub-part as 1/3, not {text!r}.")
    return tuple(int(i) for i in text.split("/"))


def part(tree: ParseTree, path: Path) -> ParseTree:
    """The part of a tree at a path.

    Raises:
        ValueError: if there is none.
    """
    node = tree
    for i in path:
        if not 0 <= i < len(node):
            raise ValueError(f"There is no part {site_name('z', path)[2:]} in the tree.")
        node = node[i]
    return node


def graft(
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
    edits = {}
    for below, found in part(source, path).walk():
        edits[site_name("z", (*at, *below))] = found.program
        if found.action is not None and (below or pose):
            edits[site_name("a", (*at, *below))] = found.action
    return edits
