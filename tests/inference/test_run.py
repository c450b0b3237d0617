"""Run folders: what they tell of a run, one process at a time, and one run."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from inference import fit
from inference.cli import train_config
from inference.config import MAY_CHANGE, TrainConfig
from inference.reproduction.recipes import portable
from inference.run import NOT_KEPT, Run
from pyro_rnp import RNP, load, save
from tests.conftest import tiny

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from inference.run import Run
with Run(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    run = Run(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="Another process is training in"), run.lock():
            pass
        other.stdin.close()
        other.wait()
    with run.lock(), pytest.raises(ValueError, match="Another"), run.lock():
        pass
    with run.lock():
        pass


def test_where_there_are_no_locks_nothing_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("inference.run.fcntl", None)
    with Run(tmp_path).lock(), Run(tmp_path).lock():
        pass


def test_a_new_run_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.create(TrainConfig(data="strokes"))
    assert run.path.parent == Path("runs")
    assert run.path.name.startswith("strokes-fast-")
    assert not run.path.exists(), "it is chosen and not made"
    named = Run.create(TrainConfig(out="mnist"))
    assert named.path == Path("mnist"), "not the shipped model of that name"
    named.make()
    with pytest.raises(FileExistsError, match="name another with --out, or go on with --resume"):
        Run.create(TrainConfig(out="mnist"))
    assert Run.create(TrainConfig(out="mnist"), check=False).path == named.path
    with pytest.raises(FileExistsError, match="exists already"):
        named.make()


CONFIG = TrainConfig(data="digits", preset="mnist", epochs=3, classes=[1, 2], model=tiny())
OTHERS = {
    "data": "mnist", "classes": [1], "preset": "fast", "optimizer": "Adam", "learning_rate": 0.5,
    "warmup": 3,
    "schedule": "constant",
    "clip": 2.0, "elbo": "Trace_ELBO", "kl_weight": 0.5, "kl_warmup": 0.5, "depth_growth": 0.5,
    "lower_warmup": 0.5,
    "images_per_class": 2, "jitter": 0.1, "rotated_classes": True, "binarize": True, "seed": 1,
    "start": "there", "learn": "guide", "size": 40, "channels": 3, "invert": True,
    "mask_training": ["halves"],
}  # fmt: skip
FREE = {
    "epochs": 4, "patience": 7, "checkpoint_minutes": 2.0, "data_root": "there", "batch_size": 32,
    "recompute_levels": 1, "compile": False, "accelerator": "cpu", "devices": "2", "num_nodes": 2,
    "strategy": "ddp", "precision": "bf16-mixed", "minutes": 5.0,
}  # fmt: skip


@pytest.fixture
def begun(tmp_path):
    """A run's folder as training leaves it."""
    Run(tmp_path).save(RNP(CONFIG.model), CONFIG)
    return str(tmp_path)


def test_each_field_may_change_as_a_run_goes_on_or_may_not():
    assert {*OTHERS, *FREE, *NOT_KEPT} == {f.name for f in fields(TrainConfig)}
    assert set(MAY_CHANGE) == set(FREE)


@pytest.mark.parametrize("name", OTHERS, ids="--{}".format)
def test_a_run_goes_on_as_it_was_trained(begun, name):
    more = {"start": "there"} if name == "learn" else {}  # which a guide alone needs
    changed = replace(CONFIG, resume=begun, **{name: OTHERS[name]}, **more)
    with pytest.raises(ValueError, match=f"was trained with .*--start {begun} in place") as raised:
        Run.resume(changed)
    said = str(raised.value)
    assert f"{name} {getattr(CONFIG, name)}, not {OTHERS[name]}" in said
    names = [*more, name, *["masked_guide"] * (name == "mask_training")]  # which it brings
    assert f"leave out {', '.join(f'--{changed}' for changed in names)};" in said


def test_how_long_where_and_how_fast_may_change(begun):
    for name, value in FREE.items():
        changes = {name: value, **({"epochs": None} if name == "minutes" else {})}
        assert Run.resume(replace(CONFIG, resume=begun, **changes)).path == Path(begun)
    model = replace(CONFIG.model, sigma=0.3, steps=(3, 2))
    with pytest.raises(ValueError, match=r"with steps \(2, 2\), not \(3, 2\); sigma 0.5, not 0.3"):
        Run.resume(replace(CONFIG, resume=begun, model=model))


def test_a_shipped_model_is_no_run_to_go_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mnist/config\.json does not exist"):
        Run.resume(replace(CONFIG, resume="mnist"))


def test_a_folder_says_how_its_model_was_trained(tmp_path):
    config = TrainConfig(data="mnist", data_root="/there", epochs=3, model=tiny())
    notes = asdict(config)
    del notes["model"]
    save(RNP(config.model), tmp_path, {"training": notes})
    assert Run(tmp_path).config == config
    assert "/there" not in str(portable(tmp_path))
    assert portable(tmp_path)["training"]["epochs"] == 3
    save(RNP(config.model), tmp_path)
    with pytest.raises(ValueError, match="does not say how"):
        _ = Run(tmp_path).config


def test_former_names_of_fields_in_a_run_s_configuration_are_read(tmp_path, capsys):
    former = {"data": "omniglot", "drawings": 4, "turned": True, "elbo": "Trace_ELBO"}
    save(RNP(tiny()), tmp_path / "run", {"training": former})
    run = Run(tmp_path / "run")
    assert (run.config.images_per_class, run.config.rotated_classes) == (4, True)
    assert (run.training["images_per_class"], "drawings" in run.training) == (4, False)
    assert Run.resume(replace(run.config, resume=str(run.path), epochs=3)).path == run.path
    assert train_config(["--resume", str(run.path)]).images_per_class == 4
    assert capsys.readouterr().err == "", "nobody can change what an older run says"


def test_nobody_guesses_on_what_a_model_was_trained(tmp_path):
    save(RNP(tiny()), tmp_path / "own")
    save(RNP(tiny()), tmp_path / "half", {"training": {"seed": 3}})
    save(RNP(tiny()), tmp_path / "made", {"training": {"data": "strokes", "binarize": True}})
    for name in ("own", "half"):
        run = Run(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} does not say what .*; give --data"):
            run.data()
        with pytest.raises(ValueError, match=f"{name} does not say"):
            _ = run.config
        assert len(run.data("digits").test) == 360
    made = Run(tmp_path / "made")
    assert made.data_name == "strokes"
    assert set(made.data("digits").test.images.unique().tolist()) == {0, 1}


def test_a_run_is_named_as_it_was_given(tmp_path, monkeypatch):
    save(RNP(tiny()), tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^\./own/ does not say what"):
        Run("./own/").data()
    monkeypatch.setattr("pyro_rnp.checkpoint.SHIPPED", tmp_path)
    monkeypatch.chdir("/")
    with pytest.raises(ValueError, match=r"^own does not say what"):
        Run("own").data()
    with pytest.raises(ValueError, match=r"^own does not say how"):
        _ = Run("own").config


def test_what_is_written_is_read_again(tmp_path):
    run, rnp = Run(tmp_path / "run"), RNP(CONFIG.model)
    run.make()
    assert (run.metrics, run.ended, run.has_checkpoint) == (None, False, False)
    run.save(rnp, CONFIG, started="0123456789ab")
    assert (run.config, run.started, run.model_config) == (CONFIG, "0123456789ab", CONFIG.model)
    longer = replace(CONFIG, epochs=9)
    run.save_config(longer)
    assert (run.config, run.started) == (longer, None)
    for name, value in run.load().state_dict().items():
        assert torch.equal(value, rnp.state_dict()[name])
    other = RNP(CONFIG.model)
    run.load_weights(other)
    assert all(torch.equal(v, rnp.state_dict()[k]) for k, v in other.state_dict().items())
    run.checkpoint.touch()
    assert run.has_checkpoint
    assert run.write_metrics({"seconds": 0.1}) == tmp_path / "run" / "metrics.json"
    assert (run.metrics, run.ended) == ({"seconds": 0.1}, True)
    run.log("A sentence.")
    run.log("Another.")
    lines = (run.path / "log.txt").read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["A sentence.", "Another."]


def test_shipped_weights_are_a_run_by_name():
    run = Run("mnist")
    assert run.config.data == run.data_name == "mnist"
    assert run.ended
    assert run.metrics["images_seen"] == run.curve[-1]["images_seen"]
    assert run.load().config == load("mnist").config == run.model_config


def test_a_fingerprint_is_that_of_the_weights(tmp_path):
    save(RNP(tiny()), tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert Run(tmp_path).fingerprint == digest[:12]
    save(RNP(tiny(program_size=5)), tmp_path)
    assert Run(tmp_path).fingerprint != digest[:12]


def test_a_curve_is_that_of_all_parts_of_a_run(tmp_path):
    run, names = Run(tmp_path), []
    head = "epoch,images_seen,loss,seconds,val_elbo,val_sse\n"
    for name, lines in {
        "curves": "0,,3.0,,,\n0,100.0,,9.0,-5.0,30.0\n1,200.0,,18.0,-4.0,25.0\n",
        "curves-2": "1,200.0,,18.0,-4.0,24.0\n2,300.0,,27.0,-3.0,20.0\n",
        "curves-10": "2,300.0,,27.0,-3.0,19.0\n3,400.0,,40.0,-2.0,15.0\n",
    }.items():
        names.append(run.new_curves())
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(head + lines)
    assert names == ["curves", "curves-2", "curves-3"]
    assert [row["epoch"] for row in run.curve] == [1, 2, 3, 4]
    assert [row["val_sse"] for row in run.curve] == [30.0, 24.0, 19.0, 15.0]
    assert run.curve[-1] == {
        "epoch": 4, "images_seen": 400.0, "seconds": 40.0, "val_elbo": -2.0, "val_sse": 15.0,
    }  # fmt: skip
    with pytest.raises(FileNotFoundError, match="holds no curves"):
        _ = Run(tmp_path / "curves").curve


LAZY = """
import json, sys
import inference
slow = ("lightning", "pyro", "torch", "sklearn", "matplotlib")
assert not set(slow) & set(sys.modules), "import inference"
assert {"Run", "evaluate", "intervene", "load_data", "query", "train"} <= set(dir(inference))
import inference.cli
assert "lightning" not in sys.modules, "inference.cli"
from inference import Run, evaluate, intervene, load_data, query, train
print(json.dumps([f.__module__ for f in (Run, evaluate, intervene, load_data, query, train)]))
"""


def test_the_package_hands_on_its_main_functions_when_they_are_used():
    done = subprocess.run(
        [sys.executable, "-c", LAZY],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(name.startswith("inference.") for name in json.loads(done.stdout))
    import inference

    with pytest.raises(AttributeError, match="no attribute 'quary'"):
        _ = inference.quary


def test_a_run_says_what_it_is_and_shows_its_curves(tmp_path):
    run = fit(torch.rand(40, 1, 8, 8), tiny(), out=tmp_path / "a", epochs=1, progress=False)
    sse = f"{run.metrics['test_sse']:.4g}"
    assert repr(run).startswith(f"Run('{tmp_path / 'a'}', images_seen=")
    assert f", test_sse={sse}, test_elbo=" in repr(run)
    assert "<img" in run._repr_html_()
    run.metrics_path.unlink()
    assert repr(run) == f"Run('{tmp_path / 'a'}', not ended)"
    (tmp_path / "b").mkdir()
    save(RNP(tiny()), tmp_path / "b" / "model")
    assert Run(tmp_path / "b" / "model")._repr_html_() is None, "without curves, the text alone"
