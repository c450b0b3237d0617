"""The installed command: what it lists, what it refuses, and what the package brings for it."""

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.resources import files
from pathlib import Path

import pytest

import inference.commands
from inference.cli import RECIPES, train_config
from inference.commands import COMMANDS, main
from pyro_rnp import RNPConfig, __version__

ROOT = Path(__file__).parents[3]
PROJECT = (ROOT / "pyproject.toml").read_text()


def said(monkeypatch, capsys, *words):
    """Exit status, output and errors of `pyro-rnp`."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["/there/bin/pyro-rnp", *words])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    return (code, *capsys.readouterr())


def test_each_command_has_a_module_and_a_script_and_the_reverse():
    modules = {file.stem for file in Path(inference.commands.__file__).parent.glob("*.py")}
    scripts = {file.stem for file in (ROOT / "scripts").glob("*.py")}
    assert modules - {"__init__", "__main__"} == scripts == set(COMMANDS)
    for name in COMMANDS:
        module = import_module(f"inference.commands.{name}")
        assert callable(module.main)
        assert len(Path(module.__file__).read_text().splitlines()) < 100, name
        script = (ROOT / "scripts" / f"{name}.py").read_text()
        assert len(script.splitlines()) <= 7
        assert f"from inference.commands.{name} import main" in script


def test_pyproject_installs_the_command():
    name, value = re.search(r'\[project\.scripts\]\n([\w-]+) = "(.*)"', PROJECT).groups()
    assert name == "pyro-rnp"
    assert EntryPoint(name, value, "console_scripts").load() is main


def test_the_wheel_holds_the_recipes_and_the_page_s_remarks():
    package = files("inference.reproduction")
    patterns = re.search(r'"inference\.reproduction" = \[(.*?)\]', PROJECT)[1]
    matched = {
        str(file.relative_to(str(package)))
        for pattern in re.findall(r'"(.*?)"', patterns)
        for file in Path(str(package)).glob(pattern)
    }
    held = {f"configs/{name}.yaml" for name in RECIPES} | {"differences.md"}
    assert matched == held | {"configs/pieces.txt", "configs/reproduction.txt"}


def test_without_a_command_it_lists_them_and_imports_none(monkeypatch, capsys):
    code, out, err = said(monkeypatch, capsys)
    assert (code, err) == (0, "")
    assert out == said(monkeypatch, capsys, "--help")[1]
    assert out.startswith("usage: pyro-rnp COMMAND [options]\n")
    for name, does in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(does)}$", out, re.M)
    code = (
        "import sys; sys.argv = ['pyro-rnp', '--help']\n"
        "from inference.commands import main; main()\n"
        "print(sorted({'torch', 'jsonargparse', 'inference.cli'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{out}[]\n"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_names_it(monkeypatch, capsys, name):
    code, out, _ = said(monkeypatch, capsys, name, "--help")
    assert code == 0
    assert out.startswith(f"usage: pyro-rnp {name} [options]\n")


def test_version(monkeypatch, capsys):
    for words in ([], ["sample"]):
        out = said(monkeypatch, capsys, *words, "--version")[1]
        assert out == f"{' '.join(['pyro-rnp', *words, __version__])}\n"


def test_a_command_that_is_not_there(monkeypatch, capsys):
    code, out, err = said(monkeypatch, capsys, "trian", "--epochs=1")
    assert (code, out) == (2, "")
    assert err == (
        "error: There is no command 'trian' (did you mean train?); pyro-rnp --help lists them.\n"
    )
    assert "did you mean" not in said(monkeypatch, capsys, "--epochs=1")[2]


def test_a_command_gets_its_words(monkeypatch, capsys, tmp_path):
    code, out, err = said(monkeypatch, capsys, "evaluate", str(tmp_path), "--num=3")
    assert (code, out) == (2, "")
    assert f"{tmp_path / 'config.json'} does not exist" in err


def test_as_a_module():
    command = [sys.executable, "-m", "inference.commands", "sample", "--num"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--config", "mnist-paper"], ["--config=mnist-paper.yaml"]])
def test_a_recipe_by_name(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    config = train_config([*words, "--seed=3"])
    assert (config.data, config.epochs, config.learning_rate) == ("mnist", 200, 4e-5)
    assert (config.seed, config.model) == (3, RNPConfig.preset("mnist"))
    Path(words[-1].removeprefix("--config=")).write_text("epochs: 5\n")
    assert train_config(words).epochs == 5, "a file of that name goes first"
    assert train_config(words).data == "digits"


def test_a_recipe_that_is_not_there(monkeypatch, capsys):
    code, _, err = said(monkeypatch, capsys, "train", "--config", "mnits")
    assert code == 2
    names = ", ".join(RECIPES)
    assert err == (
        f"error: --config: there is no file and no recipe mnits; recipes: {names}. Try --help.\n"
    )
