"""Image data sets of torchvision, by the names of their classes."""

from __future__ import annotations

import difflib
import inspect
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.data.arrays import array_source, items_source, joined
from inference.data.download import UnknownOption, download
from inference.data.prepare import Source
from pyro_rnp.registry import read_options

PREFIX = "torchvision:"
WORDS = {
    "train": ("train", "trainval"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
"""How constructors call each split."""
OURS = ("root", "download", "transform", "target_transform", "transforms", "train")
"""Arguments of constructors that are given here."""


def torchvision_sets() -> dict[str, type]:
    """The classes of the data sets that torchvision downloads, by name."""
    import torchvision.datasets

    return {
        name: made
        for name, made in vars(torchvision.datasets).items()
        if inspect.isclass(made) and {"root", "download"} <= set(_arguments(made))
    }


def check_torchvision(text: str) -> tuple[str, dict[str, Any]]:
    """The class and the options in a text.

    Args:
        text: `torchvision:NAME` or `torchvision:NAME:option=value,...`.

    Raises:
        ValueError: if there is no such data set, or the text is malformed.
    """
    name, _, rest = text.removeprefix(PREFIX).partition(":")
    options = read_options(rest, f"data set {text!r}")
    known = torchvision_sets()
    if name not in known:
        alike = {k.lower(): k for k in known}
        close = difflib.get_close_matches(name.lower(), alike, 1)
        hint = f" (did you mean {alike[close[0]]}?)" if close else ""
        raise ValueError(f"torchvision has no data set {name!r}{hint}.")
    has = _arguments(known[name])
    for option in options:
        if option not in has:
            others = ", ".join(a for a in has if a not in OURS)
            raise ValueError(f"torchvision's {name} has no option {option!r}; it has {others}.")
    for option, how in has.items():
        if how.default is how.empty and option not in (*options, *OURS):
            raise ValueError(f"torchvision's {name} needs {option}: give {text}:{option}=VALUE.")
    return name, options


def torchvision_source(text: str, root: Path) -> Source:
    """Read a data set of torchvision; it is downloaded if it is not there.

    Args:
        text: as `check_torchvision` takes it.
        root: the folder of data sets.

    Raises:
        ValueError: if there is no such data set, its files are damaged, or its items are no images.
        FileNotFoundError: if it is not there and cannot be downloaded.
    """
    import torchvision.datasets

    name, options = check_torchvision(text)
    made = getattr(torchvision.datasets, name)
    has = _arguments(made)
    parts: list[tuple[str | None, Any]] = []
    if "train" in has and "train" not in options:
        parts = [
            (split, download(made, root, train=split == "train", **options))
            for split in ("train", "test")
        ]
    elif "split" in has and "split" not in options:
        for split, words in WORDS.items():
            for word in words:
                with suppress(UnknownOption):
                    parts.append((split, download(made, root, split=word, **options)))
                    break
    else:
        parts += [(None, download(made, root, **options))]
    if not any(split in (None, "train") for split, _ in parts):
        raise ValueError(f"{text} has no split to learn from that is known here; give :split=NAME.")
    return joined([_part(data, text, split) for split, data in parts])


def _part(data: Any, name: str, split: str | None) -> Source:
    """An array where the data set holds its images as one, else item by item."""
    items = items_source(data, name, split)
    images, labels = getattr(data, "data", None), getattr(data, "targets", None)
    labels = getattr(data, "labels", None) if labels is None else labels
    if not isinstance(images, np.ndarray | torch.Tensor) or labels is None or not len(data):
        return items
    try:
        whole = array_source(images, labels, splits=split, name=name)
        first, wanted = (next(source.chunks(False)) for source in (whole, items))
    except ValueError:
        return items
    same = torch.equal(first.pixels[0], wanted.pixels[0]) and first.labels[0] == wanted.labels[0]
    return replace(whole, class_names=items.class_names) if same else items


def _arguments(made: type) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor, with those that it passes on to the class that it extends."""
    found: dict[str, inspect.Parameter] = {}
    for base in made.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        own = [
            p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]
        found = {**{p.name: p for p in own if p.name != "self"}, **found}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return found
