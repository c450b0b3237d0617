"""Files that commands leave: never in place of others, never half written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_rnp.files import write

PICTURES = (".png", ".svg", ".pdf")
"""Kinds of pictures by suffix: those of `pyro_rnp.plotting`, which takes long to import."""


def new_folder(path: str | Path, hint: str = "") -> Path:
    """Make a folder, with the folders that it lies in.

    Args:
        path: the folder.
        hint: what else to try, for the error, after "name another with --out".

    Raises:
        FileExistsError: if something has that name already.
        ValueError: if it is the name of a picture.
    """
    folder = unused_folder(path, hint)
    folder.mkdir(parents=True)
    return folder


def new_file(path: str | Path) -> Path:
    """Make the folder of a new file and return the file's path.

    Raises:
        FileExistsError: if something has that name already.
    """
    file = unused(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def new_picture(path: str | Path) -> Path:
    """Make the folder of a new picture and return the picture's path.

    Raises:
        FileExistsError: if something has that name already.
        ValueError: if no picture is written under such a name.
    """
    if Path(path).suffix.lower() not in PICTURES:
        raise ValueError(f"--out must end in {', '.join(PICTURES)}, got {str(path)!r}.")
    return new_file(path)


def unused_folder(path: str | Path, hint: str = "") -> Path:
    """Return the path of a new folder, unless something has that name or it is a picture's.

    Args:
        path: of the folder.
        hint: what else to try, for the error, after "name another with --out".

    Raises:
        FileExistsError: if something has that name already.
        ValueError: if it is the name of a picture.
    """
    if Path(path).suffix.lower() in PICTURES:
        raise ValueError(f"--out names a folder to make, not a picture; got {str(path)!r}.")
    return unused(path, hint)


def unused(path: str | Path, hint: str = "") -> Path:
    """Return a path, unless something has that name already.

    Args:
        path: of a file or a folder.
        hint: what else to try, for the error, after "name another with --out".

    Raises:
        FileExistsError: if something has that name.
    """
    if Path(path).exists():
        raise FileExistsError(f"{path} exists already; name another with --out{hint}.")
    return Path(path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file, whole or not at all.

    Args:
        path: the file, which is replaced if it exists.
        value: numbers, texts, lists and dictionaries, as `json.dumps` takes them.
    """
    write(path, (json.dumps(value, indent=2) + "\n").encode())


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as Markdown.

    Args:
        head: the names of the columns.
        rows: the cells, as many in a row as there are columns.

    >>> print(markdown(["model", "ELBO"], [["a", "1.0"]]))
    | model | ELBO |
    | --- | --- |
    | a | 1.0 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_error(found: Mapping[str, Any], name: str, digits: str) -> str:
    """Format a number, with its standard error where there is one.

    Args:
        found: scores, in which `name_error` is the standard error of `name`.
        name: of the score; if it is missing, the text is empty.
        digits: the format of the number, such as ".4g".

    >>> with_error({"elbo": -71.25, "elbo_error": 0.5}, "elbo", ".1f")
    '-71.2 ± 0.5'
    """
    if found.get(name) is None:
        return ""
    error = found.get(f"{name}_error")
    return format(found[name], digits) + (f" ± {error:.2g}" if error is not None else "")
