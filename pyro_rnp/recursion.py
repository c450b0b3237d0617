"""The recursion: a program places parts, each of which is a program (the paper's Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.affine import place
from pyro_rnp.config import RNPConfig
from pyro_rnp.hypernet import Hypernetwork, State
from pyro_rnp.tree import ParseTree, Path, site_name

Site = Callable[[str, Tensor], Tensor]
"""Called with a site's name and its value (N, ...) as soon as a step has made it; what it returns
is what the rest of the run uses. The Pyro model names its sites through this."""


class Recursion(nn.Module):
    """Runs top-level programs, and all that they call, into a `ParseTree`; no randomness here."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.config = config
        self.hypernet = Hypernetwork(config)
        self.recompute_levels = 0
        """Levels, from the leaves' parents (1) up, whose generated weights are not kept for the
        backward pass but written again there: less memory for more time, the same result."""

    def forward(self, z: Float[Tensor, "n z"], site: Site | None = None) -> ParseTree:
        """Run the programs z^K of N images.

        Args:
            z: top-level programs, (N, |z|).
            site: see `Site`; by default values are used as they are.
        """
        (tree,) = self._run([z], self.config.depth, [()], site)
        return tree

    def _run(
        self, programs: list[Tensor], level: int, paths: list[Path], site: Site | None
    ) -> list[ParseTree]:
        """Run M sibling programs of N images side by side, (N, |z|) each; a tree for each."""
        m, n, config = len(programs), len(programs[0]), self.config
        theta = self.hypernet(torch.cat(programs), recompute=level <= self.recompute_levels)
        state = theta.initial
        parts: list[ParseTree] = []  # each step's M parts, in order
        for t in range(config.steps[config.depth - level]):
            here = [(*path, t) for path in paths]
            h_state, h_policy, action = theta.step(state)
            h_state = _named("z", h_state, here, site)
            action = _named("a", action, here, site)
            decoding = theta.D(h_state)
            made = list(zip(*(v.split(n) for v in (h_state, action, decoding)), strict=True))
            if level > 1 and config.feedback == "canvas":
                subtrees = self._run([program for program, _, _ in made], level - 1, here, site)
                patch = torch.cat([tree.canvas for tree in subtrees])
            else:
                subtrees = [ParseTree(program, canvas) for program, _, canvas in made]
                patch = decoding
            state = State(h_state, h_policy, patch, action)
            parts += [
                replace(tree, action=a, decoding=d)
                for tree, (_, a, d) in zip(subtrees, made, strict=True)
            ]
        if level > 1 and config.feedback == "decoding":
            below = [(*path, t) for t in range(len(parts) // m) for path in paths]
            subtrees = self._run([part.program for part in parts], level - 1, below, site)
            parts = [
                replace(tree, action=part.action, decoding=part.decoding)
                for tree, part in zip(subtrees, parts, strict=True)
            ]
        patches = torch.cat([part.canvas for part in parts])
        actions = torch.cat([part.action for part in parts if part.action is not None])
        placed = place(patches, actions, config.canvas_size(level))
        canvases = placed.unflatten(0, (-1, m, n)).sum(0)
        return [
            ParseTree(program, canvas, children=tuple(parts[i::m]))
            for i, (program, canvas) in enumerate(zip(programs, canvases, strict=True))
        ]


def _named(kind: str, value: Tensor, paths: list[Path], site: Site | None) -> Tensor:
    """Pass each sibling's share of a step's value through its site."""
    if site is None:
        return value
    shares = zip(paths, value.split(len(value) // len(paths)), strict=True)
    return torch.cat([site(site_name(kind, path), share) for path, share in shares])
