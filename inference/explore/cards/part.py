"""The part that is chosen: its six numbers, and what is done with it."""

from __future__ import annotations

from functools import partial
from typing import Any

from matplotlib.colors import to_hex
from nicegui import events, ui

from inference.explore.controls import button, card, row, tile, tile_row
from inference.explore.frames import FIELD_LABELS
from inference.explore.session import NUMBER
from inference.explore.view import ink
from inference.explore.visit import Card, Gesture, Visit
from pyro_rnp import ParseTree
from pyro_rnp.affine import FIELDS, UNITS, codomain


class PartCard(Card):
    """The part that is chosen.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        self.chips: dict[str, ui.button] = {}
        self.fields: list[tuple[ui.slider, ui.number]] = []
        self.filling = False
        self.near_of: str | None = None
        with card("Part", ""):
            self.chip_row = row()
            self.gone = ui.label("This part is removed. Undo brings it back.").classes("rnp-hint")
            self.number_box = ui.element("div").classes("rnp-numbers")
            self.react = ui.switch("Let later parts react", on_change=self._choose_react)
            with row():
                self.keep = ui.switch("Keep this part", on_change=self._keep)
                button("Ask for the others", lambda: visit.ask(True), "help_outline")
            with row():
                self.remove = button("Remove", visit.remove, "backspace")
                button("Nearest parts", self._nearest, "search")
            self.near_row = tile_row()

    def fit(self) -> None:
        """Offer the six numbers within the model's bounds."""
        self._choose_react()
        self._fit_numbers()

    def show(self, tree: ParseTree | None) -> None:
        """Show the numbers of the part."""
        part = self.visit.part
        if self.visit.chosen != self.near_of:
            self.near_of = self.visit.chosen
            self.near_row.clear()
        self._show_chips()
        self.filling = True
        for i, (slider, number) in enumerate(self.fields):
            for control in (slider, number):
                control.set_enabled(part is not None and not part.removed)
                if part is not None:
                    control.set_value(round(part.numbers[i].value, 3))
        self.remove.set_enabled(part is not None and not part.removed)
        self.gone.set_visibility(part is not None and part.removed)
        kept = self.visit.session.kept if part is not None else []
        self.keep.set_value(part is not None and bool({part.site, part.program} & {*kept}))
        self.keep.set_enabled(part is not None)
        self.filling = False

    def forget(self) -> None:
        """Take away the nearest parts."""
        self.near_row.clear()

    def asked(self) -> dict[str, Any]:
        """Return the part whose nearest parts are shown, and where these are from."""
        part = self.visit.part
        if part is None or not self.has(self.near_row):
            return {}
        return {"nearest": part.program, "images": self.visit.shelf.source(self.visit.name)}

    # Buttons of parts --------------------------------------------------------------------------

    def _show_chips(self) -> None:
        """Show buttons for the parts, and for the chosen one's sub-parts where these are shown."""
        visit, chosen = self.visit, self.visit.chosen or ""
        steps = visit.config.steps[: visit.depth] if chosen else ()
        above = ["/".join([*chosen.split("/")[:d], ""]) for d in range(len(steps))]
        rows = [[f"{a}{i}" for i in range(n)] for a, n in zip(above, steps, strict=True)]
        if [name for names in rows for name in names] != list(self.chips):
            self.chip_row.clear()
            with self.chip_row:
                self.chips = {name: chip for names in rows for name, chip in self._chips(names)}
        for name, chip in self.chips.items():
            pressed = f"{chosen}/".startswith(f"{name}/")
            chip.props(f"aria-pressed={str(pressed).lower()}")
            part = visit.parts.get(name)
            hue = visit.palette[int(name.split("/")[0]) % len(visit.palette)]
            chip.style(f"--rnp-hue: {to_hex(hue) if part is None else part.colour}")
            chip.classes(**{"add" if part is not None and part.removed else "remove": "rnp-gone"})

    def _chips(self, names: list[str]) -> list[tuple[str, ui.button]]:
        """Make a line of buttons."""
        made = []
        for name in names:
            chip = ui.button(name, on_click=partial(self.visit.choose, name))
            words = f"{'sub-' * name.count('/')}part {name}".capitalize()
            chip.props(f'flat dense no-caps aria-label="{words}"').classes("rnp-chip")
            made.append((name, chip))
        ui.element("div").classes("rnp-break")
        return made

    # Numbers -----------------------------------------------------------------------------------

    def _fit_numbers(self) -> None:
        box: Any = codomain(self.visit.config)
        self.fields = []
        self.number_box.clear()
        if not self.visit.depth:
            return
        with self.number_box:
            for i, field in enumerate(FIELDS):
                low, high = box.lower_bound[i].item(), box.upper_bound[i].item()
                label = FIELD_LABELS[field]
                bounds = f"{UNITS[field]}, from {low:.2f} to {high:.2f}"
                with ui.element("div").classes("rnp-number"):
                    with ui.element("div").classes("rnp-name"):
                        ui.label(label)
                        ui.label(f"{low:.2f} to {high:.2f}").classes("rnp-unit")
                        ui.label(UNITS[field]).classes("rnp-unit rnp-break")
                    slider = ui.slider(min=low, max=high, step=0.005, value=low)
                    slider.props(f'aria-label="{label}, {bounds}"')
                    number = ui.number(value=low, min=low, max=high, step=0.01, format="%.3f")
                    number.props(f'dense outlined debounce=300 aria-label="{label}: {bounds}"')
                slider.on_value_change(partial(self._change, i, "drag"))
                slider.on("change", self._let_go)
                number.on_value_change(partial(self._change, i, "up"))
                self.fields.append((slider, number))

    def _change(self, i: int, kind: str, event: events.ValueChangeEventArguments) -> Any:
        return None if self.filling else self._set(i, kind, event.value)

    async def _set(self, i: int, kind: str, value: float | None) -> None:
        part = self.visit.part
        if part is None or part.removed:
            return
        if value is None:  # no number was typed
            self.visit.show()
            return
        if abs(value - part.action[i]) < 1e-3:
            return
        values = list(part.action)
        values[i] = value
        await self.visit.follow(Gesture(kind, part.path, part.bounded(values)))

    async def _let_go(self) -> None:
        part = self.visit.part
        if part is not None:
            await self.visit.follow(Gesture("up", part.path))

    # What is done with the part ----------------------------------------------------------------

    def _choose_react(self) -> None:
        self.visit.session.react = bool(self.react.value)

    def _keep(self, event: events.ValueChangeEventArguments) -> Any:
        return None if self.filling else self._keep_part(bool(event.value))

    async def _keep_part(self, keep: bool) -> None:
        part, session = self.visit.part, self.visit.session
        if part is None:
            return
        change = session.keep if keep else session.release
        await self.visit.edit(lambda: change(part.site, part.program))

    async def _nearest(self) -> None:
        visit = self.visit
        if await visit.change(visit.name):
            visit.note("The run was trained anew; its new weights have parsed the image.")
        part = visit.part
        if part is None:
            visit.note("Nothing is drawn yet.")
            return
        name, session, asked = visit.name, visit.session, (visit.turn, visit.chosen)
        images = await visit.do(lambda: visit.shelf.images(name), beside=True)
        if images is None:
            return
        found = await visit.do(lambda: session.nearest(part.program, images, NUMBER), beside=True)
        if asked != (visit.turn, visit.chosen):  # something else is shown by now
            return
        self.near_row.clear()
        with self.near_row:
            for near in found or []:
                words = f"part {near.site[2:]} of image {near.image}"
                tile(ink(near.canvas), words, partial(visit.take, images[near.image]))
