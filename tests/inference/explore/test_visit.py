"""A visitor's page as the server has it, without a browser."""

import asyncio
import gc
import math
import time
from dataclasses import replace
from types import SimpleNamespace
from weakref import ref

import pytest
import torch

from inference.explore import COLOUR_BLIND, Answer, Session, Worker, centre
from inference.explore.images import rounded
from inference.explore.shelf import Shelf
from pyro_rnp import RNP, save
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

    def button(self, words):
        found = self.client.elements.values()
        (button,) = [e for e in found if isinstance(e, nicegui.ui.button) and e.text == words]
        return button

    def press(self, words):
        self.send(self.button(words), "click")

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


def dragging(kind, x, path="0"):
    """What a pointer tells that holds the middle of a part since (0.5, 0.5)."""
    return {"type": kind, "handle": f"{path} move", "points": [[0.5, 0.5], [x, 0.5]]}


@pytest.mark.parametrize("change", ["undo", "model"])
def test_a_change_in_the_middle_of_a_drag_ends_the_drag(visited, change):
    async def scenario(page):
        visit, stage = page.visit, page.card("ParseCard").stage
        await visit.take(torch.rand(1, 8, 8))
        await visit.take(torch.rand(1, 8, 8))
        shown = stage.source
        page.send(stage, "pointerdown", dragging("drag", 0.6))
        await page.until(lambda: stage.source != shown)
        if change == "undo":
            await visit.undo()
        else:
            visit.session.change(RNP(tiny()).eval())
            visit._changed()
            visit.show()
        tree, edits, shown = visit.session.tree, visit.session.edits, stage.source
        page.send(stage, "pointerdown", dragging("drag", 0.7))
        await asyncio.sleep(0.2)
        assert stage.source == shown
        page.send(stage, "pointerdown", dragging("up", 0.7))
        await asyncio.sleep(0.2)
        assert visit.session.edits == edits
        assert visit.session.tree is tree
        page.send(stage, "pointerdown", dragging("drag", 0.6))  # the next one goes on as ever
        page.send(stage, "pointerdown", dragging("up", 0.6))
        await page.until(lambda: len(visit.session.edits) == 1)

    visited(scenario)


def test_a_drag_that_waits_for_an_undo_changes_nothing(visited):
    async def scenario(page):
        visit, stage = page.visit, page.card("ParseCard").stage
        await visit.take(torch.rand(1, 8, 8))
        first = visit.session.image
        await visit.take(torch.rand(1, 8, 8))
        page.send(stage, "pointerdown", dragging("drag", 0.6))
        async with visit.lock:
            undone = asyncio.create_task(visit.undo())
            await asyncio.sleep(0.1)
            page.send(stage, "pointerdown", dragging("up", 0.6))
            await asyncio.sleep(0.1)
        await undone
        await asyncio.sleep(0.3)
        assert visit.session.edits == ()
        assert torch.equal(visit.session.image, first)

    visited(scenario)


def test_undo_takes_all_that_was_kept_of_a_part_back(visited):
    async def scenario(page):
        visit, keep = page.visit, page.card("PartCard").keep
        await visit.take(torch.rand(1, 8, 8))
        keep.set_value(True)
        await page.until(lambda: visit.session.kept == ["a/0", "z/0"])
        await visit.undo()
        assert visit.session.kept == []
        assert not keep.value
        visit.session.keep("a/0")  # as a JSON may have it
        visit.show()
        assert keep.value, "what is held is shown"

    visited(scenario)


def answered(method):
    blank = torch.zeros(1, 8, 8)
    return Answer(method, blank, blank, torch.zeros(2, 1, 8, 8), False, ("Too few samples.",))


@pytest.mark.parametrize("methods", [(), ("guide",), ("guide", "smc")])
def test_answers_that_are_cut_off_are_told(visited, monkeypatch, methods):
    async def answers(self, question):
        for method in methods:
            yield answered(method)

    monkeypatch.setattr(Worker, "answers", answers)

    async def scenario(page):
        await page.visit.take(torch.rand(1, 8, 8))
        page.press("Ask")
        card = page.card("HiddenCard")
        await page.until(lambda: card.trust.text and not card.spinner.visible)
        return card.trust.text, card.why.text

    says, why = visited(scenario)
    assert why == ("Too few samples." if methods else "")
    assert (
        says
        == {
            0: "No answer: the connection was cut; ask again.",
            1: "Not to be trusted: the guide. No more: the connection was cut; ask again.",
            2: "Not to be trusted: sequential Monte Carlo.",
        }[len(methods)]
    )


def test_a_question_that_is_stopped_says_no_more_than_that(visited):
    async def scenario(page):
        await page.visit.take(torch.rand(1, 8, 8))
        page.press("Ask")
        card = page.card("HiddenCard")
        await page.until(lambda: page.visit.worker.busy)
        page.press("Stop")
        await asyncio.sleep(0.3)
        assert card.trust.text == "Stopped."
        assert not card.spinner.visible

    visited(scenario)


@pytest.mark.parametrize("tool", ["draw", "erase"])
def test_a_further_stroke_leaves_hidden_pixels_hidden(visited, tool):
    async def scenario(page):
        visit, card = page.visit, page.card("ImageCard")
        image = torch.rand(1, 8, 8)
        image[0, 2, 3] = math.nan
        await visit.take(image)
        visit.session.hide(torch.ones(8, 8, dtype=torch.bool).triu())
        mask, before = visit.session.mask, visit.session.image
        card.tool.set_value(tool)
        page.send(card.stage, "pointerdown", {"points": [[0.1, 0.8], [0.4, 0.8]]})
        await page.until(lambda: visit.session.image is not before)
        assert torch.equal(visit.session.mask, mask)
        visit.session.hide(None)
        assert visit.session.mask.sum() == 63

    visited(scenario)


class File:
    """A file that a visitor opens."""

    def __init__(self, text, name="parse.json"):
        self.text, self.name = text, name

    async def read(self):
        return self.text.encode()


def test_json_of_another_model_goes_to_that_model(visited, rnp, tmp_path, monkeypatch):
    torch.manual_seed(1)
    other = RNP(tiny()).eval()
    record = {"training": {"data": "digits", "size": 8}}
    monkeypatch.chdir(tmp_path)
    for name, model in (("one", rnp), ("two", other)):
        save(model, f"runs/{name}", record)
    session, notes = Session(other, name="runs/two"), []
    session.draw(torch.rand(1, 8, 8))
    text = session.to_json()

    async def scenario(page):
        visit, card = page.visit, page.card("ImageCard")
        monkeypatch.setattr(visit, "note", lambda text, kind="info": notes.append(text))
        await card._open(SimpleNamespace(file=File(text.replace("runs/two", "runs/gone"))))
        assert visit.session.image is None
        assert visit.name == "runs/one"
        assert "parse of the model runs/gone" in notes.pop()
        await card._open(SimpleNamespace(file=File(text)))
        assert visit.name == page.card("Bar").model.value == "runs/two"
        assert torch.equal(visit.session.tree.program, session.tree.program)
        assert "2 parts" in page.status()
        assert "runs/two" in notes.pop()

    visited(scenario, Shelf("runs/one"))


def test_the_parse_of_hidden_pixels_too_is_called_so(visited):
    async def scenario(page):
        words, visit = "It is the parse of the whole image, hidden pixels included.", page.visit
        await visit.take(torch.rand(1, 8, 8))
        assert words not in page.status()
        visit.session.hide(torch.eye(8, dtype=torch.bool))
        visit.show()
        assert page.status().endswith(f"over 56 pixels. {words}")

    visited(scenario)


@pytest.mark.parametrize("source", ["", "1"])
def test_a_part_is_exchanged_for_any_of_another_image(visited, rnp, source):
    async def scenario(page):
        visit, card = page.visit, page.card("OthersCard")
        await visit.take(torch.rand(1, 8, 8))
        await card._more()
        image = (await visit.images(3))[-1]
        card._pick(2, image)
        card.source.set_value(source)
        page.press("Exchange the part")
        await page.until(lambda: visit.session.edits)
        other = rnp.parse(card.other[None])
        assert torch.equal(visit.session.tree[0].program, other[int(source or 0)].program)
        visit.look(2)
        visit.show()
        assert card.source.value == ""
        assert [*card.source.options] == ["", "0/0", "0/1", "1/0", "1/1"]

    visited(scenario)


def test_later_parts_react_where_the_switch_says_so(visited):
    async def scenario(page):
        visit, part = page.visit, page.card("PartCard")
        await visit.take(torch.rand(1, 8, 8))
        for react in (True, False):
            part.react.set_value(react)
            page.press("Remove")
            number = 1 if react else 2
            await page.until(lambda number=number: len(visit.session.edits) == number)
            assert visit.session.edits[-1].react == react

    visited(scenario)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures_have_what_is_shown(visited, monkeypatch, kind):
    taken = {}
    monkeypatch.setattr(
        nicegui.ui.download, "content", lambda content, name: taken.update({name: content})
    )

    async def scenario(page):
        visit = page.visit
        await visit.take(torch.rand(1, 8, 8))
        visit.look(2)
        visit.steps, visit.palette = 3, COLOUR_BLIND
        page.press(kind.upper())
        await page.until(lambda: taken)
        whole = visit.session.picture(kind)
        assert taken == {f"parse.{kind}": visit.session.picture(kind, COLOUR_BLIND, 2, 3)}
        assert taken[f"parse.{kind}"] != whole

    visited(scenario)


def test_test_images_come_one_after_another_and_again(visited):
    async def scenario(page):
        visit = page.visit
        images = visit.shelf.images(visit.name)
        for i in (0, 1, 2, 3, 0):
            before = visit.session.image
            page.press("Next test image")
            await page.until(lambda before=before: visit.session.image is not before)
            assert torch.equal(visit.session.image, rounded(images[i]))

    visited(scenario)


def test_a_drawing_is_centred(visited):
    async def scenario(page):
        visit, image = page.visit, torch.zeros(1, 8, 8)
        image[0, :3, :2] = 1
        await visit.take(image)
        page.press("Centre")
        await page.until(lambda: not torch.equal(visit.session.image, image))
        assert torch.equal(visit.session.image, centre(image))
        await visit.undo()
        assert torch.equal(visit.session.image, image)
        visit.session.hide(torch.eye(8, dtype=torch.bool))
        page.press("Centre")
        await asyncio.sleep(0.3)
        assert torch.equal(visit.session.image, image), "what is hidden would be seen there"

    visited(scenario)


def test_what_is_hidden_is_shown_again(visited):
    async def scenario(page):
        visit, button = page.visit, page.button("Show what is hidden")
        await visit.take(torch.rand(1, 8, 8))
        assert not button.visible
        visit.session.hide(torch.eye(8, dtype=torch.bool))
        visit.show()
        assert button.visible
        page.press("Show what is hidden")
        await page.until(lambda: visit.session.mask.all())
        await page.until(lambda: not button.visible)

    visited(scenario)


@pytest.mark.parametrize("trusted", [True, False])
def test_why_an_answer_is_not_trusted_stands_below_it(visited, trusted):
    async def scenario(page):
        card, notes = page.card("HiddenCard"), () if trusted else ("One.", "Two.")
        card._show_answer(replace(answered("smc"), trusted=trusted, notes=notes), "")
        says, mark = ("Trusted", "rnp-good") if trusted else ("Not to be trusted", "rnp-bad")
        assert card.trust.text == f"{says}: sequential Monte Carlo."
        assert mark in card.trust.classes
        assert card.why.text == " ".join(notes)

    visited(scenario)


def test_an_answer_that_stays_after_a_stop_keeps_its_verdict(visited, monkeypatch):
    async def answers(self, question):
        yield answered("guide")
        await asyncio.sleep(60)

    monkeypatch.setattr(Worker, "answers", answers)

    async def scenario(page):
        await page.visit.take(torch.rand(1, 8, 8))
        page.press("Ask")
        card = page.card("HiddenCard")
        await page.until(lambda: "Still at work" in card.trust.text)
        page.press("Stop")
        await page.until(lambda: not card.spinner.visible)
        assert card.trust.text == "Not to be trusted: the guide. Stopped."
        assert card.why.text == "Too few samples."

    visited(scenario)


def test_a_part_that_was_removed_says_so_and_cannot_be_moved(visited):
    async def scenario(page):
        await page.visit.take(torch.rand(1, 8, 8))
        card = page.card("PartCard")
        fields = [control for pair in card.fields for control in pair]
        assert not card.gone.visible
        page.press("Remove")
        await page.until(lambda: page.status().startswith("1 of 2 parts"))
        assert card.gone.visible
        assert not any(control.enabled for control in (*fields, card.remove))
        await page.visit.undo()
        assert page.status().startswith("2 parts")
        assert not card.gone.visible
        assert all(control.enabled for control in (*fields, card.remove))

    visited(scenario)


def test_a_field_that_holds_no_number_gets_its_number_back(visited):
    async def scenario(page):
        await page.visit.take(torch.rand(1, 8, 8))
        number = page.card("PartCard").fields[4][1]
        before = number.value
        number.set_value(None)
        await page.until(lambda: number.value == before)
        assert "edit" not in page.status()

    visited(scenario)


def test_clear_leaves_nothing_drawn_and_comes_back_by_undo(visited):
    async def scenario(page):
        image = torch.rand(1, 8, 8)
        await page.visit.take(image)
        page.press("Clear")
        await page.until(lambda: page.status() == "Nothing is drawn yet.")
        assert not page.card("PartCard").remove.enabled
        await page.visit.undo()
        assert page.status().startswith("2 parts")

    visited(scenario)


def test_the_page_says_where_its_test_images_are_from(visited):
    async def scenario(page):
        return page.card("ImageCard").tests.text

    assert visited(scenario) == ""
    found = visited(scenario, Shelf("mnist"))
    assert found == "Test images: digits, which come along; --data and --data-root take others."
    assert visited(scenario, Shelf("mnist", data="strokes")) == "Test images: strokes."
