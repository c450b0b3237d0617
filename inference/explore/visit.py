"""What the cards of one visitor's page share: the session, work, and what is looked at."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from nicegui import ui
from torch import Tensor

from inference.explore.controls import tile
from inference.explore.frames import Part, dragged, parts
from inference.explore.session import Session
from inference.explore.shelf import OWN, Shelf
from inference.explore.view import painted
from inference.explore.worker import Worker
from pyro_rnp import ParseTree
from pyro_rnp.plotting import COLOURS

T = TypeVar("T")
BESIDE = ThreadPoolExecutor(1, "beside")
"""Does one slow thing at a time, of all visitors, so that quick ones find a thread."""


class Gesture(NamedTuple):
    """A change of a part's action, by a pointer that holds a handle, or by numbers."""

    kind: str
    """"drag" while it goes on, "up" at its end."""
    path: str
    values: Sequence[float] | None = None
    """Six numbers; None keeps those that were shown last."""
    handle: str = ""
    """What a pointer holds; "" of numbers."""
    by: tuple[float, float] = (0.0, 0.0)
    """How far the pointer has gone."""


class Visit:
    """One visitor's visit.

    Args:
        shelf: models and images to choose from.

    Attributes:
        cards: what the page shows, and tells of every change.
        ask: asks what is hidden, of True what the kept parts tell; the card that shows answers.
        parts: parts of the parse that is shown, by path.
        chosen: path of the part that has the handles; None where the model has no parts.
        depth: of the parts that are shown, 1 for parts, 2 for sub-parts; 0 shows the image.
        steps: how many of them are shown.
        turn: a number that grows when answers are forgotten.
    """

    ask: Callable[[bool], Awaitable[None]]

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.lock, self.client = shelf, asyncio.Lock(), ui.context.client
        self.cards: list[Card] = []
        self.palette: Sequence[str] = COLOURS
        self.turn = self.next_image = 0
        self._gestures: list[Gesture] = []
        self._following = self._cut = False
        self._grabbed: Part | None = None
        self.session = Session(shelf.model(shelf.first), name=_known(shelf.first))
        self._begin()

    def _begin(self) -> None:
        """Take the session's model."""
        self.name, self.rnp = self.session.name or OWN, self.session.rnp
        self.config, self.line = self.rnp.config, self.shelf.line(self.name)
        self.worker = Worker(self.rnp)
        self.parts: dict[str, Part] = {}
        self.chosen = "0" if self.config.depth else None
        self.look(min(1, self.config.depth))
        self._gestures[:] = [gesture for gesture in self._gestures if gesture.handle]

    def end(self) -> None:
        """Give back what a page that was closed has held."""
        self.worker.close(final=True)
        self.cards.clear()
        self.session = Session(self.rnp)

    @property
    def part(self) -> Part | None:
        """The part that is chosen; None before anything is drawn."""
        return self.parts.get(self.chosen or "")

    # Work --------------------------------------------------------------------------------------

    async def do(self, work: Callable[[], T], beside: bool = False) -> T | None:
        """Do what takes long in a thread, one thing after another; None where it fails.

        Args:
            work: takes no arguments; of an error the visitor gets a note.
            beside: whether other things go on meanwhile, of what is slow and changes nothing.
        """

        def quietly() -> T:
            with torch.no_grad():
                return work()

        async with nullcontext() if beside else self.lock:
            try:
                if beside:
                    return await asyncio.get_running_loop().run_in_executor(BESIDE, quietly)
                return await asyncio.to_thread(quietly)
            except (ValueError, OSError) as error:
                self.note(" ".join(str(error).split()), "warning")
            except Exception as error:  # else the page would stand still without a word
                traceback.print_exc()
                self.note(f"This did not work ({type(error).__name__}).", "warning")
            return None

    async def edit(self, work: Callable[[], object]) -> None:
        """Do what changes the state, and show it.

        Args:
            work: as for `do`.
        """
        await self.do(work)
        self.forget()
        self.show()

    def note(self, text: str, kind: Literal["info", "warning"] = "info") -> None:
        """Show a note for some seconds, which screen readers read.

        Args:
            text: the note.
            kind: how it looks.
        """
        with self.client:
            ui.notify(text, type=kind, position="bottom", close_button="Close", timeout=6000)

    # The state ---------------------------------------------------------------------------------

    def fit(self) -> None:
        """Fit the page to the session's model."""
        for card in self.cards:
            card.fit()
        self.forget()

    @torch.no_grad()
    def show(self, tree: ParseTree | None = None) -> None:
        """Show the state.

        Args:
            tree: another parse than the session's, as while a frame is dragged.
        """
        if tree is None and self.session.image is not None:
            tree = self.session.tree
        found = [] if tree is None else parts(tree, self.config, self.palette)
        self.parts = {part.path: part for part in found}
        for card in self.cards:
            card.show(tree)

    def forget(self) -> None:
        """Take away all that belongs to the state before: answers, the question, and a drag."""
        self.turn += 1
        self._cut, self._grabbed = self._cut or self._grabbed is not None, None
        for card in self.cards:
            card.forget()

    async def take(self, image: Tensor) -> None:
        """Parse another image.

        Args:
            image: as the model reads it.
        """

        def work() -> ParseTree:
            self.session.draw(image)
            return self.session.tree

        if await self.do(work) is not None:
            self.forget()
            self.show()

    async def images(self, number: int) -> list[Tensor]:
        """Return the next test images; none where there are none.

        Args:
            number: how many.
        """
        images = await self.do(lambda: self.shelf.images(self.name))
        if images is None:
            return []
        start, self.next_image = self.next_image, self.next_image + number
        return [images[i % len(images)].clone() for i in range(start, start + number)]

    async def remove(self) -> None:
        """Remove the part that is chosen."""
        part = self.part
        if part is None:
            self.note("Nothing is drawn yet.")
        else:
            await self.edit(lambda: self.session.remove(part.path))

    async def undo(self) -> None:
        """Take the last step back."""
        await self._travel(self.session.undo, "There is nothing to undo.")

    async def redo(self) -> None:
        """Take the last step that was undone again."""
        await self._travel(self.session.redo, "There is nothing to redo.")

    async def _travel(self, go: Callable[[], bool], nothing: str) -> None:
        went = await self.do(lambda: go() and (self.session.image is None or self.session.tree))
        if went is False:
            self.note(nothing)
        self._changed()
        self.forget()
        self.show()

    async def change(self, name: str) -> bool:
        """Go on with a model as it is now; false where that is nothing new, or cannot be had.

        Args:
            name: of the shelf's; the present one is loaded again where it was trained anew.
        """
        shelf, session, again = self.shelf, self.session, name == self.name
        rnp = await self.do(lambda: (shelf.model(name), shelf.line(name))[0], beside=True)
        if rnp is None or rnp is self.rnp or (again and name != self.name):
            return False

        def work() -> bool:
            session.change(rnp, _known(name))
            return True

        if not await self.do(work):
            return False
        self._changed()
        self.show()
        return True

    def _changed(self) -> None:
        """Fit the page to the session's model if that has changed."""
        if self.session.rnp is not self.rnp:
            self.worker.close()
            self._begin()
            self.fit()

    # What is looked at -------------------------------------------------------------------------

    def look(self, depth: int) -> None:
        """Look at the parts of a depth, after all steps.

        Args:
            depth: 1 for parts, 2 for sub-parts.
        """
        self.depth = depth
        self.total = self.steps = math.prod(self.config.steps[:depth]) if depth else 0
        if self.chosen is not None:
            self.chosen = self._deep(self.chosen)

    def choose(self, path: str) -> None:
        """Choose a part, which gets the handles.

        Args:
            path: as `1/3`.
        """
        self.chosen = self._deep(path)
        self.show()

    def _deep(self, path: str) -> str:
        """A path that ends at the depth that is shown."""
        return "/".join([*path.split("/"), *["0"] * self.depth][: self.depth])

    # Gestures ----------------------------------------------------------------------------------

    async def follow(self, gesture: Gesture) -> None:
        """Follow a gesture: what came later takes the place of what still waits.

        Args:
            gesture: the change.
        """
        if self._gestures and self._gestures[-1].kind == "drag":
            before = self._gestures.pop()
            if not gesture.handle and gesture.values is None and gesture.path == before.path:
                gesture = gesture._replace(values=before.values)
        self._gestures.append(gesture)
        if self._following:
            return
        self._following = True
        try:
            while self._gestures:
                await self._follow(self._gestures.pop(0))
        finally:
            self._following = False

    async def _follow(self, gesture: Gesture) -> None:
        kind, session, part = gesture.kind, self.session, self.parts.get(gesture.path)
        turn = self.turn
        if gesture.handle and self._cut:  # until the pointer lets go
            self._cut = kind == "drag"
            return
        if gesture.handle and self._grabbed is not None and self._grabbed.path == gesture.path:
            part = self._grabbed
        if part is None:  # of another image by now
            return
        if gesture.handle:
            self._grabbed = part if kind == "drag" else None
            if self.chosen != part.path:
                self.choose(part.path)
            values: Sequence[float] = dragged(part, gesture.handle, *gesture.by)
            still = sum(map(abs, gesture.by)) < 1e-3
        else:
            values = part.action if gesture.values is None else gesture.values
            kept = session.tree.sites()[part.site][0].tolist()
            still = kind == "up" and not moved(values, kept)
        site = part.site
        if kind == "drag":
            tree = await self.do(lambda: session.preview(site, values))
            if turn == self.turn:
                self.show(tree)
        elif still:
            self.show()
        else:
            await self.edit(lambda: turn == self.turn and session.set(site, values))


class Card:
    """A card of the page: controls, and what they show.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        self.visit = visit

    def fit(self) -> None:
        """Fit the controls to the visit's model."""

    def show(self, tree: ParseTree | None) -> None:
        """Show the visit's state.

        Args:
            tree: the parse, other than the session's while a frame is dragged; None before anything
                is drawn.
        """

    def forget(self) -> None:
        """Take away answers that belong to the state before."""

    def asked(self) -> dict[str, Any]:
        """Return arguments of `Session.code` that give the answers that are shown."""
        return {}

    def has(self, where: ui.element) -> bool:
        """Whether a row shows something.

        Args:
            where: the row.
        """
        return bool(where.default_slot.children)

    def show_trees(self, where: ui.element, tree: ParseTree | None, name: str) -> None:
        """Show a row of parses, each of which can be taken for the image.

        Args:
            where: the row.
            tree: of some images; None empties the row.
            name: what each is called, before its number.
        """
        where.clear()
        with where:
            for i in range(0 if tree is None else len(tree.program)):
                assert tree is not None
                one = tree.map(partial(_one, i))
                image = one.canvas[0].clamp(0, 1)
                shown = painted(one, self.visit.depth, None, self.visit.palette)
                tile(shown, f"{name} {i}", partial(self.visit.take, image))


def moved(values: Sequence[float], kept: Sequence[float]) -> bool:
    """Whether the numbers of an action differ by more than rounding.

    Args:
        values: six numbers.
        kept: six others.
    """
    return max(abs(a - b) for a, b in zip(values, kept, strict=True)) > 1e-4


def _one(i: int, values: Tensor) -> Tensor:
    return values[i : i + 1]


def _known(name: str) -> str | None:
    """A model's name as Python lines take it."""
    return None if name == OWN else name
