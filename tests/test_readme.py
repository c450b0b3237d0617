"""README, CONTRIBUTING and the documentation's pages: code that runs, names that exist."""

import importlib
import io
import json
import re
import sys
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from inference.commands import COMMANDS, main
from inference.data import DATASETS
from inference.objectives import OBJECTIVES
from inference.posterior import Method
from inference.posterior.engine import ENGINES
from pyro_rnp import PRESETS
from pyro_rnp.config import PIECES
from pyro_rnp.registry import GUIDES, PRIORS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
WRITTEN = ("*.md", "docs/*.md", "docs/explanation/*.md", "docs/how-to/*.md", "docs/tutorials/*.md")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for pattern in WRITTEN
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"
}
pages = pytest.mark.parametrize("page", PAGES)


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_the_readme_can_be_read_in_a_minute():
    assert len(README.splitlines()) <= 150
    for word in ("install", "notebook", "tutorial", "API", "contribute", "cite"):
        assert re.search(rf"\b{word}", README, re.I), word


def test_its_speeds_are_those_of_the_benchmark():
    found = json.loads((ROOT / "docs" / "benchmarks" / "speed.json").read_text())
    speeds = {
        row["what"]: f"{row['images_per_second']:,.0f}"
        for row in found["rows"]
        if (row["task"], row["batch_size"]) == ("train", 64)
    }
    (line,) = re.findall(r"^Speed in training.*?(?=\n\n)", README, re.M | re.S)
    told = re.findall(r"\s(\d[\d,]*\d)(?= \(|[).,])", line.partition("OUT`:")[2])
    assert told == [speeds[what] for what in ("mnist", "literal port", "fast", "flat VAE of fast")]


@pytest.mark.usefixtures("brief", "unchecked")
def test_its_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a run is trained there
    space: dict = {}
    for code in blocks(README):
        assert len(code.splitlines()) <= 20
        exec(code.replace("minutes=2", "epochs=1"), space)  # a training of two minutes is too long
    assert space["tree"].canvas.shape == (4, 1, 28, 28)
    assert space["tree"][1].action.shape == (4, 6)
    assert space["tree"][1][3].program.shape == (4, 16)
    assert space["posterior"].mean("canvas").shape == (4, 1, 28, 28)
    assert space["posterior"].trusted.shape == (4,)
    moved = space["edited"].canvas - space["tree"].canvas
    assert moved.abs().amax((1, 2, 3)).min() > 0.1
    assert space["parsed"].canvas.shape == (8, 1, 28, 28)
    assert space["run"].ended


@pytest.mark.usefixtures("brief", "unchecked")
def test_the_questions_run_in_five_lines_each():
    space: dict = {}
    first, *questions = blocks(PAGES["docs/how-to/questions.md"])
    assert len(questions) == 8
    assert max(len(code.splitlines()) for code in questions) <= 5
    for code in (first, *questions):
        exec(code, space)
    assert space["tree"].canvas.shape == (64, 1, 28, 28)
    assert space["half"].mean("canvas").shape == (4, 1, 28, 28)
    assert space["half"].samples["z/1"].shape == (200, 4, 16)
    assert space["held"].samples["a/1"].shape == (200, 4, 6)
    assert space["both"].canvas.shape == (200, 4, 1, 28, 28)
    assert space["chances"].shape == (4, 5, 28, 28)
    assert space["segments"].shape == (4, 28, 28)
    assert space["finer"].shape == (4, 17, 28, 28)
    assert space["gain"].shape == (3, 2)


def test_the_pieces_of_contributing_run(monkeypatch):
    for registry in (PRIORS, GUIDES):
        monkeypatch.setattr(registry, "pieces", dict(registry.pieces))
    space: dict = {}
    for code in blocks(CONTRIBUTING):
        exec(code, space)
    assert type(space["mine"].model.prior).__name__ == "LaplacePrior"
    assert type(space["mine"].guide.top).__name__ == "LinearGuide"
    assert space["loss"] < 1e6
    pieces = blocks(CONTRIBUTING)[0]
    for piece in ("class LaplacePrior", "class LinearGuide"):
        text = pieces[pieces.index(piece) :].split("\n@")[0].split("\n\n\n")[0]
        lines = [line for line in text.splitlines() if line.strip()]
        assert 1 + len(lines) <= 10, "with its decorator it is ten lines or fewer"


def test_the_table_of_pieces_is_that_of_the_registries():
    rows = {
        row.split("|")[1].split()[0]: set(re.findall(r"`([\w-]+)`", row.split("|")[2]))
        for row in README.split("## Pieces")[1].split("## ")[0].splitlines()
        if row.startswith("| ") and "`" in row
    }
    lower = rows.pop("lower")
    wanted = {name: set(PIECES[name].pieces) for name in PIECES if name != "lower_guide"}
    wanted |= {"objective": set(OBJECTIVES.pieces), "engine": set(ENGINES.pieces)}
    wanted |= {"data": set(DATASETS.pieces), "preset": set(PRESETS)}
    assert rows == wanted
    assert rows["engine"] == set(get_args(Method))
    assert lower == set(PIECES["lower_guide"].pieces)


def test_each_line_of_the_model_names_its_code():
    table = PAGES["docs/explanation/model.md"].split("## One run")[1].split("## ")[0]
    assert len(re.findall(r"`pyro_rnp\.[\w.]+`", table)) >= 11


@pages
def test_the_names_of_code_in_a_page_are_there(page):
    for name in re.findall(r"`((?:pyro_rnp|inference)(?:\.\w+)+)`", PAGES[page]):
        module, found = name, None
        while found is None:
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError:
                module, _, _ = module.rpartition(".")
                assert module, name
        for attribute in filter(None, name[len(module) :].split(".")):
            found = getattr(found, attribute)


@pages
def test_the_files_that_a_page_names_are_there(page):
    text, folder = PAGES[page], (ROOT / page).parent
    for path in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text):
        assert (folder / path).exists(), path
    named = r"\b(?:docs|scripts|tests|inference|pyro_rnp)/[a-z0-9_./-]+\.(?:py|yaml|txt|json)"
    for path in re.findall(named, text):
        assert (ROOT / path).exists(), path


@cache
def flags(script: str) -> set[str]:
    """The flags of a command, by its help."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), suppress(SystemExit):
        patch.setattr(sys, "argv", ["pyro-rnp", script, "--help"])
        main()
    found = set(re.findall(r"--([a-z][\w.-]*)", said.getvalue()))
    return found | {name.removeprefix("model.") for name in found}


@pages
def test_the_commands_that_a_page_names_are_there(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^|\s)make ([a-z]+)(?=`|\s+#|$)", PAGES[page], re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    named = r"pyro-rnp ([a-z]+)([^`]*?)(?=`|\n\n|pyro-rnp [a-z]+)"
    for script, rest in re.findall(named, PAGES[page], re.S):
        assert script in COMMANDS, script
        given = re.findall(r"(?<=\s)--([a-z][\w.-]*)", re.sub(r'"[^"]*"', "", rest))
        assert set(given) <= flags(script), script


def test_every_dependency_has_a_reason():
    declared = (ROOT / "pyproject.toml").read_text().split("[tool.", 1)[0]
    table = CONTRIBUTING.split("## Dependencies")[1].split("\n## ")[0]
    for name in re.findall(r'"([a-zA-Z-]+)(?:\[\w+\])?>=', declared):
        if name != "setuptools":
            assert name in table, name
