"""Each tutorial runs from its first cell to its last, and so do the snippets of each guide."""

import re

import matplotlib
import pyro
import pytest

from inference.data import DATASETS
from inference.objectives import OBJECTIVES
from inference.posterior.engine import ENGINES
from pyro_rnp.config import PIECES
from tests.docs.tutorials import DOCS, cells, run

PAGES = sorted(page for page in (DOCS / "tutorials").glob("*.md") if page.name != "index.md")

GUIDES = [page for page in (DOCS / "how-to").glob("*.md") if page.stem != "questions"]
"""`tests/test_readme.py` runs the other one."""
GUIDES += [DOCS / "index.md", DOCS / "getting-started.md"]


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Pieces that a page adds are gone after it."""
    for registry in (*PIECES.values(), DATASETS, ENGINES, OBJECTIVES):
        monkeypatch.setattr(registry, "pieces", dict(registry.pieces))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("default")  # ArviZ and Jupyter have warnings of their own
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    run(page)
    pyro.clear_param_store()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", sorted(GUIDES), ids=lambda page: page.stem)
def test_the_snippets_of_a_guide_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(page), "exec"), namespace)


def test_there_are_tutorials_and_each_has_cells():
    assert PAGES
    assert all([*cells(page)] for page in PAGES)


def test_a_failing_cell_is_named_with_its_line(tmp_path, monkeypatch):
    page = DOCS / "tutorials" / "none.md"
    first = "```{code-cell}\n:tags: [hide-input]\nx = 1\n```\n"
    text = f"# A page\n\n{first}\n```{{code-cell}}\nx / 0\n```\n"
    monkeypatch.setattr(type(page), "read_text", lambda self: text)
    assert [*cells(page)] == [(5, "x = 1\n"), (9, "x / 0\n")]
    with pytest.raises(AssertionError, match="tutorials/none.md, the cell at line 9: ZeroDivision"):
        run(page)
