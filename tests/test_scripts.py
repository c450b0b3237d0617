"""Every script runs; a user's mistakes end in one sentence and overwrite nothing."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import inference.benchmark
from inference.benchmark import sweeps
from inference.data import load_data
from pyro_rnp import load
from pyro_rnp.affine import FIELDS

SCRIPTS = Path(__file__).parents[1] / "scripts"
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
    assert "Warning" not in ran.stderr, ran.stderr
    return folder


def test_no_script_is_forgotten():
    covered = {
        *("train.py", "evaluate.py", "parse.py", "sample.py", "benchmark.py", "compare.py"),
        "query.py",
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


def test_evaluate(monkeypatch, capsys, run_folder):
    call(monkeypatch, "evaluate.py", run_folder)
    scores = json.loads(capsys.readouterr().out)
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert scores == pytest.approx({k: v for k, v in metrics.items() if k.startswith("test_")})
    call(monkeypatch, "evaluate.py", run_folder, "--split", "validation")
    assert "validation_elbo" in json.loads(capsys.readouterr().out)
    call(monkeypatch, "evaluate.py", run_folder, "--particles=3", "--num=5")
    few = json.loads(capsys.readouterr().out)
    assert few["test_iw_bound_error"] > 0
    assert few["test_elbo"] != scores["test_elbo"]


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
    monkeypatch.setattr(inference.benchmark, "sweeps", lambda _: few)
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
    assert "config.json does not exist" in no("evaluate.py", tmp_path)
    assert "images" in no("parse.py", run_folder)
    assert "does not exist" in no("parse.py", run_folder, tmp_path / "no.png")
    (tmp_path / "text.png").write_text("hello")
    assert "not an image" in no("parse.py", run_folder, digits[0], tmp_path / "text.png")
    assert "exists already" in no("parse.py", run_folder, digits[0], "--out", tmp_path)
    Image.fromarray(np.zeros((5, 9), np.uint8)).save(tmp_path / "small.png")
    assert "9 x 5 pixels" in no("parse.py", run_folder, tmp_path / "small.png")
    assert "num" in no("sample.py", run_folder, "--num=0", "--out", tmp_path / "s.png")
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
    assert found.keys() == {"blank", "nearest", "guide", "importance", "svi"}


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
    given = tmp_path / "given.json"
    action = found["images"][0]["sites"]["a/0"]["mean"]
    given.write_text(json.dumps({"a/0": action}))
    call(monkeypatch, "query.py", run_folder, "--given", given, "--num=2", *fast,
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
