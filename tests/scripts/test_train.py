"""Training by its script."""

import subprocess
import sys

from inference.run import Run
from tests.scripts.helpers import SCRIPTS, SMALL, refused


def test_train(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, SCRIPTS / "train.py", "--out", folder, "--epochs=1"]
    ran = subprocess.run(
        [*command, "--batch_size=600", *SMALL], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "Look at the parse" in ran.stdout
    assert "metrics.json, on the test images of digits:" in ran.stdout
    assert "Warning" not in ran.stderr, ran.stderr
    assert {"config.json", "metrics.json", "parse.png"} <= {p.name for p in folder.iterdir()}


def test_a_run_that_another_process_trains_is_left_alone(monkeypatch, capsys, run_folder):
    with Run(run_folder).lock():
        how = ("--resume", run_folder, "--epochs=2")
        assert "Another process is training" in refused(monkeypatch, capsys, "train.py", *how)
