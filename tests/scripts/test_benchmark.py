"""Timings by the script."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import inference.commands.benchmark
import inference.evaluation.benchmark
from inference.evaluation.benchmark import Subject, sweeps
from tests.conftest import tiny
from tests.scripts.helpers import call, refused


def test_benchmark(monkeypatch, capsys, tmp_path):
    whats = [Subject("literal port", tiny(), "literal"), Subject("fast", tiny())]
    whats.append(Subject("flat VAE of mnist", tiny(program="flat")))
    monkeypatch.setattr(inference.commands.benchmark, "subjects", lambda *_: whats)
    small = ["--repeats=1", "--batch_sizes=[2]", "--presets=[fast]", "--memory=false"]
    call(monkeypatch, "benchmark.py", *small, "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert {"processor", "capability", "cores", "threads", "cuda"} == found["machine"].keys()
    assert found["torch"] == torch.__version__
    rows = found["rows"]
    assert {(row["what"], row["task"]) for row in rows} >= {
        ("literal port", "train"), ("fast", "sample"), ("flat VAE of mnist", "parse")
    }  # fmt: skip
    assert all(row["images_per_second"] > 0 for row in rows)
    assert "Large matrix product" in capsys.readouterr().out


def row(what="fast", ratio=3.0, **changes):
    values = {
        "what": what, "task": "train", "batch_size": 2, "step_ms": 20.0, "images_per_second": 100.0,
        "ratio": ratio, "to_flat": None, "to_deterministic": None, "gflop_per_image": 0.5,
        "product": 100.0, "roofline": 0.5, "peak_gib": None,
    }  # fmt: skip
    return {**values, **changes}


def test_earlier_ratios_stand_beside(monkeypatch, capsys, tmp_path):
    file, rows = tmp_path / "old.json", [row(), row("flat VAE of mnist"), row("encoder alone")]
    old = [
        {"what": what, "task": "train", "batch_size": size, "ratio": ratio}
        for what, size, ratio in (("fast", 2, 1.25), ("flat VAE", 2, 7.5), ("encoder alone", 64, 9))
    ]
    file.write_text(json.dumps({"rows": old}))
    monkeypatch.setattr(inference.commands.benchmark, "compare", lambda *_: rows)
    call(monkeypatch, "benchmark.py", "--before", file, "--out", tmp_path / "out")
    new = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert [r["before"] for r in new] == [1.25, 7.5, None]
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[4:6] == ["ratio", "before"]
    assert first.split()[5:7] == ["3.00", "1.25"]


@pytest.mark.parametrize(
    "text", [None, "", "[1]", "{}", '{"rows": 3}', '{"rows": [{}]}', "[" * 9999]
)
def test_a_bad_file_of_earlier_ratios_is_refused_before_anything_is_timed(
    monkeypatch, capsys, tmp_path, text
):
    monkeypatch.setattr(inference.commands.benchmark, "compare", lambda *_: pytest.fail("timed"))
    file, out = tmp_path / "old.json", tmp_path / "out"
    if text is not None:
        file.write_text(text)
    said = refused(monkeypatch, capsys, "benchmark.py", "--before", file, "--out", out)
    assert str(file) in said
    assert not out.exists()
    said = refused(monkeypatch, capsys, "benchmark.py", "--before", file, "--scaling=fast")
    assert "leave it out with --scaling" in said


def test_an_earlier_benchmark_of_growth_holds_no_ratios(monkeypatch, capsys, tmp_path):
    file = tmp_path / "growth.json"
    file.write_text(json.dumps({"rows": [{"sweep": "batch size", "value": 16}]}))
    assert "holds no ratios" in refused(monkeypatch, capsys, "benchmark.py", "--before", file)


def test_benchmark_of_growth(monkeypatch, capsys, tmp_path):
    few = {"program size": sweeps("fast")["program size"][:2]}
    monkeypatch.setattr(inference.evaluation.benchmark, "sweeps", lambda _: few)
    call(monkeypatch, "benchmark.py", "--scaling=fast", "--repeats=1", "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert [row["value"] for row in rows] == [16, 32]
    assert all(row["nodes"] == 20 and row["ms_per_image"] > 0 for row in rows)
    assert np.asarray(Image.open(tmp_path / "out" / "scaling.png")).std() > 0
    assert "program size" in capsys.readouterr().out
