"""What a visitor takes away: pictures, JSON, and Python lines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nicegui import ui

from inference.explore.controls import button, card, row
from inference.explore.visit import Card, Visit

HINT = "Pictures; JSON, which Open a file reads again; Python lines that give the same."


class TakeCard(Card):
    """Files of everything that one sees.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        with card("Take it away", HINT), row():
            button("PNG", partial(self._picture, "png"), "image")
            button("SVG", partial(self._picture, "svg"), "image")
            button("JSON", lambda: self._take("json", visit.session.to_json), "data_object")
            button("Python", self._code, "code")

    async def _picture(self, kind: str) -> None:
        session, palette = self.visit.session, self.visit.palette
        depth, steps = self.visit.depth or None, self.visit.steps
        await self._take(kind, lambda: session.picture(kind, palette, depth, steps))

    async def _code(self) -> None:
        asked = {name: v for own in self.visit.cards for name, v in own.asked().items()}
        await self._take("py", lambda: self.visit.session.code(**asked))

    async def _take(self, ending: str, content: Callable[[], Any]) -> None:
        found = await self.visit.do(content)
        if found is not None:
            ui.download.content(found, f"parse.{ending}")
