"""Every script runs; a user's mistakes end in one sentence and overwrite nothing."""

import contextlib
import io
import itertools
import json
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inference.evaluation.benchmark
import inference.reproduction.experiments
import inference.reproduction.trainings
import inference.reproduction.transfer
from inference.cli import train_config
from inference.data import DATASETS, Splits, load_data
from inference.data.image_files import read_image
from inference.evaluation.benchmark import sweeps
from inference.evaluation.metrics import evaluate
from inference.evaluation.sample_quality import read_classifier
from inference.reproduction.artifacts import keep
from inference.reproduction.experiments import Reproduction, asked, timed
from inference.reproduction.report import CURVES, report
from inference.reproduction.transfer import by_program, cases
from inference.run import Run, fingerprint, training_of
from pyro_rnp import RNP, RNPConfig, load, save
from pyro_rnp.affine import FIELDS
from pyro_rnp.checkpoint import SHIPPED, shipped
from tests.conftest import tiny

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = [
    "--model.steps=[2,2]", "--model.program_size=4", "--model.patch_size=6",
    "--model.hypernet_units=5", "--model.network_units=5", "--model.encoder_channels=3",
]  # fmt: skip


def call(monkeypatch, name, *args):
    monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")


def refused(monkeypatch, capsys, name, *args):
    """The sentence with which a call ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, name, *args)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture
def in_process(monkeypatch):
    """Runs of other scripts are made here, without a process and its imports for each."""

    def finish(command, stdout=None):
        _, script, *args = command
        said = io.StringIO()
        with monkeypatch.context() as patch, contextlib.redirect_stdout(said):
            call(patch, Path(script).name, *args)
        return subprocess.CompletedProcess(command, 0, said.getvalue() if stdout else None)

    monkeypatch.setattr(inference.reproduction.trainings, "finish", finish)
    monkeypatch.setattr(inference.reproduction.experiments, "finish", finish)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of two steps, by the script itself in a process of its own."""
    folder = tmp_path_factory.mktemp("scripts") / "run"
    command = [sys.executable, SCRIPTS / "train.py", "--out", folder, "--epochs=1"]
    ran = subprocess.run(
        [*command, "--batch_size=600", *SMALL], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "Look at the parse" in ran.stdout
    assert "metrics.json, on the test images of digits:" in ran.stdout
    assert "Warning" not in ran.stderr, ran.stderr
    return folder


def test_no_script_is_forgotten():
    covered = {
        *("train.py", "evaluate.py", "parse.py", "sample.py", "benchmark.py", "compare.py"),
        *("query.py", "edit.py", "oneshot.py", "dictionary.py", "figures.py", "transfer.py"),
        *("ship.py", "reproduce.py"),
    }
    assert {p.name for p in SCRIPTS.glob("*.py")} == covered
    for path in SCRIPTS.glob("*.py"):
        assert len(path.read_text().splitlines()) < 100, path


@pytest.mark.parametrize("name", sorted(p.name for p in SCRIPTS.glob("*.py")))
def test_help(monkeypatch, capsys, name):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, name, "--help")
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


def test_train(run_folder):
    assert {"config.json", "metrics.json", "parse.png"} <= {p.name for p in run_folder.iterdir()}


def test_a_run_that_another_process_trains_is_left_alone(monkeypatch, capsys, run_folder):
    with Run(run_folder).lock():
        how = ("--resume", run_folder, "--epochs=2")
        assert "Another process is training" in refused(monkeypatch, capsys, "train.py", *how)


def test_evaluate(monkeypatch, capsys, run_folder, tmp_path):
    call(monkeypatch, "evaluate.py", run_folder)
    scores = json.loads(capsys.readouterr().out)
    metrics = json.loads((run_folder / "metrics.json").read_text())
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


def test_compare(monkeypatch, capsys, in_process, tmp_path):
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


@pytest.fixture
def digits(tmp_path):
    """Two test digits as image files."""
    images = load_data("digits").test.images[:2, 0]
    files = [tmp_path / "a.png", tmp_path / "other" / "a.png"]
    files[1].parent.mkdir()
    for file, image in zip(files, images, strict=True):
        Image.fromarray((image * 255).round().byte().numpy()).save(file)
    return files


def test_parse(monkeypatch, run_folder, digits, tmp_path):
    call(monkeypatch, "parse.py", run_folder, *digits, "--out", tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["0-a.json", "0-a.png", "1-a.json", "1-a.png"]
    found = json.loads((tmp_path / "out" / "1-a.json").read_text())
    assert found["file"] == str(digits[1])
    assert set(found["units"]) == set(FIELDS)
    part = found["tree"]["parts"][1]["parts"][0]
    assert (part["part"], list(part["action"])) == ("1/0", list(FIELDS))
    config = load(run_folder).config
    assert config.min_scale <= part["action"]["scale_x"] <= config.max_scale


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


def test_benchmark(monkeypatch, capsys, tmp_path):
    small = ["--repeats=1", "--batch_sizes=[2]", "--presets=[fast]", "--memory=false"]
    call(monkeypatch, "benchmark.py", *small, "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert {(row["what"], row["task"]) for row in rows} >= {
        ("literal port", "train"), ("fast", "sample"), ("flat VAE", "parse")
    }  # fmt: skip
    assert all(row["images_per_second"] > 0 for row in rows)
    assert "Large matrix product" in capsys.readouterr().out


def test_benchmark_of_growth(monkeypatch, capsys, tmp_path):
    few = {"program size": sweeps("fast")["program size"][:2]}
    monkeypatch.setattr(inference.evaluation.benchmark, "sweeps", lambda _: few)
    call(monkeypatch, "benchmark.py", "--scaling=fast", "--repeats=1", "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert [row["value"] for row in rows] == [16, 32]
    assert all(row["nodes"] == 20 and row["ms_per_image"] > 0 for row in rows)
    assert np.asarray(Image.open(tmp_path / "out" / "scaling.png")).std() > 0
    assert "program size" in capsys.readouterr().out


def test_mistakes(monkeypatch, capsys, run_folder, digits, tmp_path):
    def no(name, *args):
        return refused(monkeypatch, capsys, name, *args)

    kept = {p: p.read_bytes() for p in run_folder.iterdir() if p.is_file()}
    assert "exists already" in no("train.py", "--out", run_folder, *SMALL)
    assert "does not exist" in no("train.py", "--data=mnist", "--data-root", tmp_path / "no")
    assert "--minuts" in no("train.py", "--minuts=3")
    assert "data digits, not mnist" in no("train.py", "--resume", run_folder, "--data=mnist")
    assert "1 epochs already in" in no("train.py", "--resume", run_folder)
    assert "config.json does not exist" in no("evaluate.py", tmp_path)
    assert "images" in no("parse.py", run_folder)
    assert "does not exist" in no("parse.py", run_folder, tmp_path / "no.png")
    (tmp_path / "text.png").write_text("hello")
    assert "not an image" in no("parse.py", run_folder, digits[0], tmp_path / "text.png")
    assert "exists already" in no("parse.py", run_folder, digits[0], "--out", tmp_path)
    Image.fromarray(np.zeros((5, 9), np.uint8)).save(tmp_path / "small.png")
    assert "9 x 5 pixels" in no("parse.py", run_folder, tmp_path / "small.png")
    assert "num" in no("sample.py", run_folder, "--num=0", "--out", tmp_path / "s.png")
    assert "up to 100" in no("sample.py", run_folder, "--num=101", "--out", tmp_path / "s.png")
    assert "repeats" in no("benchmark.py", "--repeats=0")
    (tmp_path / "variants.txt").write_text("--prior flow\n--prior flwo\n")
    assert "did you mean flow?" in no("compare.py", tmp_path / "variants.txt")
    assert "exists already" in no("sample.py", run_folder, "--out", digits[0])
    assert all(p.read_bytes() == data for p, data in kept.items())


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
    assert found["segmentation"].keys() >= {"ari_parts", "ari_subparts_floor", "ari_parts_error"}
    monkeypatch.delattr(
        inference.evaluation.metrics, "_scores"
    )  # what is refused is not scored first
    assert "not known" in refused(
        monkeypatch, capsys, "evaluate.py", run_folder, "--num=2", "--segment=guide"
    )


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


def test_query_says_what_is_wrong(monkeypatch, capsys, run_folder, tmp_path):
    def wrong(*args):
        return refused(monkeypatch, capsys, "query.py", run_folder, *args, "--out", tmp_path / "x")

    assert "A mask needs images" in wrong("--hide=left")
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

    monkeypatch.setattr("inference.posterior.query", stop)
    said = refused(
        monkeypatch, capsys, "query.py", run_folder, "--images", digits[0], "--mask",
        tmp_path / "mask.png", "--resize=true", "--out", tmp_path / "x",
    )  # fmt: skip
    assert "That will do" in said
    assert "swapped" not in said


def test_paper_is_swapped_unless_that_is_forbidden(
    monkeypatch, capsys, run_folder, digits, tmp_path
):
    with Image.open(digits[0]) as opened:
        paper = 255 - np.array(opened)
    Image.fromarray(paper).save(tmp_path / "paper.png")
    trees = []
    for i, (file, *flags) in enumerate(
        [(digits[0],), (tmp_path / "paper.png",), (tmp_path / "paper.png", "--invert=false")]
    ):
        out = tmp_path / f"out{i}"
        call(monkeypatch, "parse.py", run_folder, file, *flags, "--out", out)
        trees.append(json.loads((out / f"{Path(file).stem}.json").read_text())["tree"]["program"])
        said = capsys.readouterr().err
        swapped = [line for line in said.splitlines() if "were swapped" in line]
        assert ["paper.png" in line for line in swapped] == [True] * (i == 1)
    assert trees[1] == pytest.approx(trees[0], abs=1e-4)
    assert trees[2] != pytest.approx(trees[0], abs=1e-4)


def test_edit(monkeypatch, capsys, run_folder, digits, tmp_path):
    first, second = (str(d) for d in digits[:2])
    out = tmp_path / "out"
    call(monkeypatch, "edit.py", run_folder, "--images", first, "--move", "1:0.2,-0.1", "--remove",
         "0/1", "--put", f"0:{second}:1", "--react=true", "--out", out)  # fmt: skip
    with Image.open(out / "edit.png") as picture:
        assert picture.size[0] < picture.size[1], "two columns, five rows"
    found = json.loads((out / "edit.json").read_text())
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
    assert "give --images or --data" in refused(monkeypatch, capsys, "edit.py", run_folder)
    assert not (tmp_path / "x").exists()


def _read(file):
    return read_image(file, RNPConfig()).unsqueeze(0)


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


def test_oneshot(monkeypatch, capsys, run_folder, tmp_path):
    assert "--prior types" in refused(monkeypatch, capsys, "oneshot.py", run_folder)
    folder = tmp_path / "types"
    classes = ("--prior=types", "--images_per_class=2", "--elbo=Trace_ELBO")
    call(monkeypatch, "train.py", *classes, "--epochs=1", "--batch_size=600", *SMALL,
         "--out", folder)  # fmt: skip
    start = torch.zeros(4)
    share = load(folder).model.prior.logit
    assert not torch.equal(share, start), "what classes share is learned"
    capsys.readouterr()
    image = Image.fromarray(np.full((105, 105), 255, np.uint8)).convert("1")
    with zipfile.ZipFile(tmp_path / "all_runs.zip", "w") as archive:
        labels = "run01/test/item01.png run01/training/class01.png\n"
        archive.writestr("run01/class_labels.txt", labels)
        for name in labels.split():
            with archive.open(name, "w") as file:
                image.save(file, "png")
    call(monkeypatch, "oneshot.py", folder, "--runs", tmp_path / "all_runs.zip")
    found = json.loads(capsys.readouterr().out)
    assert (found["accuracy"], found["split"], found["num"]) == (1, "test", 1)
    assert found["data"] == str(tmp_path / "all_runs.zip")
    picture = tmp_path / "more.png"
    call(monkeypatch, "oneshot.py", folder, "--data=digits", "--num=2", "--out", picture)
    with Image.open(picture) as opened:
        assert opened.size[0] > 2 * opened.size[1], "two rows of ten"
    assert "give --runs" in refused(monkeypatch, capsys, "oneshot.py", folder)
    assert "does not exist" in refused(
        monkeypatch, capsys, "oneshot.py", folder, "--runs", tmp_path / "no.zip"
    )


@pytest.mark.parametrize(("program", "clusters"), [("recursive", 3), ("flat", 1)])
def test_figures(monkeypatch, run_folder, tmp_path, program, clusters):
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
    assert found["6"]["digits"] == pytest.approx(
        json.loads((folder / "metrics.json").read_text())["test_sse"], rel=1e-5
    )
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
def test_figures_of_what_comes_along(monkeypatch, tmp_path, name):
    out = tmp_path / "out"
    call(monkeypatch, "figures.py", name, "--data=digits", "--num=40", "--clusters=2", "--out", out)
    found = json.loads((out / "figures.json").read_text())
    steps = found["3"]["explained_by_step"]
    assert len(steps) == load(name).config.steps[0]
    assert 0.5 < sum(steps) < 1, "it draws digits"
    assert found["4"]["level_probe"] > 0.9
    assert (out / "figure-4c-z1.png").exists()


def test_the_page_says_what_comes_along(tmp_path):
    keep(SHIPPED, tmp_path)
    here, there = report(tmp_path, "", ""), (SCRIPTS.parent / "REPRODUCTION.md").read_text()
    for name in shipped():
        rows = [row for row in here.splitlines() if row.startswith(f"| {name} |")]
        assert rows
        for row in rows:
            assert row in there


def test_ship(monkeypatch, capsys, run_folder, tmp_path):
    call(monkeypatch, "ship.py", run_folder, "--name=small", "--to", tmp_path)
    assert capsys.readouterr().out == f"{tmp_path / 'small'}\n"
    assert load(tmp_path / "small").config == load(run_folder).config
    wrong = (run_folder, "--name=small", "--to", tmp_path)
    assert "exists already" in refused(monkeypatch, capsys, "ship.py", *wrong)


def test_reproduce(monkeypatch, capsys, in_process, run_folder, tmp_path):
    out, lines = tmp_path / "out", tmp_path / "runs.txt"
    shutil.copytree(run_folder, out / "mnist")
    small = " ".join(["--epochs=1", "--batch_size=600", *SMALL])
    lines.write_text(
        f"# two\nmnist: {small}\nmnist-binary: {small} --likelihood=bernoulli --binarize=true\n"
        "score-it: mnist-binary --particles=3 --num=20\n"
    )
    page = tmp_path / "PAGE.md"
    (out / "mnist-figures.part").mkdir()  # of an attempt that did not end
    kept = tmp_path / "docs" / "reproduction" / "classifier-digits.safetensors"
    how = ("--runs", lines, "--out", out, "--page", page)
    call(monkeypatch, "reproduce.py", *how)
    assert read_classifier(kept, load_data("digits").train, 0) is not None
    text = page.read_text()
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert f"| mnist | 1 | {metrics['images_seen']:,} | {metrics['test_sse']:.2f} ± " in text
    for name in ("3", "4a", "5"):
        picture = f"docs/reproduction/mnist-figures/figure-{name}.png"
        assert f"]({picture})" in text
        assert (tmp_path / picture).exists()
    assert f"](docs/reproduction/{CURVES})" in text
    assert (kept.parent / CURVES).exists()
    assert "| mnist-binary | 4 | 3 | 20 |" in text[text.index("-IW bound") :]
    page.unlink()
    call(monkeypatch, "reproduce.py", *how, "--only_page=true")
    assert page.read_text() == text
    lines.write_text(lines.read_text().replace("particles=3", "particles=4"))
    call(monkeypatch, "reproduce.py", *how)
    assert "| mnist-binary | 4 | 4 | 20 |" in page.read_text()
    assert not (out / "mnist-figures.part").exists()
    lines.write_text(f"mnist: {small} --seed=1\nmnist-binary: {small} --likelihood=bernoulli "
                     "--binarize=true\nscore-it: mnist-binary --num=9\n")  # fmt: skip
    (out / "score-it" / "score.json").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        call(monkeypatch, "reproduce.py", *how)
    err = capsys.readouterr().err
    assert "made with other flags" in err
    assert "Not made, for what is said above: mnist.\n" in err
    assert (out / "score-it" / "score.json").exists(), "the next lines"
    lines.write_text("mnist: --epochs=0\n")
    assert "epochs" in refused(monkeypatch, capsys, "reproduce.py", *how)
    lines.write_text("mnist --epochs=1\n")
    assert "no name and colon" in refused(monkeypatch, capsys, "reproduce.py", *how)
    for wrong in ("mnist --nums=9", "mnist --num 9", "score-it --num=9", ""):
        lines.write_text(f"mnist: {small}\nscore-it: {wrong}\n")
        said = "name a run that" if "mnist" not in wrong else "takes --particles=VALUE"
        assert said in refused(monkeypatch, capsys, "reproduce.py", *how)
    lines.write_text("flat: --minutes as:flat\n")
    assert "flat, which must stand above" in refused(monkeypatch, capsys, "reproduce.py", *how)
    lines.write_text("flat: --minutes as:mnist\nmnist: --epochs=1\n")
    assert "mnist, which must stand above" in refused(monkeypatch, capsys, "reproduce.py", *how)


def test_what_is_there_is_not_made_again_unless_weights_are_others(
    monkeypatch, run_folder, tmp_path
):
    called, folder = [], tmp_path / "mnist"
    shutil.copytree(run_folder, folder)

    def run(self, name, *arguments):
        called.append((name, *map(str, arguments)))
        out = Path(arguments[-1])
        if name == "figures.py":
            out.mkdir()
            made = {"weights": fingerprint(folder)}
            (out / "figures.json").write_text(json.dumps({"made": made}))
        return ""

    monkeypatch.setattr(inference.reproduction.experiments, "trained", lambda *_: None)
    monkeypatch.setattr(Reproduction, "_run", run)
    for _ in range(2):
        Reproduction(SCRIPTS).make(folder, [])
    out = ("--out", str(tmp_path / "mnist-figures.part"))
    own = f"--classifier={tmp_path / 'classifier-digits.safetensors'}"
    assert called == [("figures.py", str(folder), "--across=[]", own, *out)]
    shutil.copyfile(folder / "config.json", folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["training"]["data"] = "omniglot-all"
    (folder / "config.json").write_text(json.dumps(config))
    Reproduction(SCRIPTS, "there", tmp_path / "kept").make(folder, [])
    own = f"--classifier={tmp_path / 'kept' / 'classifier-omniglot-all.safetensors'}"
    across = ("--data-root", "there", '--across=["mnist", "fashion"]')
    assert called[1:] == [("figures.py", str(folder), *across, own, *out)]


def test_a_comparison_of_transfer_is_made_again_if_another_is_asked_for(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(Reproduction, "_run", lambda self, name, *flags: called.append(flags))
    folder = tmp_path / "transfer-x"
    folder.mkdir()
    for flags in (["--unseen", "[7]"], ["--unseen", "[7]"], ["--unseen", "[8]"]):
        Reproduction(SCRIPTS).make(folder, flags)
    assert [flags[1] for flags in called] == ["[7]", "[8]"]


def test_runs_that_are_there_are_tuned(monkeypatch, run_folder, tmp_path):
    called = []
    monkeypatch.setattr(Reproduction, "_run", lambda self, name, *flags: called.append(flags))
    folder, flags = tmp_path / "transfer-x", ["one", "two", "--new", "strokes"]
    folder.mkdir()
    shutil.copytree(run_folder, tmp_path / "one")
    with pytest.raises(FileNotFoundError, match="two has not ended"):
        Reproduction(SCRIPTS).make(folder, flags)
    shutil.copytree(run_folder, tmp_path / "two")
    for weights in (b"", b"", b"others"):
        with (tmp_path / "two" / "model.safetensors").open("ab") as file:
            file.write(weights)
        Reproduction(SCRIPTS).make(folder, flags)
    runs = [str(tmp_path / name) for name in ("one", "two")]
    asked_for = (f"--learned={json.dumps(runs)}", "--new", "strokes", "--out", folder)
    assert called == [asked_for] * 2, "again where a run has other weights"
    lines = tmp_path / "lines.txt"
    lines.write_text("transfer-x: two --new strokes\n")
    with pytest.raises(ValueError, match="tunes two, which must stand above"):
        asked(lines)


def test_the_runs_of_the_reproduction_can_be_read_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = asked(SCRIPTS / "configs" / "reproduction.txt")
    assert train_config(found["mnist-binary"]).model.program_size == 16
    for name, flags in found.items():
        if name.startswith("score-"):
            assert flags[0] in found
            continue
        if not name.startswith("transfer-"):
            assert train_config(timed(flags, ())).data.partition("-")[0] == name.partition("-")[0]
            continue
        for run in itertools.takewhile(lambda word: not word.startswith("-"), flags):
            assert train_config(timed(found[run], ())).data == flags[flags.index("--data") + 1]
        if "--flags" in flags:
            nested = shlex.split(flags[flags.index("--flags") + 1])
            assert train_config(nested).epochs < 28


def test_a_run_can_take_as_long_as_another(tmp_path):
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "metrics.json").write_text('{"seconds": 90.0}')
    flags = ["--minutes", "as:long", "--seed=1"]
    assert timed(flags, [tmp_path / "none", tmp_path]) == ["--minutes", "1.5", "--seed=1"]
    assert timed(flags, ()) == ["--minutes", "1.0", "--seed=1"]
    with pytest.raises(FileNotFoundError, match="long has not ended"):
        timed(flags, [tmp_path / "none"])


def test_transfer(monkeypatch, capsys, in_process, tmp_path):
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
    found = cases("digits", [7, 1], None, None, binarize=True)
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

    def trained(folder, flags, script):
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
    monkeypatch.setitem(DATASETS, "strokes", lambda root: many)
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


def test_transfer_of_what_has_learned_already(
    monkeypatch, capsys, in_process, run_folder, tmp_path
):
    new = load_data("digits").of([3, 5])
    monkeypatch.setitem(DATASETS, "strokes", lambda root: new)
    out = tmp_path / "out"
    args = ("--data=digits", "--new=strokes", "--tune_flags=--epochs=1 --batch_size=50")
    call(monkeypatch, "transfer.py", *args, f"--learned=['{run_folder}']", "--out", out)
    found = json.loads((out / "transfer.json").read_text())
    assert f'--learned=["{run_folder.name}"]' in shlex.split(found["flags"])
    assert found["made"]["weights"] == {run_folder.name: fingerprint(run_folder)}
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
    monkeypatch, in_process, run_folder, tmp_path, binarize
):
    new = load_data("digits").of([3, 5])
    monkeypatch.setitem(DATASETS, "strokes", lambda root: new)
    run, out = _as(run_folder, tmp_path / "learned", "recursive", binarize=binarize), tmp_path / "o"
    call(monkeypatch, "transfer.py", "--data=digits", "--new=strokes", f"--learned=['{run}']",
         "--tune_flags=--epochs=1 --batch_size=50", "--out", out)  # fmt: skip
    assert training_of(out / "recursive-tuned-strokes").binarize == binarize
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
