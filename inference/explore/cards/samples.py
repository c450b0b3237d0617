"""Samples of the prior."""

from __future__ import annotations

from typing import Any

from inference.explore.controls import button, card, tile_row
from inference.explore.session import NUMBER
from inference.explore.visit import Card, Visit


class SamplesCard(Card):
    """Images that the model imagines.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        with card("Samples of the prior", "Images that the model imagines."):
            button("Draw samples", self._sample, "casino")
            self.row = tile_row()

    def fit(self) -> None:
        """Take away samples of another model."""
        self.row.clear()

    def asked(self) -> dict[str, Any]:
        """Return the number of samples."""
        return {"samples": NUMBER} if self.has(self.row) else {}

    async def _sample(self) -> None:
        drawn = await self.visit.do(lambda: self.visit.session.sample(NUMBER))
        self.show_trees(self.row, drawn, "sample")
