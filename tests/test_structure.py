"""The house: where modules lie, and who imports whom."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file for package in ("pyro_rnp", "inference") for file in (ROOT / package).rglob("*.py")
)
HELD_OVER_ALL = {"inference"}
"""Packages whose names are looked up when they are used, so that importing them imports nothing."""


def name_of(file: Path) -> str:
    """The dotted name of a module or package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


def imports(file: Path) -> set[str]:
    """The project's modules that a file imports when it is imported, or for its annotations."""
    tree, found = ast.parse(file.read_text()), set()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return {name for name in found if name in MODULES} - {name_of(file)}


def package(module: str) -> str:
    """The room of the house: a package of `inference`, a module beside them, or `pyro_rnp`."""
    return "pyro_rnp" if module.startswith("pyro_rnp") else ".".join(module.split(".")[:2])


def check(graph: dict[str, set[str]]) -> None:
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(reversed(error.args[1]))}")


def test_no_module_imports_itself_by_way_of_others():
    check({name: imports(file) for name, file in MODULES.items() if name not in HELD_OVER_ALL})


def test_no_package_imports_itself_by_way_of_others():
    graph: dict[str, set[str]] = {}
    for name, file in MODULES.items():
        if name not in HELD_OVER_ALL:
            own = graph.setdefault(package(name), set())
            own |= {package(other) for other in imports(file)} - {package(name)}
    check(graph)


def test_the_model_knows_nothing_of_its_use():
    for name, file in MODULES.items():
        if name.startswith("pyro_rnp"):
            assert not [other for other in imports(file) if other.startswith("inference")], name


def test_inference_has_ten_modules_at_most_at_its_top():
    assert len(list((ROOT / "inference").glob("*.py"))) <= 10


def test_tests_stand_where_modules_do():
    for folder in (file for file in (ROOT / "tests").rglob("*") if (file / "__init__.py").exists()):
        where = folder.relative_to(ROOT / "tests")
        assert (ROOT / where).is_dir(), f"{where} is a folder of tests of nothing"
