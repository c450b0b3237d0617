"""Stopping between two steps when the process is asked to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Asked to stop, by a signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopSignal:
    """The first SIGINT or SIGTERM that came, if any; a second one ends the process at once."""

    def __init__(self, tell: Callable[[int], object] | None = None) -> None:
        self.number = 0
        self.tell = tell
        self.main = threading.current_thread() is threading.main_thread()
        """Elsewhere Python takes no signals, and nothing here changes."""
        self.before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def listen(self) -> None:
        """Note signals instead of ending; again where other code has changed that."""
        if self.main and not self.number:
            for s in self.before:
                signal.signal(s, self._note)

    def forget(self) -> None:
        """Do as before."""
        if self.main:
            for s, handler in self.before.items():
                signal.signal(s, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.forget()
        if self.tell is not None:
            self.tell(number)


@contextmanager
def listening(tell: Callable[[int], object] | None = None) -> Iterator[StopSignal]:
    """Note the first SIGINT or SIGTERM instead of ending at once.

    Args:
        tell: what is called with its number.
    """
    stop = StopSignal(tell)
    stop.listen()
    try:
        yield stop
    finally:
        stop.forget()
