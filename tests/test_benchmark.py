"""What is compared does the same thing."""

import pytest
import torch

from inference.benchmark import LITERAL, compare, peak_memory, training_step


def test_the_rows_name_what_was_timed():
    rows = compare([LITERAL, "preset mnist"], [2], steps=1, repeats=1)
    assert [(r["what"], r["batch_size"]) for r in rows] == [(LITERAL, 2), ("preset mnist", 2)]
    assert rows[0]["ratio"] == 1
    assert all(0.1 < r["peak_gib"] < 4 for r in rows)


def test_memory_is_that_of_the_work_and_not_of_the_caller():
    held = torch.ones(2**28)  # 1 GiB here
    small, large = peak_memory("preset fast", 2), peak_memory("preset mnist", 64)
    assert small < 1
    assert large > small + 0.3
    assert held.sum() == 2**28


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="no preset 'minst'"):
        training_step("preset minst", 2)
