"""Variants trained one after the other."""

import json

from PIL import Image

from pyro_rnp import load
from tests.scripts.helpers import SMALL, call, refused


def test_compare(monkeypatch, capsys, tmp_path):
    variants = tmp_path / "variants.txt"
    variants.write_text("# three\n\n--prior studentt  # heavy tails\n--guide map\n")
    flags = " ".join(["--epochs=1", "--batch_size=600", *SMALL])
    args = (variants, "--flags", flags, "--out", tmp_path / "out", "--particles=2", "--num=3")
    call(monkeypatch, "compare.py", *args)
    first = capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [row["variant"] for row in rows] == ["", "--prior studentt", "--guide map"]
    assert load(tmp_path / "out" / "prior_studentt").config.prior == "studentt"
    assert rows[0]["iw_bound"] != rows[1]["iw_bound"]
    assert "iw_bound" not in rows[2]
    assert f"| `--prior studentt` | {rows[1]['test_elbo']:,.1f} ±" in first
    assert "All test images of digits; IW bound and the ELBO beside it: the first 3." in first
    other = (variants, "--flags", f"{flags} --seed=3", "--out", tmp_path / "out")
    assert "made with other flags" in refused(monkeypatch, capsys, "compare.py", *other)
    variants.write_text("--out elsewhere\n")
    assert "has no --out" in refused(monkeypatch, capsys, "compare.py", *args)
    variants.write_text("--prior vamp\n--prior mixture --guide map\n")
    assert "prior that is not learned" in refused(monkeypatch, capsys, "compare.py", *args)
    assert not (tmp_path / "out" / "prior_vamp").exists()
    variants.write_text("# three\n\n--prior studentt  # heavy tails\n--guide map\n")
    call(monkeypatch, "compare.py", *args)  # nothing is trained again
    assert capsys.readouterr().out.endswith(first[first.index("| variant") :])
    assert first.endswith((tmp_path / "out" / "table.md").read_text())
    curves = json.loads((tmp_path / "out" / "curves.json").read_text())
    assert [*curves] == ["", "--prior studentt", "--guide map"]
    assert all("val_sse" in curve[-1] for curve in curves.values())
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        assert picture.size[0] > 300


def test_variants_have_names_and_all_are_read_before_one_is_trained(monkeypatch, capsys, tmp_path):
    variants, out = tmp_path / "variants.txt", tmp_path / "out"
    flags = " ".join(["--epochs=1", "--batch_size=600", *SMALL])
    args = (variants, "--flags", flags, "--out", out, "--particles=0")
    for line, told in {
        "--priro flow": "no --priro (did you mean --prior?)",
        "base: --epochs=2": "'base' would be in the same folder",
        "heavy tails:--prior studentt": "heavy tails:--prior",
        "--data nothing": "nothing",
        "--classes 77": "Class 77 is not in every split",
    }.items():
        variants.write_text(f"base:\n{line}\n")
        said = refused(monkeypatch, capsys, "compare.py", *args)
        assert said.startswith(f"error: The variant {line!r} is wrong: ")
        assert told in said
    variants.write_text("# none\n")
    assert "There are no variants" in refused(monkeypatch, capsys, "compare.py", *args)
    assert not out.exists()
    variants.write_text("base:\nheavy tails: --prior studentt:df=3\n")
    call(monkeypatch, "compare.py", *args)
    rows = json.loads((out / "table.json").read_text())
    assert [row["variant"] for row in rows] == ["base", "heavy tails"]
    assert rows[1]["flags"].endswith("--prior studentt:df=3")
    assert load(out / "heavy_tails").config.prior == "studentt:df=3"
    assert "| heavy tails | " in (out / "table.md").read_text()
    variants.write_text("new:\nbase: --seed 4\n")
    said = refused(monkeypatch, capsys, "compare.py", *args)
    assert "made with other flags" in said
    assert not (out / "new").exists()
