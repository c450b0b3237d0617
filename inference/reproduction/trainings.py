"""Runs of `scripts/train.py` by other commands."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.cli import train_config
from inference.reproduction import recipes as recipe
from inference.run import STARTED, fingerprint, held, training_of
from inference.system import Interrupted, listening
from inference.training.checkpoints import CHECKPOINT, PREVIOUS
from pyro_rnp.checkpoint import load_config


def finish(command: Sequence[str], stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; one that is interrupted has all the time that it takes to save.

    Args:
        stdout: `subprocess.PIPE` to have what it prints.

    Raises:
        Interrupted: if SIGINT came, which a terminal sends to both, or SIGTERM, which is passed on.
    """
    with subprocess.Popen(command, stdout=stdout, text=True) as process:

        def tell(number: int) -> None:
            if number != signal.SIGINT:
                process.send_signal(number)

        with listening(tell) as stop:
            said = process.communicate()[0]
    if stop.number:
        raise Interrupted("Stopped.", stop.number)
    return subprocess.CompletedProcess(command, process.returncode, said)


def trained(folder: Path, flags: Sequence[str], script: Path) -> dict[str, Any]:
    """The metrics of a run with these flags, which is made or gone on with if it has not ended.

    What holds no checkpoint yet is begun anew.

    Args:
        script: `scripts/train.py`.

    Raises:
        ValueError: if it does not end, or what is there was made with other flags or began with
            other weights, or is being made by another process.
    """
    start = train_config(flags).start
    if folder.exists() and recipe.flags(training_of(folder)) != recipe.flags(train_config(flags)):
        raise ValueError(
            f"{folder} holds a run that was made with other flags "
            f"({' '.join(recipe.flags(training_of(folder)))}); name another --out or delete it."
        )
    notes = load_config(folder)[1] if folder.exists() else {}
    if notes and start is not None and notes.get(STARTED) != fingerprint(start):
        raise ValueError(
            f"{folder} does not say that it began with the weights that {start} has now; delete it "
            "to begin anew."
        )
    metrics = folder / "metrics.json"
    if not metrics.exists():
        print(f"{' '.join(flags)}: {folder}", flush=True)
        place = ["--resume", str(folder)]
        if not any((folder / name).exists() for name in (CHECKPOINT, PREVIOUS)):
            if folder.exists():  # it was killed before it had done anything
                with held(folder):
                    shutil.rmtree(folder)
            place = [*flags, "--out", str(folder)]
        finish([sys.executable, str(script), *place])
        if not metrics.exists():
            raise ValueError(f"The run {folder} did not end; what it said is above.")
    return json.loads(metrics.read_text())
