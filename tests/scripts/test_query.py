"""Queries by the script."""

import json

import numpy as np
import pytest
from PIL import Image

from pyro_rnp.affine import FIELDS
from tests.scripts.helpers import call, refused


@pytest.mark.usefixtures("brief")
def test_query(monkeypatch, capsys, run_folder, tmp_path):
    fast = ("--num_samples=6", "--steps=2")
    out = tmp_path / "half"
    call(monkeypatch, "query.py", run_folder, "--data=digits", "--num=3", "--hide=right", *fast,
         "--out", out)  # fmt: skip
    assert str(out / "query.png") in capsys.readouterr().out
    with Image.open(out / "query.png") as picture:
        assert min(picture.size) > 300
    found = json.loads((out / "query.json").read_text())
    assert len(found["images"]) == 3
    assert len(found["images"][0]["sites"]["a/0"]["mean"]) == len(FIELDS)
    with np.load(out / "samples.npz") as kept:
        assert kept["a/0"].shape == (6, 3, 6)
        mean = (kept["a/0"] * kept["weights"][..., None]).sum(0)
        np.testing.assert_allclose(
            mean[0], found["images"][0]["sites"]["a/0"]["mean"], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(kept["parts_1"].sum(1), 1, rtol=1e-4)
        assert kept["parts_2"].shape[0] == 3
    given = tmp_path / "given.json"
    action = found["images"][0]["sites"]["a/0"]["mean"]
    given.write_text(json.dumps({"a/0": action}))
    call(monkeypatch, "query.py", run_folder, "--given", given, "--answers=2", *fast,
         "--out", tmp_path / "part")  # fmt: skip
    assert "within a tolerance" in capsys.readouterr().out


def test_of_many_samples_few_are_written_by_weight(monkeypatch, run_folder, tmp_path):
    ask = ("--data=digits", "--num=2", "--method=importance", "--num_samples=300", "--out")
    call(monkeypatch, "query.py", run_folder, *ask, tmp_path / "few")
    call(monkeypatch, "query.py", run_folder, "--keep=300", *ask, tmp_path / "all")
    found = [(tmp_path / name / "query.json").read_text() for name in ("few", "all")]
    assert found[0] == found[1]
    with (
        np.load(tmp_path / "few" / "samples.npz") as few,
        np.load(tmp_path / "all" / "samples.npz") as every,
    ):
        assert few.keys() == every.keys()
        assert few["canvas"].shape == (200, *every["canvas"].shape[1:])
        np.testing.assert_allclose(few["weights"], 1 / 200)
        np.testing.assert_array_equal(few["parts_1"], every["parts_1"])
        for image in range(2):
            weights = every["weights"][:, image]
            same = (few["z"][:, None, image] == every["z"][None, :, image]).all(-1)
            assert same.any(1).all(), "each is one of the samples"
            often = same.mean(0)
            assert abs(often - weights).max() < 5 * (weights.max() / 200) ** 0.5


def test_query_says_what_is_wrong(monkeypatch, capsys, run_folder, tmp_path):
    def wrong(*args):
        return refused(monkeypatch, capsys, "query.py", run_folder, *args, "--out", tmp_path / "x")

    assert "not both" in wrong("--images=a.png", "--data=digits")
    assert "not both" in wrong("--mask=a.png", "--hide=left", "--data=digits")
    assert "no.json" in wrong("--given", tmp_path / "no.json")
    for text, sentence in (
        ('{"a/9": [0]}', "no site 'a/9'"),
        ("[1]", "must hold sites"),
        ('{"a/0": "x"}', "a/0 must be a list of numbers"),
        ("{", "is not JSON"),
    ):
        (tmp_path / "given.json").write_text(text)
        assert sentence in wrong("--given", tmp_path / "given.json")
    assert "exists already" in refused(
        monkeypatch, capsys, "query.py", run_folder, "--out", tmp_path
    )
    assert not (tmp_path / "x").exists()


def test_a_mask_is_read_as_it_is(monkeypatch, capsys, run_folder, digits, tmp_path):
    seen = np.full((56, 56), 255, np.uint8)
    seen[16:40, 16:40] = 0
    Image.fromarray(seen).save(tmp_path / "mask.png")

    def stop(rnp, images, *, mask, **_):
        assert mask.float().mean() == 1 - 12**2 / 28**2, "white where it is seen, at the border"
        raise ValueError("That will do.")

    monkeypatch.setattr("inference.commands.query.query", stop)
    said = refused(
        monkeypatch, capsys, "query.py", run_folder, "--images", digits[0], "--mask",
        tmp_path / "mask.png", "--resize=true", "--out", tmp_path / "x",
    )  # fmt: skip
    assert "That will do" in said
    assert "swapped" not in said


def test_images_to_hide_are_by_default_those_of_the_run(monkeypatch, run_folder, tmp_path):
    outs = [tmp_path / name for name in ("own", "named")]
    for out, data in zip(outs, ([], ["--data=digits"]), strict=True):
        arguments = ["--hide=left", "--num=3", "--method=guide", "--num_samples=4", *data]
        call(monkeypatch, "query.py", run_folder, *arguments, "--out", out)
    own, named = (json.loads((out / "query.json").read_text()) for out in outs)
    assert own == named
    assert len(own["images"]) == 3
