"""Files that commands leave: never over what is there, never half written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def new_folder(path: str | Path, hint: str = "") -> Path:
    """Make a folder.

    Raises:
        FileExistsError: if something has that name already.
    """
    _refuse(Path(path), hint)
    Path(path).mkdir(parents=True)
    return Path(path)


def new_file(path: str | Path) -> Path:
    """The path, once its folder is made.

    Raises:
        FileExistsError: if something has that name already.
    """
    _refuse(Path(path), "")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)


def _refuse(path: Path, hint: str) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists already; name another with --out{hint}.")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(part, path)
