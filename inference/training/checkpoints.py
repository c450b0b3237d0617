"""Checkpoints to resume from: atomic, with a checksum, and the last good one beside them."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from inference.config import TrainConfig
from inference.data import ImageSet
from inference.data.sampler import loader
from inference.run import CHECKPOINT, PREVIOUS, Run
from pyro_rnp import RNP
from pyro_rnp.files import write

_MARK = b"sha256:"


class Damaged(ValueError):
    """A file is not what was once written."""


class Checkpoints(CheckpointIO):
    """How Lightning writes and reads checkpoints.

    A checkpoint is what `torch.save` writes, with its SHA-256 as the comment of the zip archive.
    The one that was there before stays as `PREVIOUS`, unless it was found to be damaged.
    """

    def __init__(self) -> None:
        self.keep = True

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint, whole or not at all."""
        path = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write(path, _sealed(buffer.getvalue()), path.with_name(PREVIOUS) if self.keep else None)
        self.keep = True

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See `read`."""
        return read(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _sealed(archive: bytes) -> bytes:
    """A zip archive that ends without a comment, with its checksum as the comment."""
    size = len(_MARK) + 64
    body = archive[:-2] + struct.pack("<H", size)
    return body + _MARK + hashlib.sha256(body).hexdigest().encode()


def read(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint; nothing but tensors and plain types is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        Damaged: if it is not what was written.
    """
    data = path.read_bytes()
    body, mark, digest = data[: -len(_MARK) - 64], data[-len(_MARK) - 64 : -64], data[-64:]
    if mark != _MARK or hashlib.sha256(body).hexdigest().encode() != digest:
        raise Damaged(f"{path} is damaged: its checksum is not that of what was written")
    return torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)


def newest(run: Run) -> tuple[Path, str]:
    """The newest checkpoint of a run folder that is whole, and what to say if it is not the last.

    Raises:
        FileNotFoundError: if there is none.
        Damaged: if none is whole.
    """
    last, previous = run.checkpoint, run.previous_checkpoint
    if not run.has_checkpoint:
        raise FileNotFoundError(f"{run.path} holds no {CHECKPOINT} to resume from.")
    try:
        read(last)
        return last, ""
    except FileNotFoundError:
        problem = f"{last} is not there"
    except Damaged as error:
        problem = str(error)
    try:
        step = read(previous)["global_step"]
    except (FileNotFoundError, Damaged):
        raise Damaged(f"{problem}, and no older checkpoint works.") from None
    return previous, f"{problem}; going on from the older {previous}, step {step}, which works."


def at_the_end_of_batch(batches: int, epoch: int, loop: dict[str, Any]) -> None:
    """Set the counts of Lightning's loop to where it saves at the end of a batch.

    Where else it was saved (after validation, after the last epoch) they differ, and not every
    such place is one to go on from.

    Args:
        batches: how many have been seen.
        epoch: batches in an epoch.
        loop: what a checkpoint holds of the fit loop, changed in place.
    """
    epochs, here = divmod(batches - 1, epoch)

    def counts(begun: int, ended: int, processed: int) -> dict[str, int]:
        return {"ready": begun, "started": begun, "processed": processed, "completed": ended}

    loop["epoch_progress"] |= {
        kind: counts(epochs + 1, epochs, epochs) for kind in ("total", "current")
    }
    loop["epoch_loop.batch_progress"] |= {
        "total": counts(batches, batches - 1, batches),
        "current": counts(here + 1, here, here + 1),
        "is_last_batch": here + 1 == epoch,
    }
    loop["epoch_loop.val_loop.batch_progress"] |= {
        kind: counts(0, 0, 0) for kind in ("total", "current")
    }


def check_unended(run: Run, config: TrainConfig, checkpoint: Path, train: ImageSet) -> None:
    """Raise if nothing is left to do of a run that is to go on.

    A run has ended when its metrics are those of its last checkpoint.

    Args:
        run: the run.
        config: how it is to go on.
        checkpoint: one of its checkpoints.
        train: the images that it learns from.

    Raises:
        ValueError: if the run has ended, and neither more epochs nor more minutes are asked for;
            or if it has gone through more epochs than are asked for.
    """
    state, found = read(checkpoint), run.metrics or {}
    batches = loader(
        train, state["images_per_batch"], shuffle=True, images_per_class=config.images_per_class
    )
    done = state["batches_seen"] / len(batches)
    ended = found.get("images_seen") == state["images_seen"]
    if config.duration is not None:
        over = ended and config.duration.total_seconds() <= found["seconds"]
    else:
        over = config.epochs <= done if ended else config.epochs < done
    if over:
        took = f" in {found['seconds'] / 60:.3g} minutes, and has ended" if ended else ""
        raise ValueError(
            f"{run.path} has gone through {done:.3g} epochs already{took}; give more "
            "--epochs, or more --minutes, to go on."
        )


def restore(rnp: RNP, run: Run, began: int) -> None:
    """Go back to the last checkpoint whose weights gave a finite loss and gradient.

    Args:
        began: the first step whose weights did not.
    """
    for path in (run.checkpoint, run.previous_checkpoint):
        try:
            checkpoint = read(path)
        except (FileNotFoundError, Damaged):
            continue
        if checkpoint["batches_seen"] < began:
            break
        if path == run.checkpoint and run.previous_checkpoint.exists():
            path.unlink()  # its weights are those that failed
    prefix = "rnp."
    weights = {
        key.removeprefix(prefix): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix)
    }
    rnp.load_state_dict(weights)
