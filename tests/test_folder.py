"""Run folders: one process at a time."""

import subprocess
import sys

import pytest

from inference.folder import held

HOLD = """
import sys
from pathlib import Path
from inference.folder import held
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
    monkeypatch.setattr("inference.folder.fcntl", None)
    with held(tmp_path), held(tmp_path):
        pass
