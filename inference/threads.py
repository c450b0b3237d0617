"""How many threads training takes: fewer where something else keeps the cores busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch

FIRST = 3
"""Steps before the first measurement."""
WINDOW = 10
"""Steps whose median is the present time of a step."""
SLOWER = 2.0
"""Factor by which the present time of a step must grow before the threads are measured again."""
MARGIN = 1.5
"""Factor by which fewer threads must be faster: another number changes the last digits of sums."""
TRIALS = 3
"""Measurements of each number of threads, of which the fastest counts."""


class Threads:
    """Watches the time of training steps and takes fewer threads where these are much faster.

    The threads of one operation wait for each other. Beside another busy process one of them is
    often not running, so that each of thousands of small operations in a step waits for the
    scheduler; one thread then takes its share of a core. The number never rises again.

    Args:
        most: how many threads there are at first.
        use: changes their number, as `torch.set_num_threads` does.
    """

    def __init__(self, most: int, use: Callable[[int], object]) -> None:
        self.number, self.use = most, use
        self.steps = 0
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.usual = float("inf")
        """The shortest present time of a step so far, in seconds."""

    def step(self, seconds: float, trial: Callable[[], float]) -> str:
        """Note the time of a step; measure where that is due, and change the number if it pays.

        Args:
            seconds: the time of the step.
            trial: does the work of a step that changes nothing, and returns its time in seconds.

        Returns:
            What to say of a change, empty if there is none.
        """
        self.steps += 1
        self.recent.append(seconds)
        now = median(self.recent)
        slow = len(self.recent) == WINDOW and now > SLOWER * self.usual
        if len(self.recent) == WINDOW:
            self.usual = now if slow else min(self.usual, now)
        if self.number == 1 or not (slow or self.steps == FIRST):
            return ""
        times = self._measured(trial)
        before, best = self.number, min(times, key=times.__getitem__)
        if times[before] <= MARGIN * times[best]:
            return ""
        self.take(best)
        many = f"{best} thread{'s' * (best > 1)}"
        return (
            f"From step {self.steps} on training takes {many} instead of {before}: a step takes "
            f"{times[best]:.2g} s instead of {times[before]:.2g} s, as other processes seem to "
            "keep the cores busy."
        )

    def take(self, number: int) -> None:
        """Go on with so many threads, but no more than there are now."""
        self.number = min(number, self.number)
        self.use(self.number)
        self.recent.clear()
        self.usual = float("inf")

    def _measured(self, trial: Callable[[], float]) -> dict[int, float]:
        """The shortest time of a step by number of threads: this one, a half of it, ..., 1."""
        numbers = [self.number >> halvings for halvings in range(self.number.bit_length())]
        times = dict.fromkeys(numbers, float("inf"))
        try:
            for _ in range(TRIALS):
                for number in numbers:
                    self.use(number)
                    times[number] = min(times[number], trial())
        finally:
            self.use(self.number)
        return times


@contextmanager
def same_threads_after() -> Iterator[None]:
    """Whatever happens meanwhile, the process has as many threads afterwards as before."""
    number = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(number)
