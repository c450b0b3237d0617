"""Another image, whose parts may replace one's own, and to which one walks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from nicegui import ui
from torch import Tensor

from inference.explore.controls import button, card, name_list, row, tile, tile_row
from inference.explore.images import rounded
from inference.explore.session import NUMBER
from inference.explore.view import ink
from inference.explore.visit import Card, Visit
from pyro_rnp import ParseTree


class OthersCard(Card):
    """Test images to choose from.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        self.other: Tensor | None = None
        self.tiles: list[ui.element] = []
        with card("Another image", "Choose one, whose parts may replace yours."):
            button("Show test images", self._more, "grid_view")
            self.row = tile_row()
            with row():
                self.source = ui.select([], label="Its part")
                self.source.props("dense outlined options-dense")
                name_list(self.source, "Parts of the other image")
                button("Exchange the part", self._exchange, "swap_horiz")
                button("Walk to it", self._walk, "trending_flat")
            self.walk_row = tile_row()

    def fit(self) -> None:
        """Take away images that the model does not read."""
        self._offer([])
        self.other = None

    def show(self, tree: ParseTree | None) -> None:
        """Offer the other image's parts of the depth that is shown."""
        parts = [part for part in self.visit.parts.values() if part.depth == self.visit.depth]
        offered = {"": "the same part", **{part.path: part.label for part in parts}}
        if offered != self.source.options:
            self.source.set_options(offered, value="")

    def forget(self) -> None:
        """Take away the walk."""
        self.walk_row.clear()

    def asked(self) -> dict[str, Any]:
        """Return the other end of the walk."""
        return {"walk": self.other} if self.has(self.walk_row) else {}

    async def _more(self) -> None:
        if images := await self.visit.images(NUMBER):
            self._offer(images)

    def _offer(self, images: Iterable[Tensor]) -> None:
        self.walk_row.clear()
        self.row.clear()
        with self.row:
            self.tiles = [
                tile(ink(image), f"image {i}", partial(self._pick, i, image))
                for i, image in enumerate(images)
            ]

    def _pick(self, i: int, image: Tensor) -> None:
        self.other = rounded(image.nan_to_num())  # as Python lines hold it
        self.walk_row.clear()
        for j, one in enumerate(self.tiles):
            one.props(f"aria-pressed={str(i == j).lower()}")

    async def _exchange(self) -> None:
        part, other = self.visit.part, self.other
        if other is None or part is None:
            self.visit.note("Draw an image, and choose another one.")
        else:
            source = self.source.value or None
            await self.visit.edit(lambda: self.visit.session.exchange(part.path, other, source))

    async def _walk(self) -> None:
        visit, other, turn = self.visit, self.other, self.visit.turn
        if other is None or visit.session.image is None:
            visit.note("Draw an image, and choose another one.")
            return
        walk = await visit.do(lambda: visit.session.walk(other, NUMBER))
        if turn == visit.turn and other is self.other:
            self.show_trees(self.walk_row, walk, "step")
