"""Checks of numbers and words that users give, with errors of one sentence."""

from __future__ import annotations

from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((Integral,), "a whole number"),
    "float": ((Real,), "a number"),
    "bool": ((bool, np.bool_), "true or false"),
    "str": ((str,), "text"),
}
"""The types that a field may have by the name of its annotation, and what to call them."""


def check_fields(config: Any) -> None:
    """Raise unless fields of numbers, text and truth values of a dataclass hold such values.

    Args:
        config: the dataclass; other fields of it are not looked at.

    Raises:
        TypeError: in one sentence, for a value of another kind.
    """
    for f in fields(config):
        kind = f.type.__name__ if isinstance(f.type, type) else str(f.type)
        names, value = kind.split(" | "), getattr(config, f.name)
        if not set(names) <= {*KINDS, "None"} or (value is None and "None" in names):
            continue
        types, words = zip(*(KINDS[name] for name in names if name != "None"), strict=True)
        if not isinstance(value, sum(types, ())):
            empty = " or None" * ("None" in names)
            raise TypeError(f"{f.name} must be {' or '.join(words)}{empty}, got {value!r}.")


def whole(low: int, **numbers: Any) -> None:
    """Raise unless each number is whole and at least `low`.

    Args:
        low: the smallest value.
        numbers: values by name.

    Raises:
        TypeError: if one is no whole number.
        ValueError: if one is smaller.
    """
    for name, value in numbers.items():
        if not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}.")
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}.")
