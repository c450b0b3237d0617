"""Calls of scripts within this process."""

import runpy
import sys
from pathlib import Path

import pytest

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
