"""Checkpoints to resume from: whole or not there, each with a checksum beside it."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from inference.config import TrainConfig
from inference.data import ImageSet
from inference.data.sampler import loader
from inference.run import CHECKPOINT, PREVIOUS, Run
from inference.system import out_of_memory
from pyro_rnp import RNP
from pyro_rnp.files import write


class Damaged(ValueError):
    """A file is not what was once written."""


class Checkpoints(CheckpointIO):
    """Writes and reads checkpoints for Lightning.

    A checkpoint is the file that `torch.save` writes. Its SHA-256 stands beside it, in
    `last.ckpt.sha256`, as `sha256sum` writes it and `sha256sum -c` reads it. The checkpoint before
    it stays, as `previous.ckpt`. A crash at any moment leaves at least one of the two whole, with
    its own checksum beside it.

    Attributes:
        keep: whether the checkpoint that is there becomes the previous one at the next save. It
            must not where it was found to be damaged. True again after each save.
    """

    def __init__(self) -> None:
        self.keep = True

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint and its checksum.

        Raises:
            OSError: if there is no space or no right to write.
        """
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        new, previous = path.with_name(f"{path.name}.new"), path.with_name(PREVIOUS)
        try:
            write(new, buffer.getvalue())
            if self.keep and path.exists():  # the present checkpoint is whole until it is renamed,
                _write_checksum(previous, _checksum_beside(path))
                os.replace(path, previous)  # and from here on as the previous one
            _write_checksum(path, hashlib.sha256(buffer.getvalue()).hexdigest())
            os.replace(new, path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        self.keep = True

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; see `read`."""
        return read(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and its checksum."""
        Path(path).unlink(missing_ok=True)
        _beside(Path(path)).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """The file of a checkpoint's checksum."""
    return path.with_name(f"{path.name}.sha256")


def _checksum_beside(path: Path) -> str | None:
    """The checksum beside a checkpoint; None if there is none, as in runs of earlier versions."""
    file = _beside(path)
    return file.read_text(errors="replace").partition(" ")[0] if file.exists() else None


def _write_checksum(path: Path, checksum: str | None) -> None:
    """Write the checksum that a checkpoint is about to have; with None remove the one there."""
    if checksum is None:
        _beside(path).unlink(missing_ok=True)
    else:
        write(_beside(path), f"{checksum}  {path.name}\n".encode())


def read(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint; nothing but tensors and plain types is unpickled.

    Args:
        path: the checkpoint. Where no checksum stands beside it, the one at its end counts, which
            earlier versions wrote there; without either, the file is read as it is.
        map_location: the device for its tensors, as `torch.load` takes it.

    Raises:
        FileNotFoundError: if there is no such file.
        Damaged: if the file is not the one that its checksum is of, or, without a checksum, if
            torch cannot read it.
    """
    data, checksum = path.read_bytes(), _checksum_beside(path)
    body = data
    if checksum is None and data[-71:-64] == b"sha256:":  # earlier versions: the zip's comment
        body, checksum = data[:-71], data[-64:].decode("ascii", "replace")
    if checksum not in (None, hashlib.sha256(body).hexdigest()):
        raise Damaged(f"{path} is damaged: its checksum is not that of what was written")
    try:
        return torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except Exception as error:  # files that were cut short fail in many ways
        if checksum is not None or out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Damaged(f"{path} is damaged: {reason.partition('. ')[0].rstrip('.')}") from error


def newest_checkpoint(run: Run) -> tuple[Path, str]:
    """Find the newest checkpoint of a run that is whole.

    Returns:
        Its path, and a sentence about the last one if that is not whole.

    Raises:
        FileNotFoundError: if there is no checkpoint.
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


def set_loop_counts(batches: int, epoch: int, loop: dict[str, Any]) -> None:
    """Set the counts of Lightning's fit loop to those at the end of a batch.

    Lightning saves other counts after validation and after the last epoch, and does not go on
    rightly from all of them.

    Args:
        batches: the number of batches that have been seen.
        epoch: the number of batches in an epoch.
        loop: a checkpoint's state of the fit loop, which is changed in place.
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
    """Raise if a run that is to be resumed has nothing left to do.

    A run has ended when its metrics are those of its last checkpoint.

    Args:
        run: the run.
        config: how it is to go on.
        checkpoint: its newest checkpoint.
        train: the images that it learns from.

    Raises:
        ValueError: if the run has ended, and neither more epochs nor more minutes are asked for,
            or its patience is over and no more is asked for;
            or if it has gone through more epochs than are asked for.
    """
    state, found = read(checkpoint), run.metrics or {}
    each = config.images_per_class
    batches = loader(train, state["images_per_batch"], shuffle=True, images_per_class=each)
    done = state["batches_seen"] / len(batches)
    ended = found.get("images_seen") == state["images_seen"]
    waited = state.get("best", {}).get("waited", 0)
    if ended and config.patience is not None and waited >= config.patience:
        raise ValueError(
            f"{run.path} has ended after {waited} epochs without a better validation score; give "
            "more --patience to go on."
        )
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
    """Put back the weights of the last checkpoint that gave a finite loss and gradient.

    A last checkpoint whose weights did not is removed where there is a previous one.

    Args:
        rnp: the model.
        run: the run.
        began: the first step whose weights gave no finite loss and gradient.
    """
    for path in (run.checkpoint, run.previous_checkpoint):
        try:
            checkpoint = read(path)
        except (FileNotFoundError, Damaged):
            continue
        if checkpoint["batches_seen"] < began:
            break
        if path == run.checkpoint and run.previous_checkpoint.exists():
            Checkpoints().remove_checkpoint(path)
    prefix = "rnp."
    weights = {
        key.removeprefix(prefix): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix)
    }
    rnp.load_state_dict(weights)
