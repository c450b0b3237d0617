"""The page: one draws, sees the parse, and takes hold of its parts.

`inference.explore.visit` has what its cards share, `inference.explore.cards` a module a card.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from nicegui import app, events, ui

from inference.explore.cards.bar import TITLE, Bar
from inference.explore.cards.hidden import HiddenCard
from inference.explore.cards.image import ImageCard
from inference.explore.cards.others import OthersCard
from inference.explore.cards.parse import ParseCard
from inference.explore.cards.part import PartCard
from inference.explore.cards.samples import SamplesCard
from inference.explore.cards.take import TakeCard
from inference.explore.shelf import Shelf
from inference.explore.visit import Visit

HERE = Path(__file__).parent
CARDS = (ImageCard, ParseCard, PartCard, HiddenCard, OthersCard, SamplesCard, TakeCard)
"""The cards, in their order."""


def application(shelf: Shelf) -> FastAPI:
    """Make the ASGI application that serves the page.

    A process has one, since NiceGUI has; pages of further models join it by `add_page`.

    Args:
        shelf: models and images of the page at `/`.
    """
    add_page("/", shelf)
    # NiceGUI's own application is served, not the one that it would be mounted in: at the start of
    # that one it looks at every object of the process, and torch has some that warn of it.
    ui.run_with(
        FastAPI(),
        title=TITLE,
        language="en-US",
        favicon="✎",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=60.0,
    )
    return app


def add_page(path: str, shelf: Shelf) -> None:
    """Serve a page.

    Args:
        path: where, as `/`.
        shelf: its models and images.
    """

    @ui.page(path)
    def page() -> None:
        build(shelf)


def build(shelf: Shelf) -> Visit:
    """Build the page of one visitor, and return what its cards share.

    Args:
        shelf: models and images.
    """
    visit = Visit(shelf)
    ui.colors(primary="#1f5fa8")
    ui.add_css((HERE / "page.css").read_text())
    ui.add_head_html(f"<script>{(HERE / 'pointer.js').read_text()}</script>")
    visit.cards.append(Bar(visit))
    with ui.element("div").classes("rnp-main"):
        visit.cards += [kind(visit) for kind in CARDS]

    async def key(event: events.KeyEventArguments) -> None:
        control = event.modifiers.ctrl or event.modifiers.meta
        if event.action.keydown and control and event.key.name in ("z", "Z", "y"):
            again = event.key.name != "z" or event.modifiers.shift
            await (visit.redo() if again else visit.undo())

    ui.keyboard(key, repeating=True, ignore=["input", "select", "textarea"])
    visit.client.on_disconnect(lambda: visit.worker.close())
    visit.client.on_delete(visit.end)
    visit.fit()
    visit.show()
    return visit
