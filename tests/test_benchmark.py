"""What is compared does the same thing."""

import pytest

from inference.benchmark import LITERAL, compare, training_step


def test_the_rows_name_what_was_timed():
    rows = compare([LITERAL, "preset mnist"], [2], steps=1, repeats=1)
    assert [(r["what"], r["batch_size"]) for r in rows] == [(LITERAL, 2), ("preset mnist", 2)]
    assert rows[0]["ratio"] == 1
    assert all(0.1 < r["peak_gib"] < 4 for r in rows)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="no preset 'minst'"):
        training_step("preset minst", 2)
