"""Several processes: the same training as one with a larger batch, and the loss of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inference.training.checkpoints import read
from pyro_rnp import load

ROOT = Path(__file__).parents[2]


def several(folder, processes, dies_at=-1):
    """Start a training; `ended` waits for it."""
    # As a module: the folder of a script would come first, in which `inference` are its tests.
    command = [sys.executable, "-m", "tests.several", str(folder), str(processes), str(dies_at)]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, **streams)


def ended(process):
    """The exit status of a training, and what it said on stderr."""
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def losses(path):
    return [float(line) for line in path.read_text().splitlines()]


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path):
    both = [several(tmp_path / name, processes) for name, processes in (("one", 1), ("two", 2))]
    for process in both:
        code, said = ended(process)
        assert code == 0, said
    one = losses(tmp_path / "one-0")
    two = [sum(pair) / 2 for pair in zip(*(losses(tmp_path / f"two-{r}") for r in (0, 1)))]  # noqa: B905
    assert len(one) == 8
    assert one[-1] < one[0]
    assert two == pytest.approx(one, rel=1e-9)
    weights = load(tmp_path / "one").state_dict()
    for name, value in load(tmp_path / "two").state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-6, atol=1e-7)
    assert read(tmp_path / "two" / "last.ckpt")["images_seen"] == 128


def test_a_process_that_is_lost_ends_the_run_with_one_sentence(tmp_path):
    code, text = ended(several(tmp_path / "two", 2, dies_at=3))
    assert code == 2, text
    (said,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert "Another of the 2 processes was lost" in said
    assert f"The last good state is in {tmp_path / 'two'}" in said
    assert "Traceback" not in text
    assert read(tmp_path / "two" / "last.ckpt")["global_step"] == 0
