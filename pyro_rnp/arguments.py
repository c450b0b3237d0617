"""Checks of numbers and words that users give, with errors of one sentence."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((Integral,), "a whole number"),
    float: ((Real,), "a number"),
    bool: ((bool, np.bool_), "true or false"),
    str: ((str,), "text"),
    NoneType: ((NoneType,), "None"),
}
"""The types that a value may have by its annotation, and what to call them."""


class WrongType(TypeError):
    """A value of another kind than it must be, as text for a number: a user's mistake."""


def check_fields(config: Any) -> None:
    """Raise unless the fields of a dataclass hold values of their own kinds.

    Numbers of NumPy become Python's, and a list becomes a tuple where that is wanted.

    Args:
        config: the dataclass, which may be frozen.

    Raises:
        WrongType: in one sentence, a `TypeError`, for a value of another kind.
        ValueError: likewise, for a value that is none of the choices that a field has.
    """
    kind: Any = type(config)
    for name, hint in _fields(kind).items():
        given = getattr(config, name)
        value = _plain(given, hint)
        if not _fits(value, hint):
            choices = _choices(hint)
            if choices is not None:
                raise ValueError(f"{name} must be one of {choices}, got {given!r}.")
            words = " or ".join(map(_words, _kinds(hint)))
            raise WrongType(f"{name} must be {words}, got {given!r}.")
        if value is not given:
            object.__setattr__(config, name, value)


@cache
def _fields(kind: Any) -> dict[str, Any]:
    """The annotations of a dataclass's fields, read."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _choices(hint: Any) -> tuple[Any, ...] | None:
    """All values of an annotation that has words among them; None of any other."""
    if all(get_origin(kind) is not Literal for kind in _kinds(hint)):
        return None
    few = {bool: (True, False), NoneType: (None,)}
    return tuple(x for kind in _kinds(hint) for x in few.get(kind) or get_args(kind))


def _plain(value: Any, hint: Any) -> Any:
    """A value without NumPy's types, and a list as the tuple that is wanted."""
    if isinstance(value, np.generic):
        return value.item()
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_plain(x, None) for x in value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    kinds, origin, inner = _kinds(hint), get_origin(hint), get_args(hint)
    if len(kinds) > 1:
        return any(_fits(value, kind) for kind in kinds)
    if origin is Literal:
        return any(value is x or (isinstance(x, str) and value == x) for x in inner)
    if origin in (list, tuple):
        return isinstance(value, origin) and all(_fits(x, inner[0]) for x in value)
    types = KINDS[hint][0] if hint in KINDS else hint
    return not isinstance(types, type | tuple) or isinstance(value, types)


def _words(hint: Any) -> str:
    inner = get_args(hint)
    if get_origin(hint) is tuple and inner[0] is int:
        return "whole numbers in brackets, as (4, 4)"
    if get_origin(hint) in (list, tuple):
        return f"a {get_origin(hint).__name__}, each of it {_words(inner[0])}"
    if get_origin(hint) is Literal:
        return f"one of {inner}"
    return KINDS[hint][1] if hint in KINDS else getattr(hint, "__name__", str(hint))


def within(low: float | int, high: float | int = math.inf, **options: float | int) -> None:
    """Raise unless each option lies in [low, high] and is finite.

    Args:
        low: the smallest value.
        high: the largest value; by default there is none.
        options: values by name.

    Raises:
        WrongType: if an option is no number.
        ValueError: if an option lies beyond.
    """
    for name, value in options.items():
        if not isinstance(value, Real):
            raise WrongType(f"{name} must be a number, got {value!r}.")
        if not (low <= value <= high and math.isfinite(value)):
            limits = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ValueError(f"{name} must be {limits}, got {value}.")


def whole(low: int, high: float | int = math.inf, **numbers: Any) -> None:
    """Raise unless each number is whole and lies in [low, high].

    Args:
        low: the smallest value.
        high: the largest value; by default there is none.
        numbers: values by name.

    Raises:
        WrongType: if one is no whole number.
        ValueError: if one lies beyond.
    """
    for name, value in numbers.items():
        if not isinstance(value, Integral):
            raise WrongType(f"{name} must be a whole number, got {value!r}.")
    within(low, high, **numbers)
