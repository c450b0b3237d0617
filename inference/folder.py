"""A run's folder: where it is, what a run leaves there, and the way back to weights that worked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from inference.batches import loader
from inference.data import ImageSet
from inference.evaluation import evaluate
from inference.figures import parse_figure
from inference.outputs import unused, write_json
from inference.provenance import hardware
from inference.recipe import training_of
from inference.resume import CHECKPOINT, PREVIOUS, Damaged, read
from inference.settings import MAY_CHANGE, TrainConfig
from pyro_rnp import RNP

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NOT_KEPT = ("model", "out", "resume")
"""Fields that a run folder does not repeat: its model stands beside them, its place is its own."""


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


def check_unended(config: TrainConfig, checkpoint: Path, train: ImageSet) -> None:
    """Raise if nothing is left to do of a run that is to go on.

    A run has ended when its metrics are those of its last checkpoint.

    Args:
        checkpoint: in the folder of the run.
        train: what it learns from.

    Raises:
        ValueError: if the run has ended, and neither more epochs nor more minutes are asked for;
            or if it has gone through more epochs than are asked for.
    """
    state, metrics = read(checkpoint), checkpoint.with_name("metrics.json")
    batches = loader(train, state["images_per_batch"], shuffle=True, drawings=config.drawings)
    done = state["batches_seen"] / len(batches)
    found = json.loads(metrics.read_text()) if metrics.exists() else {}
    ended = found.get("images_seen") == state["images_seen"]
    if config.duration is not None:
        over = ended and config.duration.total_seconds() <= found["seconds"]
    else:
        over = config.epochs <= done if ended else config.epochs < done
    if over:
        took = f" in {found['seconds'] / 60:.3g} minutes, and has ended" if ended else ""
        raise ValueError(
            f"{checkpoint.parent} has gone through {done:.3g} epochs already{took}; give more "
            "--epochs, or more --minutes, to go on."
        )


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


def leave(
    rnp: RNP, test: ImageSet, train: ImageSet, folder: Path, counts: dict[str, Any]
) -> dict[str, Any]:
    """Write `metrics.json` and `parse.png`.

    Args:
        test: images to score and to show.
        train: those whose mean image is scored beside the model.
        counts: of training, for `metrics.json` too.

    Returns:
        What `metrics.json` holds.
    """
    rnp.model.recursion.levels = rnp.config.depth
    metrics = {f"test_{k}": v for k, v in evaluate(rnp, test, train=train).items()} | {
        **counts,
        "parameters": sum(p.numel() for p in rnp.parameters()),
        "hardware": hardware(rnp.device),
    }
    images = test.images[:12]
    with torch.no_grad():
        parse_figure(rnp.parse(images.to(rnp.device)), folder / "parse.png", images)
    write_json(folder / "metrics.json", metrics)  # last: with it a run has ended
    return metrics


def restore(rnp: RNP, folder: Path, began: int) -> None:
    """Go back to the last checkpoint whose weights gave a finite loss and gradient.

    Args:
        began: the first step whose weights did not.
    """
    for name in (CHECKPOINT, PREVIOUS):
        try:
            checkpoint = read(folder / name)
        except (FileNotFoundError, Damaged):
            continue
        if checkpoint["batches_seen"] < began:
            break
        if name == CHECKPOINT and (folder / PREVIOUS).exists():
            (folder / name).unlink()  # its weights are those that failed
    prefix = "rnp."
    weights = {
        key.removeprefix(prefix): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix)
    }
    rnp.load_state_dict(weights)
