"""Training: Lightning's Trainer runs the loop, Pyro's ELBO module is the loss."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
import zipfile
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Literal

import lightning
import pyro
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from inference.allocator import keep_large_blocks
from inference.data import DataName, ImageSet, Splits, load_data
from inference.evaluation import evaluate
from inference.figures import parse_figure
from inference.outputs import unused, write_json
from pyro_rnp import RNP, RNPConfig, save
from pyro_rnp.checkpoint import load_config
from pyro_rnp.checks import check_images

ELBOS: dict[str, type[ELBO]] = {
    "Trace_ELBO": Trace_ELBO,
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
}
CHECKPOINT = "last.ckpt"
NOT_KEPT = ("model", "out", "resume")
"""Fields that a run folder does not repeat: its model stands beside them, its place is its own."""
MAX_SKIPS = 20
"""Training stops after this many skipped steps in a row: the weights no longer give gradients."""


class TrainingFailed(ValueError):
    """Training could not go on; the last good weights are saved."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train: the data, the time, the optimiser, and where the run is kept."""

    data: DataName = "digits"
    """What to learn: scikit-learn's digits (embedded), MNIST, Fashion-MNIST, Omniglot, or made
    characters with known parts."""
    data_root: str | None = None
    """Folder laid out as torchvision does it (MNIST/raw/...); by default ./data."""
    preset: Literal["fast", "mnist", "fashion", "omniglot"] = "fast"
    """The model to start from; --model.* changes single fields of it. "fast" is meant
    for a CPU, the others are the paper's."""
    epochs: int | None = None
    """Passes through the training images; the learning rate falls to zero over them."""
    minutes: float | None = None
    """Train for so long instead. With neither, 4 minutes."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 1e-3
    """Adam's step size at its peak."""
    warmup: int = 100
    """Steps in which the learning rate rises to its peak."""
    clip: float = 10.0
    """Largest norm of a gradient (in nats per image); a larger one is scaled down."""
    elbo: Literal["Trace_ELBO", "TraceMeanField_ELBO"] = "TraceMeanField_ELBO"
    """Pyro's estimator of the objective; the mean-field one has the KL in closed form."""
    seed: int = 0
    """Seed of the weights, the data order and the posterior samples."""
    out: str | None = None
    """Run folder to make; None is runs/<data>-<preset>-<date and time>."""
    resume: str | None = None
    """Run folder to go on with, under its own configuration;
    --epochs or --minutes extend it."""
    accelerator: str = "auto"
    """Lightning's accelerator: "auto" takes CUDA where there is one."""
    devices: str = "1"
    """Lightning's devices: how many, or which."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Lightning's precision; bf16-mixed is for CUDA."""
    model: RNPConfig = field(default_factory=lambda: RNPConfig.preset("fast"))
    """The program."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minutes", "batch_size", "learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value}.")
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, got {self.warmup}.")
        if self.out is not None and self.resume is not None:
            raise ValueError("out and resume exclude each other; a run goes on in its own folder.")
        if self.epochs is not None and self.minutes is not None:
            raise ValueError("epochs and minutes exclude each other; give one.")

    @property
    def duration(self) -> timedelta | None:
        """Time to train for; None where epochs are given."""
        if self.epochs is not None:
            return None
        return timedelta(minutes=4 if self.minutes is None else self.minutes)


class Training(lightning.LightningModule):
    """One RNP under training: the loss, the schedule, and a watch for steps that are not finite."""

    def __init__(self, rnp: RNP, config: TrainConfig, timer: Timer) -> None:
        super().__init__()
        self.rnp, self.config, self.timer = rnp, config, timer
        self.elbo = ELBOS[config.elbo]()(rnp.model, rnp.guide)
        self.images_seen = self.skipped_steps = self.skipped_in_a_row = 0
        self.first_skip: int | None = None
        self.loss = torch.tensor(0.0)
        self.good: list[Tensor] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        # Pyro's own checks stop at the first value that is not finite; here such steps are skipped.
        with pyro.validation_enabled(False):
            loss = self.elbo(batch) / len(batch)
        self.images_seen += len(batch) * self.trainer.world_size
        self.loss = loss.detach()
        self.log("loss", self.loss, prog_bar=True)
        self.log("minutes", self.timer.time_elapsed() / 60, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        data = ImageSet(batch, torch.zeros(len(batch), dtype=torch.long))
        with pyro.validation_enabled(False):
            scores = evaluate(self.rnp, data)
        for name in ("sse", "sse_mean", "kl", "elbo"):
            self.log(
                f"val_{name}",
                scores[name],
                prog_bar=name == "sse",
                batch_size=len(batch),
                sync_dist=True,
            )
        self.log("images_seen", float(self.images_seen))
        self.log("seconds", self.timer.time_elapsed())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.rnp.parameters(), lr=self.config.learning_rate, fused=True)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        rate = self.config.learning_rate * schedule(
            self.global_step, self.config.warmup, self._progress()
        )
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate

    def _progress(self) -> float:
        """The share of training that is done, 0 to 1."""
        if self.config.duration is None:
            return self.global_step / float(self.trainer.estimated_stepping_batches)
        return self.timer.time_elapsed() / self.config.duration.total_seconds()

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the gradient; where it or the loss is not finite, drop it: nothing changes.

        Weights that gave a finite loss and gradient are kept until the next that do.
        """
        parameters: list[Tensor] = list(self.rnp.parameters())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
        if bool(norm.isfinite() & self.loss.isfinite()):
            self.skipped_in_a_row = 0
            self.good = self.good or [torch.empty_like(p) for p in parameters]
            with torch.no_grad():
                torch._foreach_copy_(self.good, parameters)
            return
        optimizer.zero_grad(set_to_none=True)  # Adam passes over parameters without a gradient
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row == 1:
            self.first_skip = self.global_step
        self.print(
            f"Step {self.global_step}: the loss or gradient is not finite ({self.loss.item():g}, "
            f"norm {norm.item():g}); not applied, {self.skipped_steps} so far."
        )
        if self.skipped_in_a_row >= MAX_SKIPS:
            self.trainer.should_stop = True

    def restore_good(self) -> None:
        """Go back to the last weights that gave a finite loss and gradient."""
        if self.good:
            with torch.no_grad():
                torch._foreach_copy_(list(self.rnp.parameters()), self.good)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["images_seen"] = self.images_seen
        checkpoint["skipped_steps"] = self.skipped_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.images_seen = checkpoint["images_seen"]
        self.skipped_steps = checkpoint["skipped_steps"]


def schedule(step: int, warmup: int, progress: float) -> float:
    """Factor on the learning rate: a linear rise over `warmup` steps, then a half cosine to 0.

    >>> schedule(0, 100, 0.0), schedule(1000, 100, 0.5)
    (0.01, 0.5)
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class _Batches(Dataset[Tensor]):
    """Whole batches by a list of indices: one gather instead of one call an image."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __getitem__(self, indices: list[int]) -> Tensor:
        return self.images[indices]

    def __len__(self) -> int:
        return len(self.images)


def loader(images: ImageSet, batch_size: int, shuffle: bool) -> DataLoader[Tensor]:
    """Batches (N, C, H, W); when shuffled, whole batches only, in another order every epoch."""
    data = _Batches(images.images)
    order = RandomSampler(data) if shuffle else SequentialSampler(data)
    size = min(batch_size, len(data))
    sampler = BatchSampler(order, size, drop_last=shuffle)
    return DataLoader(data, sampler=sampler, batch_size=None)


class _SaveWeights(Callback):
    """Keep `model.safetensors` of the run folder at the last validated weights."""

    def __init__(self, folder: Path, notes: dict[str, Any]) -> None:
        self.folder, self.notes = folder, notes

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, Training)
        if trainer.is_global_zero and pl_module.skipped_in_a_row == 0:
            save(pl_module.rnp, self.folder, self.notes)


class _Bar(TQDMProgressBar):
    """Lightning's progress bar without the version of its log."""

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        return {k: v for k, v in super().get_metrics(*args).items() if k != "v_num"}


def train(config: TrainConfig) -> Path:
    """Train an RNP and leave a run folder: model, metrics, a picture, and a checkpoint.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the run folder exists already and is not resumed.
        FileNotFoundError: if there is nothing to resume, or the data are not there.
        ValueError: if the model does not fit the data, the folder to resume holds another, or
            Lightning cannot have the device or the epochs that are asked for.
        TrainingFailed: if `MAX_SKIPS` steps in a row had to be skipped; the last weights that
            gave a finite loss and gradient are saved.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep_large_blocks()
    splits = load_data(config.data, config.data_root)
    check_images(splits.train.images, config.model)
    folder = _folder(config)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    module = Training(RNP(config.model), config, Timer(config.duration))
    notes = {"training": {k: v for k, v in asdict(config).items() if k not in NOT_KEPT}}
    try:
        trainer = _trainer(module, folder, notes)
        if config.resume is None:
            save(module.rnp, folder, notes)
        _fit(trainer, module, splits, None if config.resume is None else folder / CHECKPOINT)
    except MisconfigurationException as error:
        raise ValueError(_sentence(error)) from error
    failed = module.skipped_in_a_row >= MAX_SKIPS
    if failed:
        module.restore_good()
    trainer.save_checkpoint(folder / CHECKPOINT, weights_only=False)
    save(module.rnp, folder, notes)
    if failed:
        raise TrainingFailed(
            f"{MAX_SKIPS} steps in a row had no finite loss and gradient, the first at step "
            f"{module.first_skip}; the last weights that had are in {folder}. A lower "
            "--learning_rate may help."
        )
    module.rnp.to(trainer.strategy.root_device)
    _report(module, splits.test, folder)
    return folder


def _trainer(module: Training, folder: Path, notes: dict[str, Any]) -> lightning.Trainer:
    """Lightning's Trainer, with curves beside those of earlier parts of the run."""
    config, curves = module.config, "curves"
    for i in count(2):
        if not (folder / curves).exists():
            break
        curves = f"curves-{i}"
    every_minute = ModelCheckpoint(
        folder,
        filename=Path(CHECKPOINT).stem,
        train_time_interval=timedelta(minutes=1),
        enable_version_counter=False,
    )
    return lightning.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        max_epochs=config.epochs or -1,
        callbacks=[module.timer, every_minute, _SaveWeights(folder, notes), _Bar(refresh_rate=5)],
        logger=[
            logger(folder, name="", version=curves) for logger in (CSVLogger, TensorBoardLogger)
        ],
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_model_summary=False,
    )


def _fit(
    trainer: lightning.Trainer, module: Training, splits: Splits, checkpoint: Path | None
) -> None:
    batches = loader(splits.train, module.config.batch_size, shuffle=True)
    held_out = loader(splits.validation[:1000], 500, shuffle=False)
    try:
        with warnings.catch_warnings():  # advice on data loaders and folders that does not apply
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", "Encountered NaN")  # such steps are counted here
            trainer.fit(module, batches, held_out, ckpt_path=checkpoint, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        if checkpoint is None or module.images_seen > 0:
            raise
        raise ValueError(f"{checkpoint} is damaged: {_sentence(error)}") from error


def _report(module: Training, test: ImageSet, folder: Path) -> None:
    """Write `metrics.json` and `parse.png`."""
    rnp, seconds = module.rnp, module.timer.time_elapsed()
    metrics = {f"test_{k}": v for k, v in evaluate(rnp, test).items()} | {
        "images_seen": module.images_seen,
        "seconds": seconds,
        "images_per_second": module.images_seen / seconds,
        "skipped_steps": module.skipped_steps,
        "parameters": sum(p.numel() for p in rnp.parameters()),
    }
    write_json(folder / "metrics.json", metrics)
    images = test.images[:12]
    with torch.no_grad():
        parse_figure(rnp.parse(images.to(rnp.device)), folder / "parse.png", images)


def _folder(config: TrainConfig) -> Path:
    """Where the new run folder will be, or the one to resume after a look at what it holds."""
    if config.resume is not None:
        folder = Path(config.resume)
        if load_config(folder)[0] != config.model:
            raise ValueError(
                f"{folder} is of another architecture than the one asked for; "
                "resume it without --model."
            )
        if not (folder / CHECKPOINT).is_file():
            raise FileNotFoundError(f"{folder} holds no {CHECKPOINT} to resume from.")
        return folder
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = config.out or f"runs/{config.data}-{config.preset}-{stamp}"
    return unused(name, hint=f", or go on with --resume {name}")


def _sentence(error: Exception) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())[:300]
