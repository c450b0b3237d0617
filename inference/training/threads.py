"""The number of threads of training: fewer where other processes keep the cores busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

FIRST = 3
"""Steps before fewer threads are tried for the first time."""
WINDOW = 10
"""Steps whose median is the present time of a step."""
SLOWER = 2.0
"""Factor by which the present time of a step must grow before fewer threads are tried again."""
MARGIN = 1.5
"""Factor by which fewer threads must be faster: another number changes the last digits of sums."""
TRIALS = 3
"""Trials of each smaller number of threads, of which the median counts."""


class Threads:
    """Measures the time of training steps and takes fewer threads where these are much faster.

    The threads of one operation wait for each other. Beside another busy process one of them is
    often not running, so that each of thousands of small operations in a step waits for the
    scheduler; one thread then takes its share of a core. The number never rises again.

    Args:
        most: the number of threads at first.
        use: sets the number of threads, as `torch.set_num_threads` does.

    Attributes:
        number: the present number of threads.
    """

    def __init__(self, most: int, use: Callable[[int], object]) -> None:
        self.number, self.use = most, use
        self.steps = 0
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.usual = float("inf")
        """The shortest present time of a step so far, in seconds."""

    def step(self, seconds: float, trial: Callable[[], float]) -> str:
        """Note the time of a step; where it is due, try fewer threads, and keep them if it pays.

        Fewer threads are tried after `FIRST` steps, and whenever steps have become `SLOWER` times
        slower. They are kept where a step is at least `MARGIN` times faster with them.

        Args:
            seconds: the time that the step took.
            trial: does the work of a step without changing anything, and returns its seconds.

        Returns:
            A sentence about the change; empty if there is none.
        """
        self.steps += 1
        self.recent.append(seconds)
        now = median(self.recent)
        slow = len(self.recent) == WINDOW and now > SLOWER * self.usual
        if len(self.recent) == WINDOW:
            self.usual = now if slow else min(self.usual, now)
        if self.number == 1 or not (slow or self.steps == FIRST):
            return ""
        times, before = self._tried(trial), self.number
        best = min(times, key=times.__getitem__)
        if now <= MARGIN * times[best]:
            return ""
        self.take(best)
        many = f"{best} thread{'s' * (best > 1)}"
        return (
            f"After {self.steps} steps training goes on with {many} instead of {before}: a step "
            f"takes {times[best]:.2g} s instead of {now:.2g} s, as other processes seem to keep "
            "the cores busy."
        )

    def take(self, number: int) -> None:
        """Set the number of threads, to no more than there are now."""
        self.number = min(number, self.number)
        self.use(self.number)
        self.recent.clear()
        self.usual = float("inf")

    def _tried(self, trial: Callable[[], float]) -> dict[int, float]:
        """The seconds of a trial by number of threads: half of the present number, down to 1."""
        numbers = [self.number >> halvings for halvings in range(1, self.number.bit_length())]
        times = {}
        try:
            for number in numbers:
                self.use(number)
                times[number] = median(trial() for _ in range(TRIALS))
        finally:
            self.use(self.number)
        return times
