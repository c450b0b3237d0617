"""What the README says is so."""

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    space: dict = {}
    exec(code, space)
    assert space["tree"].canvas.shape == (16, 1, 28, 28)


def test_each_line_of_the_model_names_code_that_is_there():
    table = README.split("## The model")[1].split("## ")[0]
    names = re.findall(r"`(pyro_rnp\.[\w.]+)`", table)
    assert len(names) >= 11
    for name in names:
        module, found = name, None
        while found is None:
            module, _, _ = module.rpartition(".")
            assert module, name
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError:
                continue
        for attribute in name[len(module) + 1 :].split("."):
            found = getattr(found, attribute)


def test_its_pictures_files_and_targets_are_there():
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"(?:scripts|docs)/[\w./-]+\.(?:py|yaml|png)", README):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^make (\w+)", README, re.M)
    makefile = (ROOT / "Makefile").read_text()
    assert {"train", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_dependency_has_a_reason():
    declared = (ROOT / "pyproject.toml").read_text().split("[tool.", 1)[0]
    table = README.split("## Dependencies")[1].split("## ")[0]
    for name in re.findall(r'"([a-zA-Z-]+)(?:\[\w+\])?>=', declared):
        if name != "setuptools":
            assert name in table, name
