"""The recursion: a program places parts, each of which is a program (the paper's Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.affine import bounded, compose, glimpse, inverse_matrix, matrix
from pyro_rnp.compiling import Compiled
from pyro_rnp.compositions import Sum
from pyro_rnp.config import RNPConfig
from pyro_rnp.hypernet import Hypernetwork, State
from pyro_rnp.missing import Target
from pyro_rnp.parse_tree import ParseTree, Path
from pyro_rnp.registry import PROGRAMS
from pyro_rnp.rendering import Renderer, Sheets


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


class Step(NamedTuple):
    """A step of B programs: the part that each places."""

    program: Float[Tensor, "b z"]
    action: Float[Tensor, "b 6"]
    canvas: Float[Tensor, "b c s s"]
    decoding: Float[Tensor, "b c p p"]
    appearance: Float[Tensor, "b appearance"] | None
    """Of leaves, where placement is continuous."""
    programs: list[Tensor]
    """`program` for each of the M siblings, (N, |z|), of which it is made."""
    actions: list[Tensor]
    """`action` for each of the M siblings, (N, 6), of which it is made."""
    below: Parts | None
    """What is below the parts, where that runs before the next step."""


class Parts(NamedTuple):
    """The parts that B programs place, T each, and all that is below them.

    One step of all programs lies side by side; `below` holds the T * B programs of these parts, all
    of the first step before those of the second.
    """

    program: Float[Tensor, "t b z"]
    action: Float[Tensor, "t b 6"]
    canvas: Float[Tensor, "t b c s s"]
    decoding: Float[Tensor, "t b c p p"]
    appearance: Float[Tensor, "t b appearance"] | None
    """Of leaves, where placement is continuous."""
    programs: list[Tensor]
    """`program` for each of the T * M siblings, (N, |z|), of which it is made."""
    actions: list[Tensor]
    """`action` for each of the T * M siblings, (N, 6), of which it is made."""
    below: Parts | None

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Parts:
        """The parts of B programs from their steps in order, one or more."""
        canvas = torch.stack([step.canvas for step in steps])
        looks = [step.appearance for step in steps if step.appearance is not None]
        below = [step.below for step in steps if step.below is not None]
        same = steps[0].canvas is steps[0].decoding
        return cls(
            torch.stack([step.program for step in steps]),
            torch.stack([step.action for step in steps]),
            canvas,
            canvas if same else torch.stack([step.decoding for step in steps]),
            torch.stack(looks) if looks else None,
            [program for step in steps for program in step.programs],
            [action for step in steps for action in step.actions],
            cls.beside(below) if below else None,
        )

    @classmethod
    def beside(cls, some: Sequence[Parts]) -> Parts:
        """Parts of groups of programs as those of all, the first group before the second.

        Args:
            some: parts of one shape, one or more.
        """
        first = some[0]
        number = len(first.programs[0])

        def joined(column: tuple[Tensor, ...]) -> Tensor:
            inner = len(first.programs) // len(first.program)
            groups = [x.unflatten(1, (inner, number)) for x in column]
            return torch.stack(groups, 2).flatten(1, 3)

        below = [parts.below for parts in some if parts.below is not None]
        columns = zip(*(parts[:5] for parts in some), strict=True)
        fields: Any = [None if column[0] is None else joined(column) for column in columns]
        for siblings in zip(*(parts[5:7] for parts in some), strict=True):
            fields.append([node for nodes in zip(*siblings, strict=True) for node in nodes])
        fields.append(cls.beside(below) if below else None)
        return cls(*fields)

    def sheets(self, composed: bool) -> Sheets:
        """The sheets that are placed for the parts, as `pyro_rnp.parse_tree.sheets` gives them.

        Args:
            composed: whether the leaves below a part are placed in its stead.
        """
        maps = inverse_matrix(self.action)
        if not composed or self.below is None:
            return Sheets(self.canvas, self.appearance, maps)
        below, (steps, b) = self.below.sheets(composed), maps.shape[:2]

        def by_part(x: Tensor) -> Tensor:
            return x.unflatten(1, (steps, b)).transpose(0, 1)

        to_source = compose(by_part(below.to_source), maps.unsqueeze(1)).flatten(0, 1)
        appearance = None if below.appearance is None else by_part(below.appearance).flatten(0, 1)
        return Sheets(by_part(below.pixels).flatten(0, 1), appearance, to_source)

    def nodes(self, renderer: Renderer) -> list[ParseTree]:
        """The nodes of these parts, in which their children are.

        Args:
            renderer: makes the canvas of the children.

        Returns:
            Nodes of N images: those of the first step of all B / N siblings, then of the second.
        """
        count, number = len(self.programs), len(self.programs[0])
        fields = {"canvas": self.canvas}
        if self.below is not None:
            fields["own_decoding"] = self.decoding
        if self.appearance is not None:
            fields["appearance"] = self.appearance
        each = (count // len(self.program), number)
        columns = {
            "program": self.programs,
            "action": self.actions,
            **{name: x.unflatten(1, each).flatten(0, 1).unbind() for name, x in fields.items()},
        }
        below = [] if self.below is None else self.below.nodes(renderer)
        return [
            ParseTree(
                **dict(zip(columns, values, strict=True)),
                children=tuple(below[i::count]),
                renderer=renderer,
            )
            for i, values in enumerate(zip(*columns.values(), strict=True))
        ]


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
        """One hypernetwork for all levels, or one for each, the top level's first, with the same
        weights at the start: levels that start apart find parts late, or not at all."""
        for other in self.hypernets[1:]:
            other.load_state_dict(self.hypernets[0].state_dict())
        self.levels = config.depth
        """Levels that run, from the top; parts of the lowest one are their parents' decodings."""
        self.recompute_levels = 0
        """Levels, from the leaves' parents (1) up, whose generated weights the backward pass writes
        again instead of keeping them: less memory for more time, the same result."""
        self._compiled: Compiled | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    def compile(self, inference: bool = True, **options: Any) -> None:
        """Compile, in place, runs that nothing decides in but the predictions.

        Args:
            inference: whether runs without gradients are compiled too; by default true.
            options: as `torch.compile` takes them.
        """
        self._compiled = Compiled(torch.compile(self._predicted, **options), inference)

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
        if sites is None and target is None:
            compiled = self._compiled
            now = compiled is not None and compiled.now() and not self.recompute_levels
            run = compiled.run if compiled is not None and now else self._predicted
            return self.tree(z, *run(z))
        sites = Sites(self.config) if sites is None else sites
        seen = None if target is None else Target.of(target)
        return self.tree(z, *self.run_top(z, sites, seen))

    def run_top(self, z: Tensor, sites: Sites, target: Target | None) -> tuple[Tensor, Parts]:
        """`forward` with tensors alone as its result.

        Args:
            z: as there.
            sites: as there.
            target: likewise.

        Returns:
            The canvas, (N, C, H, W), and the parts.
        """
        return self._run(z, self.config.depth, [()], sites, target)

    def _predicted(self, z: Tensor) -> tuple[Tensor, Parts]:
        """A run of tensors alone, of the top-level programs z."""
        return self.run_top(z, Sites(self.config), None)

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
        found = self._run(programs, level, [(0,) * depth], Sites(self.config), None)
        return self.tree(programs, *found)

    def tree(self, programs: Tensor, canvas: Tensor, parts: Parts) -> ParseTree:
        """The tree of a run.

        Args:
            programs: that ran, (N, |z|).
            canvas: theirs, (N, C, S, S).
            parts: theirs.
        """
        children = parts.nodes(self.renderer)
        return ParseTree(programs, canvas, children=tuple(children), renderer=self.renderer)

    def _run(
        self,
        programs: Tensor,
        level: int,
        paths: list[Path],
        sites: Sites,
        target: Target | None,
    ) -> tuple[Tensor, Parts]:
        """Run M sibling programs of N images side by side, (M * N, |z|).

        Returns:
            Their canvases, (M * N, C, S, S), and their parts.
        """
        config, renderer = self.config, self.renderer
        depth, size = config.depth - level, config.canvas_size(level)
        leaves = depth + 1 == self.levels
        interleaved = not leaves and config.feedback == "canvas"
        hypernet = self.hypernets[depth % len(self.hypernets)]
        theta = hypernet(programs, recompute=level <= self.recompute_levels)
        state = theta.initial
        steps: list[Step] = []
        targets: list[Target] = []
        shown: Tensor | None = None
        for t in range(config.steps[depth]):
            here = [(*path, t) for path in paths]
            h_state, h_policy, raw = theta.step(state)
            left = glimpsed = own_target = None
            if target is not None:
                left = target if shown is None else target.minus(shown)
                glimpsed = glimpse(left.pixels, bounded(raw, config), config.patch_size)
            action, actions = _apart(sites.action(here, raw, glimpsed), len(paths))
            if left is not None:
                own_target = left.seen_at(matrix(action), config.patch_size)
                targets.append(own_target)
                glimpsed = own_target.pixels
            h_state, programs_below = _apart(sites.program(here, h_state, glimpsed), len(paths))
            appearance = theta.D(h_state)
            decoding = canvas = renderer.placement.patch(appearance)
            below = None
            if interleaved:
                canvas, below = self._run(h_state, level - 1, here, sites, own_target)
            look = appearance if leaves and renderer.placement.continuous else None
            steps.append(
                Step(h_state, action, canvas, decoding, look, programs_below, actions, below)
            )
            state = State(h_state, h_policy, canvas, action)
            if target is not None and t + 1 < config.steps[depth]:
                shown = self._shown(shown, steps, size)
        parts = Parts.of(steps)
        if not leaves and not interleaved:
            canvas, below = self._run(
                parts.program.flatten(0, 1),
                level - 1,
                [(*path, t) for t in range(len(steps)) for path in paths],
                sites,
                Target.join(targets) if targets else None,
            )
            parts = parts._replace(canvas=canvas.view_as(parts.canvas), below=below)
        return renderer.render(parts.sheets(renderer.composed), size), parts

    def _shown(self, shown: Tensor | None, steps: list[Step], size: int) -> Tensor:
        """The canvas after some steps, from the canvas before the last of them."""
        renderer = self.renderer
        if type(renderer.composition) is Sum and shown is not None:  # a subclass may do otherwise
            last = Parts.of(steps[-1:]).sheets(renderer.composed)
            return shown + renderer.render(last, size)
        return renderer.render(Parts.of(steps).sheets(renderer.composed), size)


def _apart(values: Tensor, siblings: int) -> tuple[Tensor, list[Tensor]]:
    """Values of M siblings, (M * N, d), and each sibling's own, of which they are made.

    A gradient with respect to the value of one sibling then finds its way.
    """
    if siblings == 1:
        return values, [values]
    own = list(values.chunk(siblings))
    return torch.cat(own), own
