"""Parses of image files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.data import load_data
from pyro_rnp import load
from pyro_rnp.affine import FIELDS
from tests.scripts.helpers import call, refused


def test_parse(monkeypatch, run_folder, digits, tmp_path):
    call(monkeypatch, "parse.py", run_folder, *digits, "--out", tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["0-a.json", "0-a.png", "1-a.json", "1-a.png"]
    found = json.loads((tmp_path / "out" / "1-a.json").read_text())
    assert found["file"] == str(digits[1])
    assert set(found["units"]) == set(FIELDS)
    part = found["tree"]["parts"][1]["parts"][0]
    assert (part["part"], list(part["action"])) == ("1/0", list(FIELDS))
    config = load(run_folder).config
    assert config.min_scale <= part["action"]["scale_x"] <= config.max_scale


def test_a_folder_stands_for_its_image_files(monkeypatch, capsys, run_folder, digits, tmp_path):
    folder = digits[0].parent
    (folder / "notes.txt").write_text("no image")
    (folder / "none").mkdir()
    call(monkeypatch, "parse.py", run_folder, folder, "--out", tmp_path / "out")
    found = [json.loads(file.read_text()) for file in sorted((tmp_path / "out").glob("*.json"))]
    assert [one["file"] for one in found] == [*map(str, digits)]
    said = refused(monkeypatch, capsys, "parse.py", run_folder, folder / "none")
    assert "holds no image files" in said


def test_paper_is_swapped_unless_that_is_forbidden(
    monkeypatch, capsys, run_folder, digits, tmp_path
):
    with Image.open(digits[0]) as opened:
        paper = 255 - np.array(opened)
    Image.fromarray(paper).save(tmp_path / "paper.png")
    trees = []
    for i, (file, *flags) in enumerate(
        [(digits[0],), (tmp_path / "paper.png",), (tmp_path / "paper.png", "--invert=false")]
    ):
        out = tmp_path / f"out{i}"
        call(monkeypatch, "parse.py", run_folder, file, *flags, "--out", out)
        trees.append(json.loads((out / f"{Path(file).stem}.json").read_text())["tree"]["program"])
        said = capsys.readouterr().err
        swapped = [line for line in said.splitlines() if "were swapped" in line]
        assert ["paper.png" in line for line in swapped] == [True] * (i == 1)
    assert trees[1] == pytest.approx(trees[0], abs=1e-4)
    assert trees[2] != pytest.approx(trees[0], abs=1e-4)


def test_without_files_those_of_a_data_set_or_of_the_run_are_parsed(
    monkeypatch, capsys, run_folder, digits, tmp_path
):
    call(monkeypatch, "parse.py", run_folder, "--num=3", "--out", tmp_path / "own")
    np.save(tmp_path / "two.npy", load_data("digits").test.images[:20].numpy())
    there = tmp_path / "named"
    call(monkeypatch, "parse.py", run_folder, "--data", tmp_path / "two.npy", "--out", there)
    names = [[file.name for file in sorted(o.glob("*.json"))] for o in (tmp_path / "own", there)]
    assert names[0] == ["0.json", "1.json", "2.json"]
    assert 0 < len(names[1]) < 8, "the few that the split by hash left"
    assert json.loads((tmp_path / "own" / "2.json").read_text())["file"] == "image 2 of the run"
    for flag in ("--invert=true", "--resize=true", "--binarize=true"):
        assert "how image files are read" in refused(
            monkeypatch, capsys, "parse.py", run_folder, flag, "--data=digits"
        )


def test_files_may_stand_after_flags(monkeypatch, run_folder, digits, tmp_path):
    call(monkeypatch, "parse.py", run_folder, "--out", tmp_path / "out", digits[0])
    assert (tmp_path / "out" / "a.json").exists()
