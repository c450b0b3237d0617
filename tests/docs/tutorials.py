"""Read and run the cells of code of a page in MyST Markdown, without Sphinx or Jupyter."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A cell of code; its options stand in lines of their own before the code."""
OPTIONS = re.compile(r"\A(---\n.*?^---\n|(:[\w-]+:[^\n]*\n)+)", re.MULTILINE | re.DOTALL)


def cells(page: Path) -> Iterator[tuple[int, str]]:
    """The cells of a page: the line at which the code begins, and the code."""
    text = page.read_text()
    for found in CELL.finditer(text):
        code, start = found[1], found.start(1)
        if options := OPTIONS.match(code):
            code, start = code[options.end() :], start + options.end()
        yield text.count("\n", 0, start) + 1, code


def run(page: Path) -> None:
    """Run the cells of a page in one namespace, as a notebook does.

    Raises:
        AssertionError: if a cell fails; it names the page and the line.
    """
    before = sys.modules.get("IPython.display")
    sys.modules["IPython.display"] = _display()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for line, code in cells(page):
            padded = "\n" * (line - 1) + code  # lines of a traceback are those of the page
            try:
                exec(compile(padded, str(page), "exec"), namespace)
            except Exception as error:
                where = f"docs/{page.relative_to(DOCS)}, the cell at line {line}"
                raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        del sys.modules["IPython.display"]
        if before is not None:
            sys.modules["IPython.display"] = before


def _display() -> ModuleType:
    """A stand-in for IPython's: `Image` takes a path at which a picture is."""
    module: Any = ModuleType("IPython.display")
    module.Image = lambda filename, **_: Path(filename).stat()
    return module
