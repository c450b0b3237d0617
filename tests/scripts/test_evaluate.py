"""Scores of a trained model, as its script prints them."""

import csv
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import inference.evaluation.metrics
from inference.data import load_data
from inference.evaluation.metrics import evaluate
from inference.posterior import half_mask, query
from inference.run import Run
from pyro_rnp import RNP, load, save
from pyro_rnp.checkpoint import WEIGHTS, load_weights, save_masked_guide
from tests.conftest import tiny
from tests.scripts.helpers import call, refused


def test_evaluate(monkeypatch, capsys, run_folder, tmp_path):
    call(monkeypatch, "evaluate.py", run_folder)
    scores = json.loads(capsys.readouterr().out)
    metrics = Run(run_folder).metrics
    of = {"data": "digits", "split": "test", "num": 360}
    assert {name: scores.pop(name) for name in of} == of
    assert scores == pytest.approx({k: v for k, v in metrics.items() if k.startswith("test_")})
    call(monkeypatch, "evaluate.py", run_folder, "--split", "validation")
    validation = json.loads(capsys.readouterr().out)
    assert "validation_elbo" in validation
    assert (validation["split"], validation["num"]) == ("validation", 180)
    kept = tmp_path / "kept"
    few_of = (run_folder, "--particles=3", "--num=5", "--keep", kept)
    call(monkeypatch, "evaluate.py", *few_of)
    few = json.loads(capsys.readouterr().out)
    (file,) = kept.iterdir()
    file.write_text(json.dumps([1.0, 2.0, 3.0, 4.0, 5.0]))
    call(monkeypatch, "evaluate.py", *few_of)
    assert json.loads(capsys.readouterr().out)["test_iw_bound"] == 3.0, "it went on from there"
    assert few["test_iw_bound_error"] > 0
    assert few["test_elbo"] != scores["test_elbo"]
    for steps in (0, 5):
        call(monkeypatch, "evaluate.py", run_folder, "--num=50", f"--guide=refined:steps={steps}")
    plain, refined = (json.loads(f"{{{text}") for text in capsys.readouterr().out.split("{")[1:])
    assert plain["test_elbo"] == pytest.approx(
        evaluate(load(run_folder), load_data("digits").test[:50])["elbo"]
    )
    assert refined["test_elbo"] > plain["test_elbo"]
    wrong = refused(monkeypatch, capsys, "evaluate.py", run_folder, "--guide=full")
    assert "another architecture" in wrong


def test_the_scores_of_each_image_have_the_means_that_are_printed(
    monkeypatch, capsys, run_folder, tmp_path
):
    labels = load_data("digits").test.labels[:5].tolist()
    for name in ("each.csv", "tables/each.npz"):
        how = ("--num=5", "--particles=3", "--per_image", tmp_path / name)
        call(monkeypatch, "evaluate.py", run_folder, *how)
    texts = capsys.readouterr().out.split("{")[1:]
    printed, again = (json.loads(f"{{{text}") for text in texts)
    assert printed == again
    with (tmp_path / "each.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(tmp_path / "tables" / "each.npz") as file:
        arrays = dict(file)
    assert [*rows[0]] == [*arrays]
    scored = ["sse", "sse_mean", "kl", "elbo", "iw_bound"]
    assert [*rows[0]] == ["index", "label", *scored]
    assert [int(row["index"]) for row in rows] == [0, 1, 2, 3, 4]
    assert [int(row["label"]) for row in rows] == arrays["label"].tolist() == labels
    for name in scored:
        values = np.array([float(row[name]) for row in rows])
        assert values.tolist() == arrays[name].tolist()
        assert values.mean() == pytest.approx(printed[f"test_{name}"], rel=1e-12)
    monkeypatch.delattr(inference.evaluation.metrics, "_scores")  # refused before it is scored
    again = (run_folder, "--per_image", tmp_path / "each.csv")
    assert "exists already" in refused(monkeypatch, capsys, "evaluate.py", *again)
    other = (run_folder, "--per_image", tmp_path / "new" / "each.txt")
    assert ".csv or .npz file, got" in refused(monkeypatch, capsys, "evaluate.py", *other)
    assert not (tmp_path / "new").exists()


def test_a_model_that_does_not_say_its_data_is_scored_on_what_is_named_alone(
    monkeypatch, capsys, tmp_path
):
    own = tmp_path / "own"
    save(RNP(tiny(image_size=28, patch_size=6)), own)
    for name in ("evaluate.py", "figures.py"):
        args = (own, *(("--out", tmp_path / "x") if name == "figures.py" else ()))
        said = refused(monkeypatch, capsys, name, *args)
        assert "does not say what its model was trained on; give --data" in said
    assert not (tmp_path / "x").exists()
    call(monkeypatch, "evaluate.py", own, "--data=strokes", "--num=4")
    scores = json.loads(capsys.readouterr().out)
    assert (scores["data"], scores["split"], scores["num"]) == ("strokes", "test", 4)


@pytest.fixture
def beside(run_folder, tmp_path):
    """A run folder with a guide that has seen masks beside the weights."""
    own = tmp_path / "run"
    shutil.copytree(run_folder, own)
    rnp = RNP(replace(Run(own).model_config, masked_guide="diagonal"))
    load_weights(rnp, own / WEIGHTS, partial=True)
    save_masked_guide(rnp, own)
    return own


def test_the_guide_that_has_seen_masks_is_taken_where_it_is_wanted(monkeypatch, capsys, beside):
    def scores(*more):
        call(monkeypatch, "evaluate.py", beside, "--num=2", "--hide=left", "--num_samples=30",
             "--methods=[importance,importance:rounds=2]", *more)  # fmt: skip
        return json.loads(capsys.readouterr().out)

    without, with_ = scores(), scores("--masked_guide=true")
    for method in ("importance", "importance:rounds=2"):
        assert with_["completion"].pop(method) != without["completion"].pop(method)
    seconds = {name for name in with_ if "second" in name}
    assert {k: v for k, v in with_.items() if k not in seconds} == {
        k: v for k, v in without.items() if k not in seconds
    }, "all other scores are the same"
    out = beside.parent / "answer"
    how = {"method": "importance", "num_samples": 30}
    call(monkeypatch, "query.py", beside, "--data=digits", "--num=2", "--hide=left", "--out", out,
         "--masked_guide=true", *(f"--{k}={v}" for k, v in how.items()))  # fmt: skip
    found = [
        image["log_evidence"] for image in json.loads((out / "query.json").read_text())["images"]
    ]
    rnp, images = load(beside, masked_guide=True), load_data("digits").test.images[:2]
    wanted = query(rnp, images, mask=half_mask("left", 28), progress=False, **how)
    assert found == pytest.approx(wanted.log_evidence.tolist(), rel=1e-5)


def test_a_method_or_a_guide_that_there_is_not_is_refused(monkeypatch, capsys, run_folder):
    wrong = partial(refused, monkeypatch, capsys, "evaluate.py", run_folder, "--num=2")
    assert "no engine 'smcc' (did you mean smc?)" in wrong("--hide=left", "--methods=[guide,smcc]")
    assert "train one with --mask_training" in wrong("--hide=left", "--masked_guide=true")


def test_evaluate_gives_the_log_likelihood_of_what_is_hidden(monkeypatch, capsys, run_folder):
    how = ("--num=3", "--hide=bottom", "--methods=[importance]", "--log_likelihood=true")
    call(monkeypatch, "evaluate.py", run_folder, *how)
    found = json.loads(capsys.readouterr().out)["completion"]["importance"]
    rnp, images = load(run_folder), load_data("digits").test[:3].images
    kept = {"method": "importance"}
    half = query(rnp, images, mask=half_mask("bottom", images.shape[-1]), **kept).log_evidence
    wanted = query(rnp, images, seed=1, **kept).log_evidence - half
    assert found["log_likelihood"] == pytest.approx(float(wanted.mean()), abs=1e-3)
    error = float(wanted.std()) / 3**0.5
    assert found["log_likelihood_error"] == pytest.approx(error, rel=1e-3)


def test_evaluate_completes_a_half(monkeypatch, capsys, run_folder):
    call(monkeypatch, "evaluate.py", run_folder, "--num=2", "--hide=left")
    found = json.loads(capsys.readouterr().out)["completion"]
    images = load_data("digits").test[:2].images
    blank = images[..., :14].square().sum().item() / 2
    assert found["blank"]["sse"] == pytest.approx(blank)
    assert found.keys() == {"blank", "mean_image", "nearest", "guide", "importance", "svi"}
    how = ("--data=strokes", "--num=2", "--segment=guide", "--hide=left", "--methods=[guide]")
    call(monkeypatch, "evaluate.py", run_folder, *how)
    found = json.loads(capsys.readouterr().out)
    assert found["completion"].keys() == {"blank", "mean_image", "nearest", "guide"}
    assert "log_likelihood" not in found["completion"]["guide"]
    assert found["segmentation"].keys() >= {"ari_parts", "ari_subparts_floor", "ari_parts_error"}
    monkeypatch.delattr(
        inference.evaluation.metrics, "_scores"
    )  # what is refused is not scored first
    assert "not known" in refused(
        monkeypatch, capsys, "evaluate.py", run_folder, "--num=2", "--segment=guide"
    )


def test_evaluate_says_whether_answers_can_be_trusted(monkeypatch, capsys, run_folder):
    how = ("--num=2", "--methods=[guide]", "--calibrate=3", "--reference=40")
    asked = "calibrate and reference are about hidden pixels"
    assert asked in refused(monkeypatch, capsys, "evaluate.py", run_folder, *how)
    call(monkeypatch, "evaluate.py", run_folder, "--hide=left", *how)
    found = json.loads(capsys.readouterr().out)
    assert found["calibration"]["guide"]["images"] == 3
    assert found["agreement"].keys() == {"reference", "guide"}
    assert found["agreement"]["reference"]["images"] == 2
