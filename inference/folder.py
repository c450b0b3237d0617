"""A run's folder: where it is, what a run leaves there, and the way back to weights that worked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from inference.data import ImageSet
from inference.evaluation import evaluate
from inference.figures import parse_figure
from inference.outputs import unused, write_json
from inference.provenance import hardware
from inference.resume import CHECKPOINT, PREVIOUS, Damaged, read
from inference.settings import TrainConfig
from pyro_rnp import RNP
from pyro_rnp.checkpoint import load_config

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def run_folder(config: TrainConfig) -> Path:
    """Where the new run folder will be, or the one to resume after a look at what it holds."""
    if config.resume is not None:
        folder = Path(config.resume)
        if load_config(folder)[0] != config.model:
            raise ValueError(
                f"{folder} is of another architecture than the one asked for; "
                "resume it without --model."
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
    write_json(folder / "metrics.json", metrics)
    images = test.images[:12]
    with torch.no_grad():
        parse_figure(rnp.parse(images.to(rnp.device)), folder / "parse.png", images)
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
