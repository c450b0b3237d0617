"""The snippets of each guide run; `make docs` runs the tutorials' cells."""

import re
from pathlib import Path

import matplotlib
import pytest

from inference.data import DATASETS
from inference.objectives import OBJECTIVES
from inference.posterior.engine import ENGINES
from pyro_rnp.config import PIECES

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = [page for page in (DOCS / "how-to").glob("*.md") if page.stem != "questions"]
"""`tests/test_readme.py` runs the other one."""
GUIDES += [DOCS / "index.md", DOCS / "getting-started.md"]


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Pieces that a page adds are gone after it."""
    for registry in (*PIECES.values(), DATASETS, ENGINES, OBJECTIVES):
        monkeypatch.setattr(registry, "pieces", dict(registry.pieces))


@pytest.mark.usefixtures("brief", "unchecked")
@pytest.mark.filterwarnings("default")  # ArviZ and Jupyter have warnings of their own
@pytest.mark.parametrize("page", sorted(GUIDES), ids=lambda page: page.stem)
def test_the_snippets_of_a_guide_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    namespace = {}
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(page), "exec"), namespace)
