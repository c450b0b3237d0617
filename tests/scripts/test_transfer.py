"""Transfer to images that were left out."""

import json
import shlex
import shutil

import pytest
import torch

import inference.reproduction.transfer
from inference.cli import train_config
from inference.config import TrainConfig
from inference.data import DATASETS, Splits, load_data
from inference.evaluation.metrics import evaluate
from inference.reproduction.transfer import by_program, cases
from inference.run import Run
from pyro_rnp import load
from tests.scripts.helpers import SMALL, call, refused


def test_transfer(monkeypatch, capsys, tmp_path):
    short = " ".join(["--epochs=1", "--batch_size=300", *SMALL])
    args = ("--data=digits", "--unseen=[7]", '--across=["digits"]', f"--flags={short}",
            "--tune_flags=--epochs=1 --batch_size=50", "--out", tmp_path / "out")  # fmt: skip
    call(monkeypatch, "transfer.py", *args)
    found = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert [*shlex.split(found["flags"]), "--out", tmp_path / "out"] == list(args)
    names = [f"{p}-{m}" for p in ("recursive", "flat") for m in ("without", "tuned", "all")]
    sevens, test = load_data("digits").of([7]).test, load_data("digits").test
    (case,) = found["cases"]
    assert (case["data"], case["unseen"], case["images"]) == ("digits", "7", len(sevens))
    assert [row["model"] for row in case["rows"]] == ["blank", "mean image", *names]
    assert all(row[k] > 0 for row in case["rows"] for k in ("unseen", "seen", "digits_error"))
    ink = sevens.images.square().sum((1, 2, 3)).mean().item()
    assert case["rows"][0]["unseen"] == pytest.approx(ink, rel=1e-5)
    others = load_data("digits").of([0, 1, 2, 3, 4, 5, 6, 8, 9]).train.images.mean(0)
    mean = (sevens.images - others).square().sum((1, 2, 3)).mean().item()
    assert case["rows"][1]["unseen"] == pytest.approx(mean, rel=1e-5)
    model = load(tmp_path / "out" / "flat-all")
    assert model.config.program == "flat"
    of_all, of_ones = evaluate(model, test)["sse"], evaluate(model, sevens)["sse"]
    assert case["rows"][-1]["digits"] == pytest.approx(of_all, rel=1e-5)
    assert case["rows"][-1]["unseen"] == pytest.approx(of_ones, rel=1e-5)
    notes = json.loads((tmp_path / "out" / "recursive-without-7" / "config.json").read_text())
    assert notes["training"]["classes"] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    for picture in ("7.png", "7-parts.png"):
        assert (tmp_path / "out" / picture).exists()
    wrong = ("--data=digits", "--unseen=[77]", "--out", tmp_path / "x")
    assert "classes 0 to 9, not 77" in refused(monkeypatch, capsys, "transfer.py", *wrong)
    assert not (tmp_path / "x").exists()
    for none in ((), ("--unseen=[]",)):
        said = refused(monkeypatch, capsys, "transfer.py", "--data=digits", *none)
        assert "--unseen or --new" in said
    assert "--all goes with --new" in refused(
        monkeypatch, capsys, "transfer.py", "--unseen=[7]", "--all=strokes"
    )


def test_each_class_is_left_out_in_turn():
    found = cases(TrainConfig(binarize=True), [7, 1], None)
    assert [case.name for case in found] == ["7", "1"]
    for case in found:
        label, config = int(case.name), train_config(case.left)
        assert config.classes == [c for c in range(10) if c != label]
        assert train_config(case.tune).classes == [label]
        assert case.unseen.labels.eq(label).all()
        assert label not in case.seen.labels
        assert len(case.seen) > 100
        assert set(case.unseen.images.unique().tolist()) == {0, 1}
        assert train_config(case.tune).binarize


def test_transfer_to_another_set(monkeypatch, run_folder, tmp_path):
    asked = {}

    def trained(folder, flags):
        asked[folder.name] = train_config(flags)
        shutil.copytree(run_folder, folder)
        found = {"seconds": 30.0 + 60 * len(asked), "images_seen": len(asked)}
        (folder / "metrics.json").write_text(json.dumps(found))

    monkeypatch.setattr(inference.reproduction.transfer, "trained", trained)
    monkeypatch.setattr(
        inference.reproduction.transfer, "evaluate", lambda _, data: {"sse": float(len(data))}
    )
    few = load_data("digits").test[:7]
    train = load_data("digits").train
    many = Splits(train + train, few, few)
    monkeypatch.setitem(DATASETS.pieces, "strokes", lambda root: many)
    out = tmp_path / "out"
    call(monkeypatch, "transfer.py", "--new=strokes", "--all=strokes", "--flags=--epochs=30",
         "--across=['strokes']", "--tune_flags=--epochs=2", "--out", out)  # fmt: skip
    assert {n: (c.data, c.epochs, c.minutes, c.learn) for n, c in asked.items()} == {
        "recursive-without-strokes": ("digits", 30, None, "all"),
        "recursive-tuned-strokes": ("strokes", 2, None, "guide"),
        "recursive-all": ("strokes", 15, None, "all"),  # of twice as many images
        "flat-without-strokes": ("digits", None, 1.5, "all"),
        "flat-tuned-strokes": ("strokes", None, 2.5, "guide"),
        "flat-all": ("strokes", None, 3.5, "all"),
    }
    assert asked["flat-tuned-strokes"].start == str(out / "flat-without-strokes")
    rows = json.loads((out / "transfer.json").read_text())["cases"][0]["rows"]
    assert [row["unseen"] for row in rows[2:]] == [7] * 6
    assert [row.get("images_seen") for row in rows] == [None, None, 1, 2, 3, 4, 5, 6]
    assert {row["seen"] for row in rows[2:]} == {180}


def test_transfer_of_what_has_learned_already(monkeypatch, capsys, run_folder, tmp_path):
    new = load_data("digits").of([3, 5])
    monkeypatch.setitem(DATASETS.pieces, "strokes", lambda root: new)
    out = tmp_path / "out"
    args = ("--data=digits", "--new=strokes", "--tune_flags=--epochs=1 --batch_size=50")
    call(monkeypatch, "transfer.py", *args, f"--learned=['{run_folder}']", "--out", out)
    found = json.loads((out / "transfer.json").read_text())
    assert f'--learned=["{run_folder.name}"]' in shlex.split(found["flags"])
    assert found["made"]["weights"] == {run_folder.name: Run(run_folder).fingerprint}
    *_, before, tuned = found["cases"][0]["rows"]
    assert [row["model"] for row in (before, tuned)] == ["recursive-without", "recursive-tuned"]
    assert before["unseen"] == pytest.approx(evaluate(load(run_folder), new.test)["sse"], rel=1e-5)
    after = load(out / "recursive-tuned-strokes")
    assert tuned["unseen"] == pytest.approx(evaluate(after, new.test)["sse"], rel=1e-5)
    assert {path.name for path in out.iterdir()} == {
        "recursive-tuned-strokes", "strokes.png", "strokes-parts.png", "transfer.json"
    }  # fmt: skip
    for name, value in load(run_folder).model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], value), "the guide alone is tuned"
    one, learned = str(run_folder), ("transfer.py", *args, "--out", tmp_path / "x", "--learned")
    said = refused(monkeypatch, capsys, *learned, json.dumps([one, one]))
    assert "are both of --program recursive" in said
    said = refused(monkeypatch, capsys, *learned, f"['{one}']", "--data=strokes")
    assert "takes runs that learned from strokes alone" in said
    with pytest.raises(ValueError, match="binarised images, or none"):
        by_program([one, _as(run_folder, tmp_path / "flat", "flat", binarize=True)], "digits")
    for wrong in ("--flags=--epochs=1", "--all=digits"):
        said = refused(monkeypatch, capsys, *learned, f"['{one}']", wrong)
        assert "--learned goes with --new, and without" in said


@pytest.mark.parametrize("binarize", [True, False])
def test_images_are_binarised_as_those_that_were_learned_from(
    monkeypatch, run_folder, tmp_path, binarize
):
    new = load_data("digits").of([3, 5])
    monkeypatch.setitem(DATASETS.pieces, "strokes", lambda root: new)
    run, out = _as(run_folder, tmp_path / "learned", "recursive", binarize=binarize), tmp_path / "o"
    call(monkeypatch, "transfer.py", "--data=digits", "--new=strokes", f"--learned=['{run}']",
         "--tune_flags=--epochs=1 --batch_size=50", "--out", out)  # fmt: skip
    assert Run(out / "recursive-tuned-strokes").config.binarize == binarize
    ink = load_data("strokes", binarize=binarize).test.images.square()
    assert (ink.unique().tolist() == [0, 1]) == binarize
    blank = json.loads((out / "transfer.json").read_text())["cases"][0]["rows"][0]
    assert blank["unseen"] == pytest.approx(float(ink.sum((1, 2, 3)).mean()), rel=1e-5)


def _as(run, folder, program, binarize):
    """A run's folder that says it learned so."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["training"]["binarize"] = binarize
    config["model"]["program"] = program
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
