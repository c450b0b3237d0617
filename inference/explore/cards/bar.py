"""The bar above the cards: the choice of a model, the palette and the keys."""

from __future__ import annotations

from nicegui import events, ui

from inference.explore.controls import button, name_list
from inference.explore.frames import COLOUR_BLIND
from inference.explore.visit import Card, Visit
from pyro_rnp.plotting import COLOURS

TITLE = "Recursive neural programs"
KEYS = (
    ("Ctrl+Z, Ctrl+Y", "undo, redo"),
    ("Tab", "go to the next control; the parse is one of them"),
)
"""Keys with what they do anywhere."""
PARSE_KEYS = (
    ("0 to 9", "choose a part"),
    ("Arrows", "move it"),
    ("+ and −", "make it larger or smaller"),
    ("[ and ]", "turn it"),
    ("Delete", "remove it"),
)
"""Keys with what they do once Tab or a click has chosen the parse."""


class Bar(Card):
    """The bar.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        with ui.element("header").classes("rnp-bar"):
            ui.html(TITLE, tag="h1", sanitize=False)
            self.model = ui.select(
                visit.shelf.names(), value=visit.name, label="Model", on_change=self._choose_model
            ).props("dense outlined options-dense")
            name_list(self.model, "Models")
            ui.switch("Colour-blind palette", on_change=self._choose_palette)
            with ui.dialog().props('aria-label="Keys"') as keys, ui.card():
                for title, rows in (("Keys", KEYS), ("Keys on the parse", PARSE_KEYS)):
                    ui.html(title, tag="h2", sanitize=False)
                    ui.label("\n".join(f"{key}: {does}" for key, does in rows)).classes("rnp-keys")
                ui.button("Close", on_click=keys.close).props("flat no-caps")
            button("Keys", keys.open, "keyboard", flat=True)

    def fit(self) -> None:
        """Name the visit's model."""
        self.model.set_value(self.visit.name)

    async def _choose_model(self, event: events.ValueChangeEventArguments) -> None:
        visit, session = self.visit, self.visit.session
        if event.value == visit.name or event.value not in visit.shelf.names():
            return
        lost = bool(session.edits or session.kept)
        if not await visit.change(event.value):
            self.fit()
        elif lost:
            visit.note("Edits and kept parts belong to the other model; Undo brings them back.")

    def _choose_palette(self, event: events.ValueChangeEventArguments) -> None:
        self.visit.palette = COLOUR_BLIND if event.value else COLOURS
        self.visit.show()
