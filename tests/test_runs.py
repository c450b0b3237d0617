"""Runs of other scripts: what an interruption leaves them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from inference.runs import finish

SLOW = """
import signal, sys, time
def stop(*_):
    time.sleep(1)  # as a run that writes its checkpoint
    open(sys.argv[1], "w").write("saved")
    sys.exit()
signal.signal(signal.SIGINT, stop)
open(sys.argv[1] + ".ready", "w").close()
time.sleep(60)
"""


def test_a_run_that_is_interrupted_has_time_to_save(tmp_path, monkeypatch):
    started, start = [], subprocess.Popen.__init__

    def note(self, *args, **kwargs):
        start(self, *args, **kwargs)
        started.append(self)

    monkeypatch.setattr(subprocess.Popen, "__init__", note)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored

    def interrupt():  # as Ctrl-C does, which reaches both processes
        while not (tmp_path / "saved.ready").exists():
            time.sleep(0.05)
        started[0].send_signal(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            finish([sys.executable, "-c", SLOW, str(tmp_path / "saved")])
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "saved").read_text() == "saved"
