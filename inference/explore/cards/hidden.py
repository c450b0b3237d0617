"""What is hidden: the posterior of an image, as engines answer."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from inference.explore.controls import button, card, row, tile, tile_row
from inference.explore.questions import Answer
from inference.explore.session import NUMBER
from inference.explore.view import ink, spread
from inference.explore.visit import Card, Visit

ENGINES = {
    "guide": "the guide",
    "importance": "importance sampling",
    "smc": "sequential Monte Carlo",
}
CUT = "the connection was cut; ask again."


class HiddenCard(Card):
    """Answers to the question what is hidden, or what kept parts tell.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        self.questions, self.others = 0, False
        self.answered = False
        self.answer: Answer | None = None
        visit.ask = self.ask
        with card(
            "What is hidden",
            "Hide a region of the image with the brush, or keep a part and ask for the others.",
            wide=True,
        ):
            with row():
                button("Ask", self.ask, "help_outline")
                self.stop_button = button("Stop", self._stop, "stop")
                self.spinner = ui.spinner(size="1.4rem")
                self.trust = ui.label().classes("rnp-trust").props("role=status aria-live=polite")
            self.why = ui.label().classes("rnp-hint")
            self.row = tile_row()

    def forget(self) -> None:
        """End the question, and take its answers away."""
        self.questions += 1
        self.visit.worker.cancel()
        self.answered, self.answer = False, None
        self.row.clear()
        self._say("")
        self._busy(False)

    def asked(self) -> dict[str, Any]:
        """Return the question, or that about what is hidden."""
        if not self.answered and self.visit.session.mask.all():
            return {}
        return {"method": "smc", "others": self.answered and self.others}

    async def ask(self, others: bool = False) -> None:
        """Ask for the posterior of what is hidden, and show its answers as they arrive.

        Args:
            others: True hides all pixels, and asks for what the parts that are kept tell.
        """
        self.forget()
        visit, worker, mine = self.visit, self.visit.worker, self.questions
        question = await visit.do(lambda: visit.session.question(others))
        if question is None or mine != self.questions:  # another one, or a change, came meanwhile
            return
        self.answered, self.others = True, others
        self._busy(True)
        starts = "" if worker.ready else ", in a process that takes some seconds to start"
        self._say(f"At work: {ENGINES[question.methods[0]]}{starts} …")
        found, last = None, question.methods[-1]
        try:
            async for found in worker.answers(question):
                if mine == self.questions:
                    more = f" Still at work: {ENGINES[last]} …" if found.method != last else ""
                    self._show_answer(found, more)
        except (ValueError, OSError) as error:
            if mine == self.questions:
                self._say("No answer.", str(error), "rnp-bad")
                self._busy(False)
            return
        if mine == self.questions and not worker.busy:
            self._busy(False)
            if found is None:
                self._say(f"No answer: {CUT}", mark="rnp-bad")
            elif found.method != last:
                self._show_answer(found, f" No more: {CUT}")

    def _show_answer(self, answer: Answer, more: str) -> None:
        self.answer, engine = answer, ENGINES[answer.method]
        says, mark = ("Trusted", "rnp-good") if answer.trusted else ("Not to be trusted", "rnp-bad")
        self._say(f"{says}: {engine}.{more}", " ".join(answer.notes), mark)
        self.row.clear()
        with self.row:
            tile(ink(answer.mean), "mean")
            tile(spread(answer.std), "spread")
            for i, sample in enumerate(answer.samples[:NUMBER]):
                take = partial(self.visit.take, sample.clamp(0, 1))
                tile(ink(sample), f"sample {i}", take)

    def _say(self, text: str, why: str = "", mark: str = "") -> None:
        self.trust.set_text(text)
        self.trust.classes(add=mark, remove="rnp-good rnp-bad")
        self.why.set_text(why)

    def _busy(self, busy: bool) -> None:
        self.stop_button.set_visibility(busy)
        self.spinner.set_visibility(busy)

    def _stop(self) -> None:
        self.questions += 1
        self.visit.worker.cancel()
        self._busy(False)
        if self.answer is None:
            self._say("Stopped.")
        else:
            self._show_answer(self.answer, " Stopped.")
