"""Signals."""

import os
import signal

import pytest

from inference.system import listening


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_is_as_before(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append("before"))
    try:
        with listening() as stop:
            assert stop.number == 0
            os.kill(os.getpid(), number)
            assert (stop.number, seen) == (number, [])
            os.kill(os.getpid(), number)
            assert seen == ["before"]
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)
        os.kill(os.getpid(), number)
        assert seen == ["before", "before"]
    finally:
        signal.signal(number, before)
