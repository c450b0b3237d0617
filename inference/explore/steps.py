"""Parses as they are after some steps of the program."""

from __future__ import annotations

from dataclasses import replace

from pyro_rnp import ParseTree
from pyro_rnp.parse_tree import Path, sheets

FAR = 1e4
"""Half-widths of a parent beyond which nothing is seen."""


def up_to(node: ParseTree, path: Path) -> ParseTree:
    """A node with what its program has drawn up to the step at a path.

    Within a part, later sub-parts stay, but out of sight, since shades depend on their number.

    Args:
        node: the node, with a renderer.
        path: of the step, from the node on.
    """
    if not path:
        return node
    later = () if node.action is None else map(_out_of_sight, node.children[path[0] + 1 :])
    below = (*node.children[: path[0]], up_to(node[path[0]], path[1:]), *later)
    renderer = node.renderer
    assert renderer is not None
    canvas = renderer.render(sheets(below, renderer.composed), node.canvas.shape[-1])
    return replace(node, children=below, canvas=canvas)


def _out_of_sight(node: ParseTree) -> ParseTree:
    """A part with its frame, far beyond the image."""
    assert node.action is not None
    return replace(node, action=node.action + node.action.new_tensor([0, 0, 0, 0, FAR, 0]))
