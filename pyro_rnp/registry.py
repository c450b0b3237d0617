"""Registries of pieces, which a configuration chooses by name.

A configuration names a piece as `name`, or as `name:option=value,option=value` with options of its
constructor: `mixture:components=20`. `@PRIORS.add("mine")` adds a piece of one's own, which is then
chosen like all others. A piece may also be given to `pyro_rnp.RNP` as an object, without any name.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Callable
from inspect import Parameter
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Constructors of one kind of piece by name.

    The options of a piece are the keyword-only arguments of its constructor.

    >>> boxes = Registry("box")
    >>> @boxes.add("cube")
    ... def cube(size, *, colour="red"):
    ...     return f"a {colour} cube of {size}"
    >>> boxes.make("cube:colour=blue", 3)
    'a blue cube of 3'

    Args:
        kind: the kind of piece, for messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: dict[str, Callable[..., T]] = {}

    def add(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """A decorator that registers a constructor.

        Args:
            name: under which configurations find it; a piece of one's own may be replaced.

        Raises:
            ValueError: if a piece that comes with the project has that name.
        """
        if getattr(self.pieces.get(name), "__module__", "").startswith(("pyro_rnp.", "inference.")):
            raise ValueError(f"There is a {self.kind} {name!r} already; choose another name.")

        def named(piece: Callable[..., T]) -> Callable[..., T]:
            self.pieces[name] = piece
            return piece

        return named

    def parse(self, text: str) -> tuple[str, dict[str, Any]]:
        """The name and the options in a text.

        Args:
            text: `name` or `name:option=value,...`; a value is a Python literal, a word, or true
                or false.

        Raises:
            ValueError: if there is no such piece, it has no such option, or the text is malformed.
        """
        name, _, rest = text.partition(":")
        if name not in self.pieces:
            close = difflib.get_close_matches(name, self.pieces, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(
                f"There is no {self.kind} {name!r}{hint}; choose from {', '.join(self.pieces)}."
            )
        options = read_options(rest, f"{self.kind} {text!r}")
        known = self.options(name)
        for option in options:
            if option not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise ValueError(f"The {self.kind} {name!r} has no option {option!r}; {has}.")
        return name, options

    def options(self, name: str) -> dict[str, Any]:
        """The options of a piece with their defaults.

        Args:
            name: of a piece that is registered.
        """
        parameters = inspect.signature(self.pieces[name]).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}

    def make(self, text: str, *args: Any) -> T:
        """Make the piece that a text names.

        Args:
            text: as `parse` takes it.
            args: the positional arguments that all constructors of this kind take.

        Raises:
            ValueError: if `parse` refuses the text, an option has a value of another type than its
                default, or the constructor refuses it.
        """
        name, options = self.parse(text)
        for option, value in options.items():
            default = self.options(name)[option]
            if type(value) is int and isinstance(default, float):
                options[option] = float(value)
            elif default not in (None, Parameter.empty) and type(value) is not type(default):
                raise ValueError(
                    f"The {self.kind} {name!r} takes {option} like {default!r}, got {value!r}."
                )
        return self.pieces[name](*args, **options)

    def describe(self) -> str:
        """One line for `--help`: every name with its options and their defaults."""
        texts = []
        for name in self.pieces:
            options = ",".join(f"{k}={v}" for k, v in self.options(name).items())
            texts.append(f"{name}:{options}" if options else name)
        return "; ".join(texts)


class PieceRegistry(Registry[T]):
    """A registry of a kind of piece that `pyro_rnp.RNP` takes as an object too.

    An object stands in a configuration as `object:type="module.Class"`, from which nothing can be
    made: the object has to be given again.

    Args:
        kind: the kind of piece, for messages.
        argument: the argument of `RNP` that takes an object.
    """

    def __init__(self, kind: str, argument: str) -> None:
        super().__init__(kind)
        self.argument = argument

    def parse(self, text: str) -> tuple[str, dict[str, Any]]:
        given = object_type(text)
        return super().parse(text) if given is None else ("object", {"type": given})

    def make(self, text: str, *args: Any) -> T:
        given = object_type(text)
        if given is not None:
            raise ValueError(
                f"This model's {self.kind} was given as an object of {given}; give it: "
                f"load(run, {self.argument}=...), or RNP(config, {self.argument}=...)."
            )
        return super().make(text, *args)


def object_text(piece: Any) -> str:
    """The text that stands in a configuration for a piece that was given as an object.

    >>> object_text(Registry("box"))
    'object:type="pyro_rnp.registry.Registry"'

    Args:
        piece: the object.
    """
    return f'object:type="{type(piece).__module__}.{type(piece).__qualname__}"'


def object_type(text: str) -> str | None:
    """The module and class of the object that a text stands for; None if it names a piece.

    Args:
        text: a field of a configuration.
    """
    match = re.fullmatch(r'object:type="(.+)"', text)
    return match and match[1]


def read_options(text: str, what: str) -> dict[str, Any]:
    """Read options as a configuration writes them.

    >>> read_options("colour=blue,size=3,soft=true", "box")
    {'colour': 'blue', 'size': 3, 'soft': True}

    Args:
        text: `option=value,...`; a value is a Python literal, a word, or true or false.
        what: the thing that has the options, for the message.

    Raises:
        ValueError: if the text is malformed.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        return {str(k.arg): _value(k.value) for k in call.keywords if _named(k)}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"The {what} cannot be read; write name:option=value,...") from error


def _named(keyword: ast.keyword) -> bool:
    if keyword.arg is None:
        raise SyntaxError
    return True


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False}.get(node.id.lower(), node.id)
    return ast.literal_eval(node)


PRIORS: Registry[Any] = PieceRegistry("prior", "prior")
GUIDES: Registry[Any] = PieceRegistry("guide", "guide")
LOWER_GUIDES: Registry[Any] = PieceRegistry("lower guide", "lower_guide")
LIKELIHOODS: Registry[Any] = PieceRegistry("likelihood", "likelihood")
COMPOSITIONS: Registry[Any] = PieceRegistry("composition", "composition")
PLACEMENTS: Registry[Any] = PieceRegistry("placement", "placement")
PROGRAMS: Registry[Any] = Registry("program")
