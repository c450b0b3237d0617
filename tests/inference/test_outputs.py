"""Commands write beside what is there, never over it."""

import json

import pytest

from inference.outputs import new_file, new_folder, write_json


def test_new_things(tmp_path):
    assert new_folder(tmp_path / "a" / "b").is_dir()
    path = new_file(tmp_path / "c" / "d.png")
    assert path.parent.is_dir()
    assert not path.exists()


def test_what_exists_is_refused(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError, match="a exists already; name another with --out, or x"):
        new_folder(tmp_path / "a", hint=", or x")
    with pytest.raises(FileExistsError, match="a exists already"):
        new_file(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2.5]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2.5]}
