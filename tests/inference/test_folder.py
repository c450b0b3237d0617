"""Run folders: one process at a time, and one run."""

import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from inference.config import MAY_CHANGE, TrainConfig
from inference.run import NOT_KEPT, held, run_folder
from pyro_rnp import RNP, save
from tests.conftest import tiny

HOLD = """
import sys
from pathlib import Path
from inference.run import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="Another process is training in"), held(tmp_path):
            pass
        other.stdin.close()
        other.wait()
    with held(tmp_path), pytest.raises(ValueError, match="Another"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_where_there_are_no_locks_nothing_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("inference.run.fcntl", None)
    with held(tmp_path), held(tmp_path):
        pass


CONFIG = TrainConfig(data="digits", preset="mnist", epochs=3, classes=[1, 2], model=tiny())
OTHERS = {
    "data": "mnist", "classes": [1], "preset": "fast", "learning_rate": 0.5, "warmup": 3,
    "schedule": "constant",
    "clip": 2.0, "elbo": "Trace_ELBO", "kl_weight": 0.5, "kl_warmup": 0.5, "depth_growth": 0.5,
    "drawings": 2, "jitter": 0.1, "turned": True, "binarize": True, "seed": 1, "start": "there",
    "learn": "guide",
}  # fmt: skip
FREE = {
    "epochs": 4, "checkpoint_minutes": 2.0, "data_root": "there", "batch_size": 32,
    "recompute_levels": 1, "accelerator": "cpu", "devices": "2", "num_nodes": 2,
    "strategy": "ddp", "precision": "bf16-mixed", "minutes": 5.0,
}  # fmt: skip


@pytest.fixture
def begun(tmp_path):
    """A run's folder as training leaves it."""
    notes = {k: v for k, v in asdict(CONFIG).items() if k not in NOT_KEPT}
    save(RNP(CONFIG.model), tmp_path, {"training": notes})
    return str(tmp_path)


def test_each_field_may_change_as_a_run_goes_on_or_may_not():
    assert {*OTHERS, *FREE, *NOT_KEPT} == {f.name for f in fields(TrainConfig)}
    assert set(MAY_CHANGE) == set(FREE)


@pytest.mark.parametrize("name", OTHERS, ids="--{}".format)
def test_a_run_goes_on_as_it_was_trained(begun, name):
    more = {"start": "there"} if name == "learn" else {}  # which a guide alone needs
    changed = replace(CONFIG, resume=begun, **{name: OTHERS[name]}, **more)
    with pytest.raises(ValueError, match=f"was trained with .*--start {begun} in place") as raised:
        run_folder(changed)
    said = str(raised.value)
    assert f"{name} {getattr(CONFIG, name)}, not {OTHERS[name]}" in said
    assert f"leave out {', '.join(f'--{changed}' for changed in [*more, name])};" in said


def test_how_long_where_and_how_fast_may_change(begun):
    for name, value in FREE.items():
        changes = {name: value, **({"epochs": None} if name == "minutes" else {})}
        assert run_folder(replace(CONFIG, resume=begun, **changes)) == Path(begun)
    model = replace(CONFIG.model, sigma=0.3, steps=(3, 2))
    with pytest.raises(ValueError, match=r"with steps \(2, 2\), not \(3, 2\); sigma 0.5, not 0.3"):
        run_folder(replace(CONFIG, resume=begun, model=model))
