"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path


def write(path: Path, data: bytes, keep: Path | None = None) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it.

    Args:
        path: the file; one that is there already is replaced.
        data: its content.
        keep: a second name under which the replaced file stays; by default it is lost. At every
            moment one of the two is whole.

    Raises:
        OSError: if there is no space or no right to write; the file at `path` is then untouched.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _copy(path, keep)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            left = "; what was there before is untouched" if path.exists() else ""
            raise OSError(
                error.errno, f"The disk is full, {path} could not be saved{left}"
            ) from error
        raise


def _copy(path: Path, to: Path) -> None:
    """A second name for the same content, or a copy where the file system has no links."""
    part = to.with_name(f"{to.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:
        try:
            shutil.copyfile(path, part)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    os.replace(part, to)
