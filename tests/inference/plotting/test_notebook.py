"""Importing leaves matplotlib alone, and a notebook shows a figure once, with pyplot or without."""

import os
import subprocess
import sys

import pytest

from tests.test_structure import MODULES, ROOT

DRAW = """
import torch
from inference.plotting import grid_figure
grid_figure([("row", torch.rand(2, 1, 8, 8))])"""


@pytest.mark.filterwarnings("default")  # Jupyter has warnings of its own
def test_a_notebook_shows_one_picture(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    stages = ["", "import matplotlib.pyplot", "%matplotlib inline"]
    code = [line for stage in stages for line in (stage, DRAW, f"{DRAW};None")]
    cells = [nbformat.v4.new_code_cell(line) for line in code]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [[sorted(out.data) for out in cell.outputs if "data" in out] for cell in cells]
    assert shown == 3 * [[], [["image/png", "text/plain"]], []]


FIT = """
import torch
from inference import fit, query
from tests.conftest import tiny
images = torch.rand(40, 1, 8, 8)
run = fit(images, tiny(), out="run", epochs=2, batch_size=8)"""


@pytest.mark.filterwarnings("default")
def test_a_notebook_shows_a_training_and_the_pictures_of_its_results(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.chdir(tmp_path)
    pictures = {
        "run.plot()": "image/png",
        "run": "text/html",
        "tree = run.load().parse(images[:3]); tree.plot(images[:3])": "image/png",
        "tree": "text/html",
        "posterior = query(run.load(), images[:2], num_samples=4, steps=2); posterior.plot()": (
            "image/png"
        ),
        "posterior": "text/html",
    }
    cells = [nbformat.v4.new_code_cell(line) for line in (FIT, *pictures)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    said = "".join(out.get("text", "") for out in cells[0].outputs)
    assert "Without a model, val_sse is" in said
    assert "Epoch 1: 100%" in said, "the progress bar"
    for cell, (line, kind) in zip(cells[1:], pictures.items(), strict=True):
        shown = [out.data for out in cell.outputs if "data" in out]
        assert len(shown) == 1, line
        assert kind in shown[0], line
        assert kind == "image/png" or "<img" in shown[0]["text/html"], line


def test_importing_every_module_leaves_matplotlib_alone():
    code = f"""
import importlib, sys, traceback
import matplotlib
before = {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}}
importers = []
class Watch:
    def find_spec(self, name, path, target=None):
        if name == "matplotlib.pyplot":
            files = [f.filename for f in traceback.extract_stack() if "importlib" not in f.filename]
            importers.append(files[-2])
sys.meta_path.insert(0, Watch())
for name in {sorted(MODULES)!r}:
    importlib.import_module(name)
ours = [file for file in importers if file.startswith({str(ROOT)!r}) and "/.venv/" not in file]
assert not ours, ours
assert matplotlib.get_backend(auto_select=False) is None
after = {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}}
assert before == after
"""
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
