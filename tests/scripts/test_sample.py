"""Samples of the prior."""

import numpy as np
from PIL import Image

from inference.outputs import PICTURES
from pyro_rnp.plotting.figure import FORMATS
from tests.scripts.helpers import call, refused


def test_sample(monkeypatch, run_folder, tmp_path):
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        call(
            monkeypatch,
            "sample.py",
            run_folder,
            "--num=3",
            f"--seed={seed}",
            "--out",
            tmp_path / name,
        )
    a, b, c = (np.asarray(Image.open(tmp_path / n)) for n in ("a.png", "b.png", "c.png"))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_picture_of_an_unknown_kind_is_refused(monkeypatch, capsys, run_folder, tmp_path):
    out = tmp_path / "new" / "a.jpg"
    said = refused(monkeypatch, capsys, "sample.py", run_folder, "--out", out)
    assert "--out must end in .png, .svg, .pdf, got" in said
    assert not out.parent.exists()


def test_pictures_of_every_kind(monkeypatch, run_folder, tmp_path):
    assert [*FORMATS] == [*PICTURES]
    for suffix, start in ((".svg", b"<?xml"), (".PDF", b"%PDF"), (".png", b"\x89PNG")):
        out = tmp_path / f"a{suffix}"
        call(monkeypatch, "sample.py", run_folder, "--num=2", "--out", out)
        assert out.read_bytes().startswith(start)


def test_folders_of_pictures_have_them_in_the_format_that_is_given(
    monkeypatch, capsys, run_folder, digits, tmp_path
):
    commands = {
        "parse.py": (["a.svg", "a.json"], [digits[0]]),
        "edit.py": (["edit.svg", "edit.json"], ["--images", digits[0], "--remove", "1"]),
        "dictionary.py": (["dictionary.svg", "dictionary.json"], ["--num=5", "--count=2"]),
        "query.py": (["query.svg", "query.json", "samples.npz"],
                     ["--images", digits[0], "--method=guide", "--num_samples=3"]),
    }  # fmt: skip
    for script, (wanted, args) in commands.items():
        out = tmp_path / script.partition(".")[0]
        call(monkeypatch, script, run_folder, *args, "--format=svg", "--out", out)
        assert {file.name for file in out.iterdir()} == {*wanted}
        assert (out / wanted[0]).read_bytes().startswith(b"<?xml")
        assert str(out / wanted[0]) in capsys.readouterr().out
        said = refused(monkeypatch, capsys, script, run_folder, *args, "--out", tmp_path / "x.pdf")
        assert "--out names a folder to make, not a picture; got" in said
        assert not (tmp_path / "x.pdf").exists()
