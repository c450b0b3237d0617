"""Every public class and function says what it does, and names its arguments."""

import importlib
import inspect
import pkgutil
import re

import pytest

import inference
import pyro_rnp

MODULES = [
    info.name
    for package in (pyro_rnp, inference)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


def public(module: str):
    """The classes and functions of a module, and the methods of its classes, by name."""
    for name, thing in vars(importlib.import_module(module)).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module:
            continue
        if inspect.isclass(thing):
            yield name, thing
            for method, found in vars(thing).items():
                found = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
                if not method.startswith("_") and inspect.isfunction(found):
                    yield f"{name}.{method}", found
        elif inspect.isfunction(thing):
            yield name, thing


def arguments(function) -> list[str]:
    names = [name.lstrip("*") for name in inspect.signature(function).parameters]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def overrides(module: str, name: str) -> bool:
    """Whether a name, as `Class.method`, is a method that a base class documents."""
    owner, _, method = name.partition(".")
    bases = vars(importlib.import_module(module))[owner].__mro__[1:] if method else ()
    return any(getattr(vars(base).get(method), "__doc__", None) for base in bases)


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module):
    assert importlib.import_module(module).__doc__
    without = [
        name for name, thing in public(module) if not thing.__doc__ and not overrides(module, name)
    ]
    assert not without


@pytest.mark.parametrize("module", MODULES)
def test_functions_of_several_arguments_name_each(module):
    unnamed = []
    for name, thing in public(module):
        if inspect.isclass(thing) or len(arguments(thing)) < 2 or overrides(module, name):
            continue
        section = re.search(r"^ *Args:\n(.*?)(?:^ *\w+:\n|\Z)", thing.__doc__ or "", re.M | re.S)
        text = section[1] if section else ""
        named = re.findall(r"^ +([\w, *]+):", text, re.M)
        named = {one.strip(" *") for line in named for one in line.split(",")}
        if missing := [argument for argument in arguments(thing) if argument not in named]:
            unnamed.append(f"{name}: {', '.join(missing)}")
    assert not unnamed
