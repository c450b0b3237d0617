"""The paper's figures of one model."""

import json

import pytest

from inference.data import load_data
from inference.run import Run
from pyro_rnp import load
from pyro_rnp.checkpoint import shipped
from tests.scripts.helpers import SMALL, call, refused


@pytest.mark.parametrize(("program", "clusters"), [("recursive", 3), ("flat", 1)])
def test_figures(monkeypatch, run_folder, quick_classifier, tmp_path, program, clusters):
    folder = run_folder
    if program == "flat":
        folder = tmp_path / "flat"
        call(monkeypatch, "train.py", "--program=flat:units=8", "--epochs=1", "--batch_size=600",
             *SMALL, "--out", folder)  # fmt: skip
    out = tmp_path / "out"
    call(monkeypatch, "figures.py", folder, "--num=60", f"--clusters={clusters}",
         "--across=['digits']", "--out", out)  # fmt: skip
    found = json.loads((out / "figures.json").read_text())
    assert found.keys() == {"3", "4", "5", "6", "made"}
    assert "num" not in found["made"], "each figure has its own"
    assert (found["made"]["data"], found["made"]["split"]) == ("digits", "test")
    test = len(load_data("digits").test)
    assert [found[f]["images"] for f in "345"] == [test, 60, 60]
    assert found["6"]["digits_images"] == test
    assert 0 <= found["4"]["class_probe"] <= 1
    assert found["5"]["frechet"] > found["5"]["frechet_floor"] > 0, "it has learned nothing"
    assert found["6"]["digits"] == pytest.approx(Run(folder).metrics["test_sse"], rel=1e-5)
    names = {"figure-3.png", "figure-4a.png", "figure-5.png", "figure-6-digits.png"}
    names.add("figures.json")
    levels = (2, 1) if program == "recursive" else (0,)
    names |= {f"figure-4{x}-z{k}.png" for x in "bc"[: clusters - 1] or "b" for k in levels}
    assert {p.name for p in out.iterdir()} == names
    if program == "recursive":
        assert len(found["3"]["explained_by_step"]) == 2
        assert "level_probe" in found["4"]


def test_a_classifier_that_cannot_be_kept_is_said_before_anything_is_made(
    monkeypatch, capsys, run_folder, tmp_path
):
    (tmp_path / "other").write_text("no classifier")
    for name, said in {"no/file": "make it to keep", "other": "delete it to learn anew"}.items():
        wrong = (run_folder, "--classifier", tmp_path / name, "--out", tmp_path / "out")
        assert said in refused(monkeypatch, capsys, "figures.py", *wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", shipped())
def test_figures_of_what_comes_along(monkeypatch, quick_classifier, tmp_path, name):
    out = tmp_path / "out"
    call(monkeypatch, "figures.py", name, "--data=digits", "--num=40", "--clusters=2", "--out", out)
    found = json.loads((out / "figures.json").read_text())
    steps = found["3"]["explained_by_step"]
    assert len(steps) == load(name).config.steps[0]
    assert 0.5 < sum(steps) < 1, "it draws digits"
    assert found["4"]["level_probe"] > 0.9
    assert (out / "figure-4c-z1.png").exists()
