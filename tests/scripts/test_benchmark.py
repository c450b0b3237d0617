"""Timings by the script."""

import json

import numpy as np
from PIL import Image

import inference.evaluation.benchmark
from inference.evaluation.benchmark import sweeps
from tests.scripts.helpers import call


def test_benchmark(monkeypatch, capsys, tmp_path):
    small = ["--repeats=1", "--batch_sizes=[2]", "--presets=[fast]", "--memory=false"]
    call(monkeypatch, "benchmark.py", *small, "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert {(row["what"], row["task"]) for row in rows} >= {
        ("literal port", "train"), ("fast", "sample"), ("flat VAE", "parse")
    }  # fmt: skip
    assert all(row["images_per_second"] > 0 for row in rows)
    assert "Large matrix product" in capsys.readouterr().out


def test_benchmark_of_growth(monkeypatch, capsys, tmp_path):
    few = {"program size": sweeps("fast")["program size"][:2]}
    monkeypatch.setattr(inference.evaluation.benchmark, "sweeps", lambda _: few)
    call(monkeypatch, "benchmark.py", "--scaling=fast", "--repeats=1", "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert [row["value"] for row in rows] == [16, 32]
    assert all(row["nodes"] == 20 and row["ms_per_image"] > 0 for row in rows)
    assert np.asarray(Image.open(tmp_path / "out" / "scaling.png")).std() > 0
    assert "program size" in capsys.readouterr().out
