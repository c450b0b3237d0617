"""The parse: parts in their colours, frames that can be taken hold of, and the program's steps."""

from __future__ import annotations

import torch
from nicegui import events, ui

from inference.explore.controls import BLUR, KEY, POINTER, button, card, points, row, stage
from inference.explore.view import frames, painted, uri
from inference.explore.visit import Card, Gesture, Visit
from pyro_rnp import ParseTree

LARGER = ((0, 1.05, 0.0), (1, 1.05, 0.0))
SMALLER = ((0, 1 / 1.05, 0.0), (1, 1 / 1.05, 0.0))
MOVES: dict[str, tuple[tuple[int, float, float], ...]] = {
    "ArrowLeft": ((4, 1.0, -0.02),),
    "ArrowRight": ((4, 1.0, 0.02),),
    "ArrowUp": ((5, 1.0, -0.02),),
    "ArrowDown": ((5, 1.0, 0.02),),
    "[": ((2, 1.0, -0.05),),
    "]": ((2, 1.0, 0.05),),
    "+": LARGER,
    "=": LARGER,
    "-": SMALLER,
}
"""Keys with what they do to the numbers of an action: which, times what, plus what."""

WHOLE = "It is the parse of the whole image, hidden pixels included."


class ParseCard(Card):
    """The parse.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        with card("Parse", "Drag a frame, or one of its handles."):
            self.stage = stage("Parse. Keys move the chosen part.")
            self.stage.on("pointerdown", self._hold, js_handler=POINTER)
            self.stage.on("keydown", self._key, js_handler=KEY)
            self.stage.on("keyup", self._key, js_handler=KEY)
            self.stage.on("blur", self._key, js_handler=BLUR)
            with row():
                self.depth = ui.toggle({1: "Parts"}, value=1, on_change=self._choose_depth)
                self.depth.props('no-caps unelevated aria-label="Depth" role=group')
                self.framed = ui.switch("Frames", value=True, on_change=visit.show)
            with row():
                self.step_label = ui.label().props("aria-hidden=true").classes("rnp-steps")
                self.step = ui.slider(min=0, max=4, step=1, value=4, on_change=self._choose_steps)
                self.step.props('markers snap aria-label="Steps of the program that are shown"')
                self.step.classes("rnp-grow")
            with row():
                button("Undo", visit.undo, "undo")
                button("Redo", visit.redo, "redo")
                button("Parse again", self._parse_again, "refresh")
            self.status = ui.label().classes("rnp-hint").props("role=status aria-live=polite")

    def fit(self) -> None:
        """Offer the model's depths and steps."""
        depths = {1: "Parts", 2: "Sub-parts"}
        levels = range(1, self.visit.config.depth + 1)
        shown = {d: depths.get(d, f"Depth {d}") for d in levels}
        self.depth.set_options(shown or {0: "Image"}, value=self.visit.depth)
        self._fit_steps()

    def _fit_steps(self) -> None:
        self.step.props(f"max={self.visit.total}")
        self.step.set_value(self.visit.steps)

    def show(self, tree: ParseTree | None) -> None:
        """Show the parse."""
        visit, size = self.visit, self.visit.config.image_size
        self.step_label.set_text(f"Steps: {visit.steps} of {visit.total}")
        if tree is None:
            self.stage.set_source(uri(torch.ones(size, size, 3)))
            self.stage.set_content("")
            self.status.set_text("Nothing is drawn yet.")
        else:
            self.stage.set_source(uri(painted(tree, visit.depth, visit.steps, visit.palette)))
            self.stage.set_content(self._frames() if self.framed.value else "")
            self._describe(tree)

    def _frames(self) -> str:
        found = self.visit.parts.values()
        here = [part for part in found if part.depth == self.visit.depth][: self.visit.steps]
        above = {part.path.rpartition("/")[0] for part in here}
        outer = [part for part in found if part.path in above]
        return frames(here, self.visit.config.image_size, self.visit.chosen, outer)

    def _describe(self, tree: ParseTree) -> None:
        session, image = self.visit.session, self.visit.session.image
        assert image is not None
        seen = session.mask.expand_as(image)
        error = (tree.canvas[0].cpu() - image)[seen].square().sum().item()
        edits = len(session.edits)
        gone = sum(part.removed for part in self.visit.parts.values() if part.depth == 1)
        count = f"{len(tree) - gone} of {len(tree)} parts" if gone else f"{len(tree)} parts"
        done = f"; {edits} edit{'s' * (edits != 1)}" if edits else ""
        whole = "" if seen.all() else f" {WHOLE}"
        self.status.set_text(
            f"{count}; squared error {error:.1f} over {seen.sum()} pixels{done}.{whole}"
        )

    def _choose_depth(self) -> None:
        if self.depth.value != self.visit.depth:
            self.visit.look(self.depth.value)
            self._fit_steps()
            self.visit.show()

    def _choose_steps(self) -> None:
        if self.step.value != self.visit.steps:
            self.visit.steps = min(int(self.step.value), self.visit.total)
            self.visit.show()

    async def _parse_again(self) -> None:
        await self.visit.edit(self.visit.session.parse)

    async def _hold(self, event: events.GenericEventArguments) -> None:
        """Follow a pointer that holds a frame or a handle."""
        path, _, handle = str(event.args.get("handle")).partition(" ")
        if path not in self.visit.parts or not points(event.args):
            return
        (x0, y0), *_, (x1, y1) = [*points(event.args)] * 2
        by = x1 - x0, y1 - y0
        await self.visit.follow(Gesture(str(event.args.get("type")), path, None, handle, by))

    async def _key(self, event: events.GenericEventArguments) -> None:
        """Follow a key that is pressed on the parse; its release keeps what it has done."""
        visit, key, part = self.visit, str(event.args), self.visit.part
        if key == "Delete":
            await visit.remove()
        elif part is None:
            return
        elif key == "keyup":
            await visit.follow(Gesture("up", part.path))
        elif key.isdigit():
            name = f"{part.path.rpartition('/')[0]}/{key}".lstrip("/")
            if name in visit.parts:
                visit.choose(name)
        elif key in MOVES:
            values = list(part.action)
            for i, factor, more in MOVES[key]:
                values[i] = values[i] * factor + more
            await visit.follow(Gesture("drag", part.path, part.bounded(values)))
