"""Data sets of torchvision, downloaded if need be."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any


class UnknownOption(ValueError):
    """An option of a data set has a value that it does not know, such as a split."""


def download(source: Callable[..., Any], root: Path, **which: Any) -> Any:
    """Load a torchvision data set, and download it if it is not there.

    Args:
        source: the class of the data set.
        root: the folder of data sets.
        which: further arguments of the class, such as `train=True`.

    Raises:
        UnknownOption: if an option has a value that there is not.
        ValueError: if its files are damaged.
        FileNotFoundError: if it is not there and cannot be downloaded.
    """
    try:
        return source(root=str(root), download=False, **which)
    except FileNotFoundError:  # of some data sets, whose files are looked for when they are read
        pass
    except (RuntimeError, ValueError, AssertionError, EOFError) as error:
        if "Unknown value" in str(error):
            raise UnknownOption(f"{source.__name__}: {error}") from error
        if "not found" not in str(error):
            raise ValueError(
                f"{source.__name__} in {root} is damaged ({error}); delete it and it is "
                "downloaded again."
            ) from error
    own = root / ("omniglot-py" if source.__name__ == "Omniglot" else source.__name__)
    new = [folder for folder in (own / "raw", own, root) if not folder.exists()]
    try:
        return source(root=str(root), download=True, **which)
    except (RuntimeError, OSError, HTTPException) as error:
        for folder in new:
            with suppress(OSError):  # it holds something, or was not made
                folder.rmdir()
        raise FileNotFoundError(
            f"{source.__name__} is not in {root}; name the folder that holds it with --data-root, "
            f"since it cannot be downloaded: {_cause(error)}."
        ) from error


def _cause(error: Exception) -> str:
    """Why a download failed: torchvision gives a line to each mirror, and one to its error."""
    lines = [line.strip() for line in str(error).splitlines()]
    causes = [re.sub(r"^<urlopen error (.*)>$", r"\1", line) for line in lines]
    said = dict.fromkeys(cause.rstrip(".") for cause in causes if cause and cause[-1] != ":")
    return "; ".join(said) or type(error).__name__
