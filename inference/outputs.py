"""Files that commands leave: never over what is there, never half written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_rnp.files import write


def new_folder(path: str | Path, hint: str = "") -> Path:
    """Make a folder.

    Raises:
        FileExistsError: if something has that name already.
    """
    folder = unused(path, hint)
    folder.mkdir(parents=True)
    return folder


def new_file(path: str | Path) -> Path:
    """The path, once its folder is made.

    Raises:
        FileExistsError: if something has that name already.
    """
    file = unused(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def unused(path: str | Path, hint: str = "") -> Path:
    """The path, unless something has that name already.

    Raises:
        FileExistsError: if so, with a hint what to do.
    """
    if Path(path).exists():
        raise FileExistsError(f"{path} exists already; name another with --out{hint}.")
    return Path(path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write(path, (json.dumps(value, indent=2) + "\n").encode())


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_error(found: Mapping[str, Any], name: str, digits: str) -> str:
    """A number as text, with its standard error (`name_error`) where there is one."""
    if found.get(name) is None:
        return ""
    error = found.get(f"{name}_error")
    return format(found[name], digits) + (f" ± {error:.2g}" if error is not None else "")
