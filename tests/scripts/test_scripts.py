"""Every script is short and has help; a mistake ends in one sentence and overwrites nothing."""

import numpy as np
import pytest
from PIL import Image

from tests.scripts.helpers import SCRIPTS, SMALL, call, refused


def test_no_script_is_forgotten():
    covered = {
        *("train.py", "evaluate.py", "parse.py", "sample.py", "benchmark.py", "compare.py"),
        *("query.py", "edit.py", "oneshot.py", "dictionary.py", "figures.py", "transfer.py"),
        *("ship.py", "reproduce.py", "explore.py"),
    }
    assert {p.name for p in SCRIPTS.glob("*.py")} == covered
    for path in SCRIPTS.glob("*.py"):
        assert len(path.read_text().splitlines()) < 100, path


@pytest.mark.parametrize("name", sorted(p.name for p in SCRIPTS.glob("*.py")))
def test_help(monkeypatch, capsys, name):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, name, "--help")
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["parse.py", "query.py", "edit.py", "dictionary.py"])
def test_help_says_how_parts_are_numbered(monkeypatch, capsys, name):
    with pytest.raises(SystemExit):
        call(monkeypatch, name, "--help")
    assert "parts count from 0" in " ".join(capsys.readouterr().out.lower().split())


def test_mistakes(monkeypatch, capsys, run_folder, digits, tmp_path):
    def no(name, *args):
        return refused(monkeypatch, capsys, name, *args)

    kept = {p: p.read_bytes() for p in run_folder.iterdir() if p.is_file()}
    assert "exists already" in no("train.py", "--out", run_folder, *SMALL)
    assert "does not exist" in no("train.py", "--data=mnist", "--data-root", tmp_path / "no")
    assert "--minuts" in no("train.py", "--minuts=3")
    assert "data digits, not mnist" in no("train.py", "--resume", run_folder, "--data=mnist")
    assert "1 epochs already in" in no("train.py", "--resume", run_folder)
    assert "config.json does not exist" in no("evaluate.py", tmp_path)
    assert "does not exist" in no("parse.py", run_folder, tmp_path / "no.png")
    (tmp_path / "text.png").write_text("hello")
    assert "not an image" in no("parse.py", run_folder, digits[0], tmp_path / "text.png")
    assert "exists already" in no("parse.py", run_folder, digits[0], "--out", tmp_path)
    Image.fromarray(np.zeros((5, 9), np.uint8)).save(tmp_path / "small.png")
    assert "9 x 5 pixels" in no("parse.py", run_folder, tmp_path / "small.png")
    assert "num" in no("sample.py", run_folder, "--num=0", "--out", tmp_path / "s.png")
    assert "up to 100" in no("sample.py", run_folder, "--num=101", "--out", tmp_path / "s.png")
    assert "repeats" in no("benchmark.py", "--repeats=0")
    (tmp_path / "variants.txt").write_text("--prior flow\n--prior flwo\n")
    assert "did you mean flow?" in no("compare.py", tmp_path / "variants.txt")
    assert "exists already" in no("sample.py", run_folder, "--out", digits[0])
    assert all(p.read_bytes() == data for p, data in kept.items())
