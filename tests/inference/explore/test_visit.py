"""A visitor's page as the server has it, without a browser."""

import asyncio
import gc
import time
from weakref import ref

import pytest
import torch

from inference.explore import Worker
from inference.explore.shelf import Shelf
from pyro_rnp import RNP
from tests.conftest import tiny

nicegui = pytest.importorskip("nicegui")


class Page:
    """A page that is built, with what a browser would do to it."""

    def __init__(self, shelf):
        from inference.explore.page import build

        self.client = nicegui.Client(nicegui.ui.page("/"))
        with self.client:
            self.visit = build(shelf)

    def card(self, name):
        return next(card for card in self.visit.cards if type(card).__name__ == name)

    def named(self, words):
        """The controls of a name."""
        found = self.client.elements.values()
        return [e for e in found if words in (getattr(e, "text", ""), e.props.get("aria-label"))]

    def press(self, words):
        """Press the button of a name."""
        (button,) = self.named(words)
        self.send(button, "click")

    def send(self, element, kind, args=None):
        """Send an event of an element, as the browser does."""
        listeners = element._event_listeners
        (found,) = [key for key, one in listeners.items() if one.type == kind]
        with self.client:
            element._handle_event({"listener_id": found, "args": args})

    async def until(self, holds, seconds=30):
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        return found

    def status(self):
        return self.card("ParseCard").status.text


@pytest.fixture
def visited(monkeypatch, rnp):
    """Runs a scenario, a coroutine function of a page, on a page of its own."""

    def run(scenario, shelf=None):
        async def all_of_it():
            monkeypatch.setattr(nicegui.core, "loop", asyncio.get_running_loop())
            page = Page(shelf or Shelf(rnp, torch.rand(4, 1, 8, 8)))
            with page.client:
                try:
                    return await scenario(page)
                finally:
                    page.visit.worker.close()
                    if not page.client.is_deleted:
                        page.client.delete()

        return asyncio.run(all_of_it())

    return run


def test_a_page_that_was_closed_is_freed(visited):
    async def scenario(page):
        await page.visit.take(torch.rand(1, 8, 8))
        assert "2 parts" in page.status()
        return ref(page.visit), ref(page.visit.session)

    visit, session = visited(scenario)
    gc.collect()
    assert session() is None
    assert visit() is None
