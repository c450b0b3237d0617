"""The recursion: a program places parts, each of which is a program (the paper's Algorithm 1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.affine import bounded, glimpse, matrix
from pyro_rnp.config import RNPConfig
from pyro_rnp.hypernet import Hypernetwork, State
from pyro_rnp.missing import Target
from pyro_rnp.parse_tree import ParseTree, Path, sheets
from pyro_rnp.registry import PROGRAMS
from pyro_rnp.rendering import Renderer


class Sites:
    """Decides the value of each action and program as soon as a step has predicted it.

    The rest of the run uses these values. This class uses the predictions; the subclass
    `pyro_rnp.sites.RandomSites` names and draws the sites of the Pyro model and guide. The M
    siblings that run side by side come together, as (M * N, ...), with one path each.

    Args:
        config: gives the bounds of actions.
    """

    def __init__(self, config: RNPConfig) -> None:
        self.config = config

    def action(self, paths: list[Path], raw: Tensor, glimpsed: Tensor | None) -> Tensor:
        """The values of siblings' actions.

        Args:
            paths: of the M siblings.
            raw: predictions before they are bounded, (M * N, 6).
            glimpsed: (M * N, C, S, S), the target minus the canvas so far, seen at the predicted
                place; None if the run has no target.

        Returns:
            Actions in the units of `pyro_rnp.affine.UNITS`, (M * N, 6).
        """
        return bounded(raw, self.config)

    def program(self, paths: list[Path], h_state: Tensor, glimpsed: Tensor | None) -> Tensor:
        """The values of siblings' programs.

        Args:
            paths: of the M siblings.
            h_state: predictions, (M * N, |z|), in (-1, 1).
            glimpsed: as for `action`, seen at the action's place.

        Returns:
            Programs, (M * N, |z|).
        """
        return h_state


@PROGRAMS.add("recursive")
class Recursion(nn.Module):
    """Runs top-level programs, and all programs that they call, into a `ParseTree`.

    The run is deterministic; randomness enters by `Sites` alone.

    Source: the paper, Algorithm 1.

    Args:
        config: the model's shape.
        renderer: makes canvases of parts; by default with the pieces that `config` names.
    """

    def __init__(self, config: RNPConfig, renderer: Renderer | None = None) -> None:
        super().__init__()
        self.config = config
        self.renderer = Renderer(config) if renderer is None else renderer
        shared = config.hypernet == "shared"
        self.hypernets = nn.ModuleList(
            Hypernetwork(config, self.renderer.placement)
            for _ in range(1 if shared else config.depth)
        )
        """One hypernetwork for all levels, or one for each, the top level's first."""
        self.levels = config.depth
        """Levels that run, from the top; parts of the lowest one are their parents' decodings."""
        self.recompute_levels = 0
        """Levels, from the leaves' parents (1) up, whose generated weights the backward pass writes
        again instead of keeping them: less memory for more time, the same result."""

    def forward(
        self,
        z: Float[Tensor, "n z"],
        sites: Sites | None = None,
        target: Float[Tensor, "n c h w"] | None = None,
    ) -> ParseTree:
        """Run the programs z^K of N images.

        Args:
            z: top-level programs, (N, |z|).
            sites: decides the values of actions and programs; by default the predictions.
            target: images, (N, C, H, W), of which `sites` sees what the canvas does not yet show,
                and 0 where a pixel is missing (NaN); by default none.

        Returns:
            The tree of N images.
        """
        sites = Sites(self.config) if sites is None else sites
        seen = None if target is None else Target.of(target)
        return self._run(z, self.config.depth, [()], sites, seen)

    def run_level(self, programs: Float[Tensor, "n z"], level: int) -> ParseTree:
        """Run programs of parts: their canvases lie in a part's own frame.

        Args:
            programs: (N, |z|).
            level: k, in [1, K]; parts have K - 1, sub-parts K - 2.

        Returns:
            The tree of N parts, without an action at its root.

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
        target: Target | None,
    ) -> ParseTree:
        """Run M sibling programs of N images side by side, (M * N, |z|), into a tree of as many."""
        config, renderer = self.config, self.renderer
        depth, size = config.depth - level, config.canvas_size(level)
        leaves = depth + 1 == self.levels
        hypernet = self.hypernets[depth % len(self.hypernets)]
        theta = hypernet(programs, recompute=level <= self.recompute_levels)
        state = theta.initial
        parts: list[ParseTree] = []
        targets: list[Target] = []
        for t in range(config.steps[depth]):
            here = [(*path, t) for path in paths]
            h_state, h_policy, raw = theta.step(state)
            left = glimpsed = own_target = None
            if target is not None:
                left = target.minus(self._canvas(parts, size)) if parts else target
                glimpsed = glimpse(left.pixels, bounded(raw, config), config.patch_size)
            action = sites.action(here, raw, glimpsed)
            if left is not None:
                own_target = left.seen_at(matrix(action), config.patch_size)
                targets.append(own_target)
                glimpsed = own_target.pixels
            h_state = sites.program(here, h_state, glimpsed)
            appearance = theta.D(h_state)
            decoding = renderer.placement.patch(appearance)
            if leaves:
                kept = appearance if renderer.placement.continuous else None
                part = ParseTree(h_state, decoding, action, appearance=kept, renderer=renderer)
            elif config.feedback == "canvas":
                below = self._run(h_state, level - 1, here, sites, own_target)
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
                Target.join(targets) if targets else None,
            )
            parts = [
                replace(tree, action=part.action, own_decoding=part.decoding)
                for tree, part in zip(below.split(len(programs)), parts, strict=True)
            ]
        canvas = self._canvas(parts, size)
        return ParseTree(programs, canvas, children=tuple(parts), renderer=renderer)

    def _canvas(self, parts: list[ParseTree], size: int) -> Tensor:
        return self.renderer.render(sheets(parts, self.renderer.composed), size)
