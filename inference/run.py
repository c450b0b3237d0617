"""A run's folder: where it is, who holds it, and the configuration and curve that it keeps."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from inference.config import MAY_CHANGE, TrainConfig
from inference.outputs import unused
from pyro_rnp.checkpoint import WEIGHTS, find, load_config

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NOT_KEPT = ("model", "out", "resume")
"""Fields that a run folder does not repeat: its model stands beside them, its place is its own."""

CURVE = "curve.json"
"""The curve of a shipped model."""

STARTED = "started"
"""The note of a run folder that says with which weights another run let it begin."""


def run_folder(config: TrainConfig) -> Path:
    """Where the new run folder will be, or the one to resume after a look at what it holds.

    Raises:
        FileExistsError: if there is something where the new one is to be.
        FileNotFoundError: if there is no run to resume.
        ValueError: if that one was trained otherwise than it is to go on, but for `MAY_CHANGE`.
    """
    if config.resume is not None:
        folder = Path(config.resume)
        before, changed = training_of(folder), {}
        pairs = ((before, config, (*MAY_CHANGE, *NOT_KEPT)), (before.model, config.model, ()))
        for old, new, free in pairs:
            for name in (f.name for f in fields(new) if f.name not in free):
                if getattr(old, name) != getattr(new, name):
                    changed[name] = f"{name} {getattr(old, name)}, not {getattr(new, name)}"
        if changed:
            raise ValueError(
                f"{folder} was trained with {'; '.join(changed.values())}: to go on, leave out "
                f"{', '.join(f'--{name}' for name in changed)}; for a new run with its weights, "
                f"give --start {folder} in place of --resume."
            )
        return folder
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = config.out or f"runs/{config.data}-{config.preset}-{stamp}"
    if getattr(rank_zero_only, "rank", 0) > 0:  # another process makes it
        return Path(name)
    return unused(name, hint=f", or go on with --resume {name}")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder, where the system can, so that no other process trains there.

    Raises:
        ValueError: if one does.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise ValueError(
                f"Another process is training in {folder}; let it end or stop it first."
            ) from error
        yield  # a file system without locks
        return
    try:
        yield
    finally:
        os.close(handle)


def training_of(run: str | Path) -> TrainConfig:
    """The configuration that a run folder's model was trained under.

    Raises:
        FileNotFoundError, ValueError: as `pyro_rnp.checkpoint.load_config`; ValueError also if the
            folder says nothing of its training.
    """
    model, notes = load_config(run)
    known = {f.name for f in fields(TrainConfig)}
    training = {k: v for k, v in notes.get("training", {}).items() if k in known}
    if "data" not in training:
        raise ValueError(f"{run} does not say how its model was trained.")
    return TrainConfig(**{**training, "model": model})


def curve(run: str | Path) -> list[dict[str, Any]]:
    """What validation gave after each epoch, over all parts of a run, or of a shipped model.

    Returns:
        Rows with `epoch` (how many were done; the last may be a part of one), `images_seen`,
        `seconds`, and `val_sse`, `val_sse_mean`, `val_kl`, `val_elbo` as far as there are any.

    Raises:
        FileNotFoundError: if the folder holds no curves.
    """

    def number(path: Path) -> int:
        return int(path.parent.name.partition("-")[2] or 1)

    if (Path(run) / CURVE).exists():
        return json.loads((Path(run) / CURVE).read_text())
    files = sorted(Path(run).glob("curves*/metrics.csv"), key=number)
    if not files:
        raise FileNotFoundError(f"{run} holds no curves.")
    rows: dict[float, dict[str, Any]] = {}
    for file in files:
        with file.open(newline="") as lines:
            for line in csv.DictReader(lines):
                if not line.get("val_sse"):
                    continue
                names = [n for n in line if n.startswith("val_") or n in ("images_seen", "seconds")]
                row = {n: float(line[n]) for n in names if line[n]}
                rows[row["images_seen"]] = {"epoch": int(line["epoch"]) + 1, **row}
    return [rows[seen] for seen in sorted(rows)]


def fingerprint(run: str | Path) -> str:
    """Twelve digits of the SHA-256 of a run's, or a shipped model's, file of weights."""
    return hashlib.sha256((find(run) / WEIGHTS).read_bytes()).hexdigest()[:12]
