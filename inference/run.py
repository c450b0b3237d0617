"""A run's folder: its files by name, its configuration and results, and the lock on it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from inference.config import MAY_CHANGE, TrainConfig, present_names, read_data
from inference.data import MEMORY, Splits
from inference.data.datasets import absolute, is_path
from inference.outputs import new_folder, unused_folder, write_json
from pyro_rnp import RNP, RNPConfig, load
from pyro_rnp import save as save_model
from pyro_rnp.checkpoint import CONFIG, WEIGHTS, find, load_config, load_weights
from pyro_rnp.checkpoint import save_config as save_model_config

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NOT_KEPT = ("model", "out", "resume")
"""Fields of `TrainConfig` that `config.json` does not hold under `training`: the model stands
beside them, and the folder knows its own place."""
METRICS, LOG, PICTURE, CURVE = "metrics.json", "log.txt", "parse.png", "curve.json"
CHECKPOINT, PREVIOUS = "last.ckpt", "previous.ckpt"
STARTED, IMAGES = "started", "images"


class Run:
    """One run folder, or the folder of shipped weights.

    Each attribute reads the folder when it is used and keeps nothing in memory. All other code
    takes the files of a run from here.

    - `config.json`: `config`, `model_config`, `training`, `notes`, `started`, `images`, and
      `data` and `data_name`, the data set that it names
    - `model.safetensors`: `load`, `load_weights`, `fingerprint`, `save`
    - `metrics.json`, written last, when a run has ended: `metrics`, `ended`, `write_metrics`
    - `curves/`, `curves-2/`, ... (shipped weights: `curve.json`): `curve`, `plot`,
      `new_curves`
    - `last.ckpt` and `previous.ckpt`: `checkpoint`, `previous_checkpoint`, `has_checkpoint`
    - `log.txt`: `log`
    - `parse.png`: `picture`
    - the folder itself: `path`, `make`, `lock`

    Args:
        run: a run folder, which need not exist yet, or the name of shipped weights.
        shipped: whether `run` may be the name of shipped weights; a folder of that name that holds
            a `config.json` comes first. Where a run is to be written, it may not.

    Example:
        >>> Run("mnist").config.epochs
        28
    """

    def __init__(self, run: str | Path, shipped: bool = True) -> None:
        self.path = find(run) if shipped else Path(run)
        self._given = run  # as a message names it
        self._images: dict[str, Any] = {}  # as `record` found them
        self.objects: dict[str, Any] = {}
        """Pieces that `inference.fit` was given as objects, by field; `load` takes copies."""

    @classmethod
    def create(cls, config: TrainConfig, check: bool = True) -> Run:
        """Choose the folder of a new run: `config.out`, or a name with the date and time.

        The folder is not made yet; `make` makes it.

        Args:
            config: how the run is to be trained; `out`, `data` and `preset` name its folder.
            check: whether to look if that folder exists; of several processes one does.

        Returns:
            The run, whose folder does not exist yet.

        Raises:
            FileExistsError: if something has that name already.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        data = Path(config.data).stem if is_path(config.data) else config.data
        data = re.sub(r"[^\w.-]+", "-", data)
        name = config.out or f"runs/{data}-{config.preset}-{stamp}"
        if check:
            unused_folder(name, hint=f", or go on with --resume {name}")
        return cls(name, shipped=False)

    @classmethod
    def resume(cls, config: TrainConfig) -> Run:
        """Find the run that `config.resume` names, and compare how it was trained with `config`.

        Raises:
            FileNotFoundError: if there is no run in that folder.
            ValueError: if `config` differs from the run's own in a field that is none of
                `inference.config.MAY_CHANGE`, or if the folder does not tell how it was trained.
        """
        run = cls(str(config.resume), shipped=False)
        before, changed = run.config, {}
        free = [*MAY_CHANGE, *NOT_KEPT]
        if MEMORY in (config.data, before.data) or (is_path(before.data) and is_path(config.data)):
            free.append("data")  # files may have moved; `record` compares what they hold
        pairs: list[tuple[Any, Any, list[str]]] = [
            (before, config, free),
            (before.model, config.model, []),
        ]
        for old, new, free in pairs:
            for name in (f.name for f in fields(new) if f.name not in free):
                if getattr(old, name) != getattr(new, name):
                    changed[name] = f"{name} {getattr(old, name)}, not {getattr(new, name)}"
        if changed:
            raise ValueError(
                f"{run.path} was trained with {'; '.join(changed.values())}: to go on, leave out "
                f"{', '.join(f'--{name}' for name in changed)}; for a new run with its weights, "
                f"give --start {run.path} in place of --resume."
            )
        return run

    def make(self) -> None:
        """Make the folder.

        Raises:
            FileExistsError: if something has that name already.
        """
        new_folder(self.path)

    # Model and configuration -------------------------------------------------------------------

    @property
    def model_config(self) -> RNPConfig:
        """The configuration of the model.

        Raises:
            FileNotFoundError, ValueError: as `pyro_rnp.checkpoint.load_config`, like each
                attribute that reads `config.json`.
        """
        return load_config(self.path)[0]

    @property
    def notes(self) -> dict[str, Any]:
        """Everything in `config.json` beside the model."""
        return load_config(self.path)[1]

    @property
    def training(self) -> dict[str, Any]:
        """The fields of `TrainConfig` that `config.json` holds, by their present names."""
        return present_names(self.notes.get("training", {}))

    @property
    def config(self) -> TrainConfig:
        """The configuration that the model was trained under.

        Fields that this version does not know are left out.

        Raises:
            ValueError: also if the folder does not tell how its model was trained.
        """
        known = {f.name for f in fields(TrainConfig)}
        training = {name: value for name, value in self.training.items() if name in known}
        if "data" not in training:
            raise ValueError(f"{self._given} does not say how its model was trained.")
        return TrainConfig(**{**training, "model": self.model_config})

    @property
    def started(self) -> str | None:
        """The `fingerprint` of the run whose weights this one began with, if it began with any."""
        return self.notes.get(STARTED)

    def save(self, rnp: RNP, config: TrainConfig, started: str | None = None) -> None:
        """Write the weights, and `config.json` as `save_config` does.

        Args:
            rnp: the model.
            config: how it is trained.
            started: the `fingerprint` of the run that it began with, if any.
        """
        save_model(rnp, self.path, self._notes(config, started))

    def save_config(self, config: TrainConfig, started: str | None = None) -> None:
        """Write `config.json`: the model's configuration and how it is trained.

        Args:
            config: how the model is trained.
            started: the `fingerprint` of the run that it began with, if any.
        """
        save_model_config(config.model, self.path, self._notes(config, started))

    def _notes(self, config: TrainConfig, started: str | None) -> dict[str, Any]:
        """The entries of `config.json` beside the model."""
        kept = {name: value for name, value in asdict(config).items() if name not in NOT_KEPT}
        found: dict[str, Any] = {"training": kept}
        if self._images:
            found[IMAGES] = self._images
        return found if started is None else found | {STARTED: started}

    # Data and weights --------------------------------------------------------------------------

    @property
    def images(self) -> dict[str, Any]:
        """What `config.json` says of the images that the model learned from, of all classes.

        `counts` of the three splits; `shape` (C, H, W); `fingerprint`, twelve digits that change
        with any image, None of data sets by name; and `inverted`, whether dark and light of all
        were swapped, None where that was decided image by image. Empty of runs of earlier versions.
        """
        return self.notes.get(IMAGES, {})

    @property
    def inverted(self) -> bool | None:
        """Whether training swapped dark and light of all images or of none, where that is known
        and the images had no polarity of their own; None where each is decided by itself.
        """
        found = self.images.get("inverted")
        chosen = self.training.get("invert", "auto")
        return chosen if found is None and chosen != "auto" else found

    def record(self, config: TrainConfig, splits: Splits, again: str) -> None:
        """Note which images the run learns from, for the next time `config.json` is written.

        Args:
            config: how it is trained; `resume` says whether it goes on.
            splits: the images, of all classes.
            again: how to resume the run, as the message says it.

        Raises:
            ValueError: if the run goes on, and the images are not those that it has learned from.
        """
        counts = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
        self._images = {
            "counts": counts,
            "shape": list(splits.train.pixels.shape[1:]),
            "fingerprint": splits.fingerprint,
            "inverted": splits.inverted,
        }
        before = self.images if config.resume is not None else {}
        if _changed(before, splits):
            where = "" if config.data == MEMORY else f" in {config.data}"
            raise ValueError(
                f"The images{where} are not those that {self.path} has learned from "
                f"({_difference(before, counts)}): to go on, give those; for a new run with its "
                f"weights, give {again.replace('resume', 'start')}."
            )

    @property
    def data_name(self) -> str:
        """The name of the data set that the model was trained on.

        Raises:
            ValueError: also if the folder does not tell.
        """
        name = self.training.get("data")
        if name is None:
            raise ValueError(
                f"{self._given} does not say what its model was trained on; give --data."
            )
        return name

    def data(self, name: Any = None, root: str | Path | None = None) -> Splits:
        """Load the data set that the model was trained on, as it was read in training.

        All classes are there, also where the model was trained on some of them. A note on stderr
        says if the files have changed since.

        Args:
            name: other images instead, as `inference.data.load_data` takes them: a name, a path, or
                images in memory. They are brought to the model's size and channels, and binarized
                if those of training were.
            root: the folder of the data, if they are not where they were in training.

        Returns:
            The training, validation and test split.

        Raises:
            FileNotFoundError, ValueError: as `data_name` and `inference.data.load_data`.
        """
        source = self.data_name if name is None else name
        training = self.training if root is None else {**self.training, "data_root": str(root)}
        splits = read_data(source, training, self.model_config, self.images.get("inverted"))
        own = isinstance(source, str) and absolute(source) == absolute(training.get("data", ""))
        if own and _changed(self.images, splits):
            counts = {n: len(getattr(splits, n)) for n in ("train", "validation", "test")}
            print(
                f"note: the images in {source} have changed since {self._given} learned from them "
                f"({_difference(self.images, counts)}).",
                file=sys.stderr,
            )
        return splits

    def load(self, guide: Any = None, **pieces: Any) -> RNP:
        """Load the model, in evaluation mode, on the CPU; see `pyro_rnp.load`.

        Args:
            guide: a guide in place of the run's, as `refined:steps=50`; by default the run's own.
            pieces: other pieces, as `prior=MyPrior()`; those that were given as objects in training
                have to be given again, but to the run that `inference.fit` returned; or
                `masked_guide=True`.

        Raises:
            FileNotFoundError, ValueError, TypeError: as `pyro_rnp.load`.
        """
        objects = {field: deepcopy(piece) for field, piece in self.objects.items()}
        given = {"guide": guide, **pieces}
        return load(self.path, **objects | {k: v for k, v in given.items() if v is not None})

    def load_weights(self, rnp: RNP, partial: bool = False) -> tuple[list[str], list[str]]:
        """Put the run's weights into a model; see `pyro_rnp.checkpoint.load_weights`.

        Args:
            rnp: a model of the same architecture, or with `partial` of another.
            partial: whether to take what fits.

        Returns:
            The names of the model's tensors that are not in the run, and of the run's that the
            model has not.

        Raises:
            FileNotFoundError, ValueError: as `pyro_rnp.checkpoint.load_weights`.
        """
        return load_weights(rnp, self.path / WEIGHTS, partial)

    @property
    def fingerprint(self) -> str:
        """The first twelve hexadecimal digits of the SHA-256 of the file of weights."""
        return hashlib.sha256((self.path / WEIGHTS).read_bytes()).hexdigest()[:12]

    # Progress and results ----------------------------------------------------------------------

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The content of `metrics.json`; None if the run has not ended."""
        path = self.metrics_path
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def metrics_path(self) -> Path:
        """The path of the metrics, which need not be there yet."""
        return self.path / METRICS

    @classmethod
    def ended_in(cls, folder: Path) -> list[Run]:
        """The runs in a folder that have ended, by name."""
        return [cls(file.parent, shipped=False) for file in sorted(folder.glob(f"*/{METRICS}"))]

    def describe(self, to: Path, notes: dict[str, Any], **more: Any) -> None:
        """Write `config.json`, `metrics.json` and `curve.json` of the run to another folder.

        Args:
            to: the other folder, made if it is not there.
            notes: everything that its `config.json` is to hold beside the model.
            more: values to write beside the run's metrics.
        """
        made = {
            CONFIG: {"model": self.model_config.to_dict(), **notes},
            METRICS: {**(self.metrics or {}), **more},
            CURVE: self.curve,
        }
        to.mkdir(parents=True, exist_ok=True)
        for name, value in made.items():
            write_json(to / name, value)

    @property
    def ended(self) -> bool:
        """Whether the run has ended, which is so once it has its metrics."""
        return self.metrics_path.exists()

    def write_metrics(self, metrics: dict[str, Any]) -> Path:
        """Write `metrics.json`, with which the run has ended.

        Args:
            metrics: JSON types by name, as `images_seen`, `seconds` and the scores `test_...`.

        Returns:
            The path of the file.
        """
        write_json(self.metrics_path, metrics)
        return self.metrics_path

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The scores of the validation images after each epoch, over all parts of the run.

        Each row has `epoch` (how many epochs were done, counting one that was begun),
        `images_seen`, `seconds`, and those of `val_sse`, `val_sse_mean`, `val_kl` (nats) and
        `val_elbo` (nats) that the model has.

        Raises:
            FileNotFoundError: if the folder holds no curves.
        """

        def number(path: Path) -> int:
            return int(path.parent.name.partition("-")[2] or 1)

        if (self.path / CURVE).exists():
            return json.loads((self.path / CURVE).read_text())
        files = sorted(self.path.glob("curves*/metrics.csv"), key=number)
        if not files:
            raise FileNotFoundError(f"{self.path} holds no curves.")
        rows: dict[float, dict[str, Any]] = {}
        for file in files:
            with file.open(newline="") as lines:
                for line in csv.DictReader(lines):
                    if not line.get("val_sse"):
                        continue
                    kept = ("images_seen", "seconds")
                    names = [n for n in line if n.startswith("val_") or n in kept]
                    row = {n: float(line[n]) for n in names if line[n]}
                    rows[row["images_seen"]] = {"epoch": int(line["epoch"]) + 1, **row}
        return [rows[seen] for seen in sorted(rows)]

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Draw the learning curves; see `inference.plotting.learning_figure`.

        Args:
            path: a .png, .svg or .pdf file to write; None writes nothing.
            options: as `learning_figure` takes them, such as `width`.

        Returns:
            A matplotlib figure, which a notebook shows.

        Raises:
            FileNotFoundError: if the folder holds no curves.
        """
        from inference.plotting import learning_figure

        return learning_figure(self, path, **options)

    def __repr__(self) -> str:
        metrics = self.metrics or {}
        names = ("images_seen", "test_sse", "test_elbo")
        scores = "".join(f", {n}={metrics[n]:.4g}" for n in names if n in metrics)
        return f"Run({str(self.path)!r}{scores or ', not ended'})"

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the text and the learning curves."""
        from pyro_rnp.plotting import html

        return html(repr(self), self.plot)

    def new_curves(self) -> str:
        """Return the first name for a folder of curves that is free: `curves`, `curves-2`, ..."""
        name, number = "curves", 1
        while (self.path / name).exists():
            number += 1
            name = f"curves-{number}"
        return name

    @property
    def checkpoint(self) -> Path:
        """The path of the last checkpoint, from which the run can be resumed."""
        return self.path / CHECKPOINT

    @property
    def previous_checkpoint(self) -> Path:
        """The path of the checkpoint before the last."""
        return self.path / PREVIOUS

    @property
    def has_checkpoint(self) -> bool:
        """Whether either checkpoint is there, so that there is something to resume."""
        return self.checkpoint.exists() or self.previous_checkpoint.exists()

    @property
    def picture(self) -> Path:
        """The path of the picture of parsed test images."""
        return self.path / PICTURE

    def log(self, sentence: str) -> None:
        """Add a line to `log.txt`: the date and time, and a sentence.

        Args:
            sentence: the sentence, without a line break.
        """
        with (self.path / LOG).open("a") as file:
            file.write(f"{datetime.now().isoformat(timespec='seconds')} {sentence}\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder, so that no other process trains in it meanwhile.

        Where the system or the file system has no locks, nothing is locked.

        Raises:
            ValueError: if another process has locked it.
        """
        if fcntl is None:
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                raise ValueError(
                    f"Another process is training in {self.path}; let it end or stop it first."
                ) from error
            yield  # a file system without locks
            return
        try:
            yield
        finally:
            os.close(handle)


def _changed(before: dict[str, Any], splits: Splits) -> bool:
    """Whether images are other than those of a record, as far as both have fingerprints."""
    pair = (before.get("fingerprint"), splits.fingerprint)
    return None not in pair and pair[0] != pair[1]


def _difference(before: dict[str, Any], counts: dict[str, int]) -> str:
    then, now = sum(before["counts"].values()), sum(counts.values())
    return f"{then} images then, {now} now" if then != now else f"{now} images, some of them others"
