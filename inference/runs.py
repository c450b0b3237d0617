"""Runs of `scripts/train.py` by other commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference import recipe
from inference.cli import train_config
from inference.recipe import training_of


def finish(command: Sequence[str]) -> None:
    """Run a command to its end; one that is interrupted has all the time that it takes to save."""
    with subprocess.Popen(command) as process:
        try:
            process.wait()
        except KeyboardInterrupt:  # which the terminal sent to both
            process.wait()
            raise


def trained(folder: Path, flags: Sequence[str], script: Path) -> dict[str, Any]:
    """The metrics of a run with these flags, which is made or gone on with if it has not ended.

    Args:
        script: `scripts/train.py`.

    Raises:
        ValueError: if it does not end, or what is there was made with other flags.
    """
    if folder.exists() and recipe.flags(training_of(folder)) != recipe.flags(train_config(flags)):
        raise ValueError(
            f"{folder} holds a run that was made with other flags "
            f"({' '.join(recipe.flags(training_of(folder)))}); name another --out or delete it."
        )
    metrics = folder / "metrics.json"
    if not metrics.exists():
        print(f"{' '.join(flags)}: {folder}", flush=True)
        place = ["--resume", str(folder)] if folder.exists() else [*flags, "--out", str(folder)]
        finish([sys.executable, str(script), *place])
        if not metrics.exists():
            raise ValueError(f"The run {folder} did not end; what it said is above.")
    return json.loads(metrics.read_text())
