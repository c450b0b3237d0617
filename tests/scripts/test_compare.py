"""Variants trained one after the other."""

import json

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
