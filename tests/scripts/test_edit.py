"""Edits of a parse."""

import json

import pytest
import torch
from PIL import Image

from inference.data.image_files import read_image
from pyro_rnp import RNPConfig, load
from tests.scripts.helpers import call, refused


def test_edit(monkeypatch, capsys, run_folder, digits, tmp_path):
    first, second = (str(d) for d in digits[:2])
    out = tmp_path / "out"
    call(monkeypatch, "edit.py", run_folder, "--images", first, "--move", "1:0.2,-0.1", "--remove",
         "0/1", "--put", f"0:{second}:1", "--react=true", "--out", out)  # fmt: skip
    with Image.open(out / "edit.png") as picture:
        assert picture.size[0] < picture.size[1], "two columns, five rows"
    found = json.loads((out / "edit.json").read_text())
    assert found["parts"] == "numbers count from 0: 0 is the first part, 0/2 its third sub-part"
    assert {"a/1", "a/0/1", "a/0", "z/0"} <= set(found["changed"])
    before, other = (load(run_folder).parse(_read(f)) for f in (first, second))
    parts = found["trees"][0]["parts"]
    x = before[1].action[0, 4].item() + 0.2
    assert parts[1]["action"]["x"] == pytest.approx(x, abs=1e-5)
    assert parts[0]["program"] == pytest.approx(other[1].program[0].tolist())
    assert abs(parts[0]["parts"][1]["action"]["x"]) > 1.25, "removed after it was put there"

    for i, flag in enumerate(("--turn", "--rotate")):
        capsys.readouterr()
        call(monkeypatch, "edit.py", run_folder, "--images", first, flag, "1:0.3", "--out",
             tmp_path / f"turn{i}")  # fmt: skip
        note = capsys.readouterr().err
        assert ("turn is called rotate now" in note) == (flag == "--turn")
    texts = [(tmp_path / f"turn{i}" / "edit.json").read_text() for i in range(2)]
    assert texts[0] == texts[1], "the former name of a flag still works"

    def no(*args):
        return refused(
            monkeypatch, capsys, "edit.py", run_folder, "--images", first, *args, "--out",
            tmp_path / "x",
        )  # fmt: skip

    assert "--move takes PART:X,Y" in no("--move", "1:0.2")
    assert "no part 7" in no("--remove", "7")
    assert "written as 1, a sub-part as 1/3, not 'a'" in no("--rotate", "a:1")
    assert "Nothing is changed; give one of --move, --rotate" in no()
    assert "does not exist" in no("--put", "0:no.png:1")
    assert "Nothing is changed" in refused(monkeypatch, capsys, "edit.py", run_folder)
    own = tmp_path / "own"
    call(monkeypatch, "edit.py", run_folder, "--remove", "1", "--num=3", "--out", own)
    assert len(json.loads((own / "edit.json").read_text())["trees"]) == 3, "of the run's own"
    assert not (tmp_path / "x").exists()


def _read(file):
    return read_image(file, RNPConfig()).unsqueeze(0)


def test_each_image_stands_before_and_after_side_by_side(monkeypatch, run_folder, tmp_path):
    drawn = []
    monkeypatch.setattr("inference.commands.edit.parse_figure", lambda *given: drawn.append(given))
    call(monkeypatch, "edit.py", run_folder, "--remove", "1", "--num=2", "--out", tmp_path / "out")
    tree, _, images, titles = drawn[0]
    assert titles == ["before", "after", "before", "after"]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    kept = load(run_folder).parse(images[::2]).canvas
    torch.testing.assert_close(tree.canvas[::2], kept)
