"""Schedules: how a rate rises and falls."""

import pytest

from inference.training.schedules import schedule


def test_the_learning_rate_rises_and_falls():
    assert [schedule(s, 4, 0.0) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    falling = [schedule(100, 4, p / 10) for p in range(11)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(0)
    assert schedule(100, 4, 1.5) == pytest.approx(0)
