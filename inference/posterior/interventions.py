"""Interventions on a parse: a part is moved, rotated, scaled, removed or replaced.

`intervene` runs a tree's program again with some sites set from outside, by Pyro's `do`. `move`,
`rotate`, `scale` and `remove` map an action to another; `graft` gives the edits that put a part of
one tree into another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from pyro_rnp.parse_tree import Path, read_path, sheets, site_name
from pyro_rnp.sites import is_random


@torch.no_grad()
def intervene(
    rnp: RNP, tree: ParseTree, edits: Mapping[str, Tensor], *, react: bool = False
) -> ParseTree:
    """Set sites of a tree from outside and run the rest of its program: a counterfactual.

    Sites inside a part whose program changes run anew. All other sites keep their values or, with
    `react`, run anew too, so that later parts react to edits of earlier ones. A random site that
    runs anew keeps the noise with which it was drawn around the program's prediction, so that
    nothing is drawn here, and without an edit the tree stays the same.

    Source: Pearl, "Causality", 2009, section 7.1 (abduction, action, prediction).

    Args:
        rnp: the model that made the tree.
        tree: of N images, as `rnp.parse`, `rnp.sample` or a query gives it.
        edits: sites, as `z/1` or `a/0` (parts count from 0), to values, (N, d) or (d,) for all
            images. Actions may lie outside of the configuration's bounds, but scales must be
            positive.
        react: whether steps after an edit may react to it.

    Returns:
        The tree of N images after the edits, its canvas included.

    Raises:
        ValueError: in one sentence, if a site does not exist or a value does not fit it.

    >>> from pyro_rnp import RNPConfig
    >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 1), program_size=3))
    >>> tree = rnp.parse(torch.rand(2, 1, 8, 8))
    >>> after = intervene(rnp, tree, {"a/1": move(tree[1].action, x=0.2)})
    >>> bool(torch.equal(after[0].action, tree[0].action)), after.canvas.shape
    (True, torch.Size([2, 1, 8, 8]))
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
    if not changed and not react:
        with frozen(rnp):
            return _placed(rnp, tree, new)
    with frozen(rnp, seed=0):  # nothing that is drawn here is used
        as_it_is: Any = old
        before: Any = poutine.trace(pyro.do(rnp.model, data=as_it_is)).get_trace(None, n).nodes
        noise: Any = {}
        for name in [name for name in loose if is_random(rnp.config, name)]:
            fn = before[name]["fn"]
            if fn.support.check(old[name]).all():
                noise[name] = _SameNoise(fn, old[name])
            else:  # no noise gives this value, which an earlier edit set
                loose.remove(name)
        set_to = {name: value for name, value in new.items() if name not in loose}
        return pyro.do(poutine.reparam(rnp.model, config=noise), data=set_to)(None, n)


def _placed(rnp: RNP, tree: ParseTree, values: Mapping[str, Tensor], path: Path = ()) -> ParseTree:
    """The tree with other actions, for which only canvases above them are drawn again."""
    below = tuple(_placed(rnp, part, values, (*path, i)) for i, part in enumerate(tree))
    if tree.action is not None:
        action = values[site_name("a", path)]
        tree = tree if torch.equal(action, tree.action) else replace(tree, action=action)
    if all(new is old for new, old in zip(below, tree, strict=True)):
        return tree
    renderer = rnp.model.recursion.renderer
    canvas = renderer.render(sheets(below, renderer.composed), tree.canvas.shape[-1])
    return replace(tree, canvas=canvas, children=below)


class _SameNoise(Reparam):
    """A random site with the noise that it was drawn with, around the present prediction."""

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
    """Return the action of a part after a translation.

    Args:
        action: (..., 6).
        x, y: to the right and down, in half-widths of the parent's frame, from -4 to 4.

    Raises:
        ValueError: if x or y is out of that range, as a number of pixels would be.
    """
    if not max(abs(x), abs(y)) <= 4:
        raise ValueError(
            f"A part is moved by half-widths of its parent, from -4 to 4, got {x:g}, {y:g}."
        )
    return action + action.new_tensor([0, 0, 0, 0, x, y])


def rotate(action: Float[Tensor, "*b 6"], angle: float) -> Float[Tensor, "*b 6"]:
    """Return the action of a part after a rotation about its own centre.

    Args:
        action: (..., 6).
        angle: clockwise, in radians, from -2 pi to 2 pi.

    Raises:
        ValueError: if the angle is out of that range, as degrees would be.
    """
    if not abs(angle) <= 2 * math.pi:
        raise ValueError(f"A part is rotated by radians, from -6.28 to 6.28, got {angle:g}.")
    return action + action.new_tensor([0, 0, angle, 0, 0, 0])


def scale(action: Float[Tensor, "*b 6"], factor: float) -> Float[Tensor, "*b 6"]:
    """Return the action of a part scaled about its own centre.

    Args:
        action: (..., 6).
        factor: of both scales, above 0 and at most 10.

    Raises:
        ValueError: if the factor is out of that range, as a percentage would be.
    """
    if not 0 < factor <= 10:
        raise ValueError(f"A part is scaled by a factor above 0, at most 10, got {factor:g}.")
    return action * action.new_tensor([factor, factor, 1, 1, 1, 1])


def remove(action: Float[Tensor, "*b 6"], config: RNPConfig | None = None) -> Float[Tensor, "*b 6"]:
    """Return the action of a part moved out of sight, beyond the nearer of left and right edge.

    There the part draws nothing; later steps that react see an action far out.

    Args:
        action: (..., 6).
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
"""Edits of an action by name: the function, how many numbers it takes, and the command's syntax."""


def read_edit(
    config: RNPConfig, tree: ParseTree, kind: str, text: str, edits: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Read an edit of `EDITS` as commands write it: `move` with `1:0.2,0` moves part 1 by 0.2, 0.

    Args:
        config: the model's.
        tree: the parse that is edited.
        kind: the name of the edit.
        text: the part, as `1` or `1/3`, which count from 0, and its numbers.
        edits: edits before this one, which it builds on.

    Returns:
        The action's site and its value, for `intervene`.

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
    own = tree.part(path).action if site not in edits else edits[site]
    return {site: edit(own, *(numbers if count else [config]))}


def graft(
    source: ParseTree, path: Path, at: Path | None = None, pose: bool = True
) -> dict[str, Tensor]:
    """Return the edits that put a part of one tree into another: its program and all sites below.

    Args:
        source: a tree of as many images as the tree that the part goes into, or of one.
        path: the part, (1,) for the second, (1, 3) for its fourth sub-part; parts count from 0.
        at: the part of the other tree that it replaces; by default the one at the same path.
        pose: whether the part keeps its own action, or takes that of the part it replaces.

    Returns:
        Sites and values for `intervene`.

    Raises:
        ValueError: if the source has no such part, or the other part has another level.
    """
    at = path if at is None else at
    if not path or len(at) != len(path):
        raise ValueError(
            f"A part takes the place of one of its own level, not {path} that of {at}."
        )
    edits = {}
    for below, found in source.part(path).walk():
        edits[site_name("z", (*at, *below))] = found.program
        if found.action is not None and (below or pose):
            edits[site_name("a", (*at, *below))] = found.action
    return edits
