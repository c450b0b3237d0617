"""The dictionary of parts."""

import json

import pytest
from PIL import Image

from tests.scripts.helpers import call, refused


def test_dictionary(monkeypatch, capsys, run_folder, tmp_path):
    out = tmp_path / "out"
    call(monkeypatch, "dictionary.py", run_folder, "--data=digits", "--num=20", "--count=3",
         "--nearest=2:1", "--out", out)  # fmt: skip
    found = json.loads((out / "dictionary.json").read_text())
    assert found["parts"] == 20 * 2
    assert sum(found["usage"]) == pytest.approx(1)
    assert len(found["nearest"]) == 8
    with Image.open(out / "dictionary.png") as picture:
        assert picture.size[0] > picture.size[1], "three rows of eleven"
    wrong = refused(
        monkeypatch, capsys, "dictionary.py", run_folder, "--data=digits", "--num=3", "--count=2",
        "--nearest=9:1/0", "--depth=2", "--out", tmp_path / "x",
    )  # fmt: skip
    assert "no part 1/0 of image 9" in wrong
    assert "--nearest takes IMAGE:PART" in refused(
        monkeypatch, capsys, "dictionary.py", run_folder, "--data=digits", "--num=3", "--count=2",
        "--nearest=1/0", "--out", tmp_path / "x",
    )  # fmt: skip
    assert not (tmp_path / "x").exists()
