"""Runs of other scripts: what an interruption leaves them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from inference.reproduction import trainings as runs
from inference.reproduction.trainings import finish, trained
from inference.run import fingerprint
from inference.system import Interrupted
from pyro_rnp import RNP, save
from tests.conftest import tiny

SLOW = """
import signal, sys, time
def stop(*_):
    time.sleep(1)  # as a run that writes its checkpoint
    open(sys.argv[1], "w").write("saved")
    sys.exit()
signal.signal(int(sys.argv[2]), stop)
open(sys.argv[1] + ".ready", "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_has_time_to_save(tmp_path, monkeypatch, number):
    started, start = [], subprocess.Popen.__init__

    def note(self, *args, **kwargs):
        start(self, *args, **kwargs)
        started.append(self)

    monkeypatch.setattr(subprocess.Popen, "__init__", note)

    def interrupt():
        while not (tmp_path / "saved.ready").exists():
            time.sleep(0.05)
        if number == signal.SIGINT:  # as Ctrl-C, which reaches both processes
            started[0].send_signal(number)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Interrupted) as stopped:
            finish([sys.executable, "-c", SLOW, str(tmp_path / "saved"), str(int(number))])
    finally:
        thread.join()
    assert (tmp_path / "saved").read_text() == "saved"
    assert stopped.value.signal_number == number


def test_what_a_command_prints_and_how_it_ends():
    ran = finish([sys.executable, "-c", "print('said'); exit(3)"], stdout=subprocess.PIPE)
    assert (ran.stdout, ran.returncode) == ("said\n", 3)


def test_a_run_without_a_checkpoint_is_begun_anew_and_one_with_is_gone_on_with(
    tmp_path, monkeypatch
):
    asked, folder = [], tmp_path / "run"

    def finish(command):
        asked.append(command[2:])
        folder.mkdir(exist_ok=True)
        save(RNP(tiny()), folder, {"training": {"data": "digits"}})
        if len(asked) == 2:
            (folder / "last.ckpt").touch()
        if len(asked) == 3:
            (folder / "metrics.json").write_text("{}")

    monkeypatch.setattr(runs, "finish", finish)
    monkeypatch.setattr(runs.recipe, "flags", lambda config: [])
    for _ in range(2):
        with pytest.raises(ValueError, match="did not end"):
            trained(folder, ["--epochs=1"], tmp_path / "train.py")
    assert trained(folder, ["--epochs=1"], tmp_path / "train.py") == {}
    new = ["--epochs=1", "--out", str(folder)]
    assert asked == [new, new, ["--resume", str(folder)]]


def test_a_run_that_began_with_other_weights_is_not_taken_for_one_that_did_not(
    tmp_path, monkeypatch
):
    first, tuned = tmp_path / "first", tmp_path / "tuned"
    model = tiny()
    save(RNP(model), first, {"training": {"data": "digits"}})
    notes = {"training": {"data": "digits"}, "started": fingerprint(first)}
    save(RNP(model), tuned, notes)
    (tuned / "metrics.json").write_text("{}")
    monkeypatch.setattr(runs.recipe, "flags", lambda config: [])
    flags = [f"--start={first}"]
    assert trained(tuned, flags, tmp_path / "train.py") == {}
    save(RNP(model), first)  # other weights
    with pytest.raises(ValueError, match="does not say that it began"):
        trained(tuned, flags, tmp_path / "train.py")
