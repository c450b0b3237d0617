"""The recursion: a program places parts, each of which is a program (the paper's Algorithm 1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.affine import bounded, glimpse
from pyro_rnp.config import RNPConfig
from pyro_rnp.hypernet import Hypernetwork, State
from pyro_rnp.parse_tree import ParseTree, Path, sheets
from pyro_rnp.registry import PROGRAMS
from pyro_rnp.rendering import Renderer


class Sites:
    """What becomes of each action and program as soon as a step has made it.

    What these give is what the rest of the run uses. This one uses what the networks say; the
    Pyro model and guides name and draw their sites through others. M siblings of N images come
    together, (M * N, ...), one path for each.
    """

    def __init__(self, config: RNPConfig) -> None:
        self.config = config

    def action(self, paths: list[Path], raw: Tensor, glimpsed: Tensor | None) -> Tensor:
        """From an action before it is bounded, (M * N, 6), to an action in its units.

        Args:
            glimpsed: (M * N, C, S, S), where the run has a target: what it holds at the predicted
                place beyond what has been drawn.
        """
        return bounded(raw, self.config)

    def program(self, paths: list[Path], h_state: Tensor, glimpsed: Tensor | None) -> Tensor:
        """From a predicted program, (M * N, |z|), to the program that runs.

        Args:
            glimpsed: as for `action`, but where the part is now to be.
        """
        return h_state


@PROGRAMS.add("recursive")
class Recursion(nn.Module):
    """Runs top-level programs, and all that they call, into a `ParseTree`; no randomness here."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.config = config
        self.renderer = Renderer(config)
        shared = config.hypernet == "shared"
        self.hypernets = nn.ModuleList(
            Hypernetwork(config, self.renderer.placement)
            for _ in range(1 if shared else config.depth)
        )
        """One for all levels, or one for each, the top level's first."""
        self.levels = config.depth
        """Levels that are run, from the top; below, parts are their parents' own decodings."""
        self.recompute_levels = 0
        """Levels, from the leaves' parents (1) up, whose generated weights are not kept for the
        backward pass but written again there: less memory for more time, the same result."""

    def forward(
        self,
        z: Float[Tensor, "n z"],
        sites: Sites | None = None,
        target: Float[Tensor, "n c h w"] | None = None,
    ) -> ParseTree:
        """Run the programs z^K of N images.

        Args:
            z: top-level programs, (N, |z|).
            sites: see `Sites`; by default what the networks say is used.
            target: images of which `sites` is shown what is not yet drawn.
        """
        sites = Sites(self.config) if sites is None else sites
        return self._run(z, self.config.depth, [()], sites, target)

    def run_level(self, programs: Float[Tensor, "n z"], level: int) -> ParseTree:
        """Run programs as those of parts, at a level below K: canvases in a part's own frame.

        Raises:
            ValueError: if there is no such level.
        """
        depth = self.config.depth - level
        if not 0 <= depth < self.config.depth:
            raise ValueError(f"level must lie in [1, {self.config.depth}], got {level}.")
        return self._run(programs, level, [(0,) * depth], Sites(self.config), None)

    def _run(
        self,
        programs: Tensor,
        level: int,
        paths: list[Path],
        sites: Sites,
        target: Tensor | None,
    ) -> ParseTree:
        """Run M sibling programs of N images side by side, (M * N, |z|), into a tree of as many."""
        config, renderer = self.config, self.renderer
        depth, size = config.depth - level, config.canvas_size(level)
        leaves = depth + 1 == self.levels
        hypernet = self.hypernets[depth % len(self.hypernets)]
        theta = hypernet(programs, recompute=level <= self.recompute_levels)
        state = theta.initial
        parts: list[ParseTree] = []
        targets: list[Tensor] = []
        for t in range(config.steps[depth]):
            here = [(*path, t) for path in paths]
            h_state, h_policy, raw = theta.step(state)
            left = glimpsed = None
            if target is not None:
                left = target - self._canvas(parts, size) if parts else target
                glimpsed = glimpse(left, bounded(raw, config), config.patch_size)
            action = sites.action(here, raw, glimpsed)
            if left is not None:
                glimpsed = glimpse(left, action, config.patch_size)
                targets.append(glimpsed)
            h_state = sites.program(here, h_state, glimpsed)
            appearance = theta.D(h_state)
            decoding = renderer.placement.patch(appearance)
            if leaves:
                kept = appearance if renderer.placement.continuous else None
                part = ParseTree(h_state, decoding, action, appearance=kept, renderer=renderer)
            elif config.feedback == "canvas":
                below = self._run(h_state, level - 1, here, sites, glimpsed)
                part = replace(below, action=action, own_decoding=decoding)
            else:
                part = ParseTree(h_state, decoding, action, renderer=renderer)
            parts.append(part)
            state = State(h_state, h_policy, part.canvas, action)
        if not leaves and config.feedback == "decoding":
            below = self._run(
                torch.cat([part.program for part in parts]),
                level - 1,
                [(*path, t) for t in range(len(parts)) for path in paths],
                sites,
                torch.cat(targets) if targets else None,
            )
            parts = [
                replace(tree, action=part.action, own_decoding=part.decoding)
                for tree, part in zip(below.split(len(programs)), parts, strict=True)
            ]
        canvas = self._canvas(parts, size)
        return ParseTree(programs, canvas, children=tuple(parts), renderer=renderer)

    def _canvas(self, parts: list[ParseTree], size: int) -> Tensor:
        return self.renderer.render(sheets(parts, self.renderer.composed), size)
