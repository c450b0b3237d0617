"""Training: Lightning's Trainer runs the loop, Pyro's ELBO module is the loss."""

from __future__ import annotations

import errno
import logging
import signal
import time
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pyro
import torch
from lightning.pytorch.callbacks import Timer, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import (
    MisconfigurationException,
    SIGTERMException,
)
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader

from inference.config import TrainConfig
from inference.data import ImageSet, Splits, load_data
from inference.data.augmentation import jitter, rotate_classes
from inference.data.sampler import loader
from inference.evaluation.metrics import baselines, evaluate
from inference.isolation import isolated
from inference.objectives import OBJECTIVES, check, loss
from inference.plotting import parse_figure
from inference.run import Run
from inference.system import (
    Interrupted,
    StopSignal,
    hardware,
    keep_large_blocks,
    listening,
    out_of_memory,
)
from inference.training.checkpoints import (
    Checkpoints,
    at_the_end_of_batch,
    check_unended,
    newest,
    restore,
)
from inference.training.diagnostics import Watch, verdict
from inference.training.schedules import Skips, grown, schedule
from inference.training.threads import Threads
from pyro_rnp import RNP

MAX_SKIPS = 20
"""Training stops after this many skipped steps in a row: the weights no longer give gradients."""
LOOK_EVERY = 10
"""Steps between two looks at what the device has counted; a look waits for the device."""
WATCH_EVERY = 100
"""Steps between two looks of the watch on learning."""


class TrainingFailed(ValueError):
    """Training could not go on; the last good weights are saved."""


class Training(lightning.LightningModule):
    """One RNP under training: the loss, the schedule, and a watch over both.

    What is drawn at a step depends on the seed, the step and the process alone, and the order of
    the images on the seed and the epoch: a run that goes on from a checkpoint needs no more than
    its weights, the optimiser's state and its counts to go on as if it had never stopped.
    """

    def __init__(
        self,
        rnp: RNP,
        config: TrainConfig,
        splits: Splits,
        timer: Timer,
        run: Run,
        stop: StopSignal,
        started: str | None,
    ) -> None:
        super().__init__()
        self.rnp, self.config, self.splits = rnp, config, splits
        self.timer, self.run, self.stop, self.started = timer, run, stop, started
        self.objective = OBJECTIVES.make(config.objective)
        rnp.model.recursion.recompute_levels = config.recompute_levels
        self.sentence = ""
        """What to say at the start of a run that goes on, if not the usual."""
        self.without: dict[str, float] = {}
        """Squared error of validation images without a model, to hold `val_sse` against."""
        self.watch = Watch()
        self.threads = Threads(torch.get_num_threads(), torch.set_num_threads)
        self.batches_seen = self.images_seen = 0
        self.kl_weight = config.kl_weight
        self.elapsed = 0.0
        self.skips = Skips()

    def say(self, sentence: str) -> None:
        """One line on the screen and in the run's log."""
        self.print(sentence)
        self.note(sentence)

    def note(self, sentence: str) -> None:
        """One line in the run's log."""
        if self.trainer.is_global_zero:
            self.run.log(sentence)

    def train_dataloader(self) -> DataLoader[Tensor]:
        return loader(
            self.splits.train,
            self.config.batch_size,
            shuffle=True,
            seed=self.config.seed,
            done=self.batches_seen,
            images_per_class=self.config.images_per_class,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        return loader(self.splits.validation[:1000], 500, shuffle=False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.config.jitter:
            batch = jitter(batch, self.config.jitter)
        found = self._loss(batch)
        self.loss = found.detach()
        self.log("loss", self.loss, prog_bar=True)
        if self.batches_seen % LOOK_EVERY == 0:
            self.log("minutes", self.timer.time_elapsed() / 60, prog_bar=True)
        return found

    def _loss(self, batch: Tensor) -> Tensor:
        """The objective of an image, in nats."""
        # Pyro's own checks stop at the first value that is not finite; here such steps are skipped.
        with pyro.validation_enabled(False):
            found = loss(
                self.objective, self.rnp, batch, self.kl_weight, self.config.images_per_class
            )
        return found / len(batch)

    def _trial(self, batch: Tensor) -> float:
        """Seconds that the loss and its gradient take; nothing learns, and the random state stays.

        Args:
            batch: images of the last step, (N, C, H, W).
        """
        learning, began = self._learning(), time.perf_counter()
        with torch.random.fork_rng([]), torch.enable_grad():
            torch.autograd.grad(self._loss(batch), learning, allow_unused=True)
        return time.perf_counter() - began

    def _learning(self) -> list[torch.nn.Parameter]:
        return [p for p in self.rnp.parameters() if p.requires_grad]

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        data = ImageSet(batch, torch.zeros(len(batch), dtype=torch.long))
        with pyro.validation_enabled(False):
            scores = evaluate(self.rnp, data)
        for name in ("sse", "sse_mean", "kl", "elbo"):  # in one order for all processes
            if name not in scores:
                continue
            self.log(
                f"val_{name}",
                scores[name],
                prog_bar=name == "sse",
                batch_size=len(batch),
                sync_dist=True,
            )
        self.log("images_seen", float(self.images_seen), sync_dist=True)
        self.log("seconds", self.timer.time_elapsed(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self._learning(), lr=self.config.learning_rate, fused=True)

    def on_train_start(self) -> None:
        self.skips.to(self.device)
        if self.config.resume is not None:
            self.say(self.sentence or f"Going on from step {self.batches_seen}.")
        mean_image, blank = self.without["sse_mean_image"], self.without["sse_blank"]
        self.say(
            f"Without a model, val_sse is {mean_image:.1f} by the mean training image and "
            f"{blank:.1f} by a blank canvas."
        )
        self.stop.listen()  # Lightning has set handlers of its own
        if self.config.resume is None:
            self.trainer.save_checkpoint(self.run.checkpoint, weights_only=False)
        self.saved = time.monotonic()

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        numbers = [self.config.seed, self.batches_seen, self.trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
        config, progress = self.config, self._progress()
        factor = schedule(self.batches_seen, config.warmup, progress, config.schedule)
        rate = config.learning_rate * factor
        self.kl_weight = config.kl_weight * grown(progress, config.kl_warmup)
        depth = config.model.depth
        self.rnp.model.recursion.levels = max(
            1, min(depth, 1 + int((depth - 1) * grown(progress, config.depth_growth)))
        )
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate
        self.step_began = time.perf_counter()

    def _progress(self) -> float:
        """The share of training that is done, 0 to 1."""
        if self.config.duration is None:
            return self.batches_seen / float(self.trainer.estimated_stepping_batches)
        if self.trainer.world_size > 1:  # one clock for all processes
            if self.batches_seen % LOOK_EVERY == 0 or not self.elapsed:
                self.elapsed = self.trainer.strategy.broadcast(self.timer.time_elapsed())
        else:
            self.elapsed = self.timer.time_elapsed()
        return self.elapsed / self.config.duration.total_seconds()

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the gradient; where it or the loss is not finite, Adam passes over the step.

        All of it happens on the device, which nothing here waits for.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.rnp.parameters(), self.config.clip)
        bad = ~(norm.isfinite() & self.loss.isfinite())
        bad = self.trainer.strategy.reduce(bad.float()) > 0  # of any of several processes
        optimizer.found_inf = bad.float()
        self.skips.count(bad, self.batches_seen)

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        seconds = time.perf_counter() - self.step_began
        self.batches_seen += 1
        self.images_seen += len(batch) * self.trainer.world_size
        step = self.batches_seen
        if step % LOOK_EVERY == 0 or self.trainer.is_last_batch:
            self.look()
        if step % WATCH_EVERY == 0 and not self.skips.in_a_row:
            for sentence in self.watch.look(self.rnp, batch[:32], step):
                self.say(sentence)
        if self.device.type == "cpu":
            changed = self.threads.step(seconds, lambda: self._trial(batch))
            if changed:
                self.say(changed)
        self.keep()

    def keep(self) -> None:
        """Save a checkpoint where one is due or a signal asks the run to stop; then stop.

        Raises:
            Interrupted: if one does.
        """
        due = time.monotonic() - self.saved >= 60 * self.config.checkpoint_minutes
        number = self.stop.number
        if self.trainer.world_size > 1:  # all processes must agree, and need not at every step
            if self.batches_seen % LOOK_EVERY:
                return
            asked = torch.tensor([due, number > 0], device=self.device).float()
            due, stop = (self.trainer.strategy.reduce(asked) > 0).tolist()
            number = (number or signal.SIGTERM) if stop else 0
        if not (due or number):
            return
        self.look()
        if not self.skips.in_a_row:
            self.trainer.save_checkpoint(self.run.checkpoint, weights_only=False)
            if self.trainer.is_global_zero:
                self.run.save(self.rnp, self.config, self.started)
            self.saved = time.monotonic()
        if number:
            self.say(f"Stopped by {signal.Signals(number).name} after step {self.batches_seen}.")
            raise Interrupted(_stopped(self.run), number)

    def look(self) -> None:
        """Read what the device counted; say when steps began to be skipped; stop if all are."""
        before, in_a_row = self.skips.total, self.skips.in_a_row
        self.skips.read()
        if self.skips.total > before and (not in_a_row or not self.skips.in_a_row):
            self.say(
                f"Since step {self.skips.began} the loss or gradient is not finite; such steps are "
                f"not applied, {self.skips.total} so far."
            )
        if self.skips.in_a_row >= MAX_SKIPS:
            self.trainer.should_stop = True

    def lost(self) -> bool:
        """Whether the weights no longer give finite losses, once training has ended."""
        if self.skips.in_a_row in (0, MAX_SKIPS):
            return self.skips.in_a_row > 0
        images, each = self.splits.train.images, self.config.images_per_class
        some = images[: min(len(images), self.config.batch_size) // each * each]
        with torch.random.fork_rng(), torch.no_grad():
            return not bool(self._loss(some.to(self.rnp.device)).isfinite())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.skips.read()
        checkpoint["batches_seen"] = self.batches_seen
        checkpoint["images_seen"] = self.images_seen
        checkpoint["images_per_batch"] = self._images_per_batch()
        checkpoint["skips"] = self.skips.counts.cpu()
        checkpoint["watch"] = self.watch.state_dict()
        checkpoint["threads"] = self.threads.number

    def _images_per_batch(self) -> int:
        return self.trainer.world_size * self.train_dataloader().sampler.size  # type: ignore

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches_seen = checkpoint["batches_seen"]
        self.images_seen = checkpoint["images_seen"]
        if checkpoint["images_per_batch"] != self._images_per_batch():
            self.batches_seen = self.images_seen // self._images_per_batch()
        self.skips = Skips(checkpoint["skips"])
        self.watch.load_state_dict(checkpoint["watch"])
        if checkpoint.get("threads", self.threads.number) < self.threads.number:
            self.threads.take(checkpoint["threads"])
        epoch, wanted = len(self.train_dataloader()), self.config.epochs
        if wanted is not None and self.batches_seen > wanted * epoch:
            raise ValueError(
                f"{self.run.path} has gone through {self.batches_seen / epoch:.3g} epochs already; "
                "give more --epochs to go on."
            )
        if self.batches_seen:
            at_the_end_of_batch(self.batches_seen, epoch, checkpoint["loops"]["fit_loop"])


def _stopped(run: Run) -> str:
    return f"Stopped; go on with --resume {run.path}"


class _Bar(TQDMProgressBar):
    """Lightning's progress bar without the version of its log, and right where a run goes on."""

    def on_train_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        super().on_train_start(trainer, *args)
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready % self.total_train_batches
        if done:  # within an epoch, which Lightning's bar takes for one without end
            self.on_train_epoch_start(trainer)
            self.train_progress_bar.initial = self.train_progress_bar.n = done
            self.train_progress_bar.refresh()

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        return {k: v for k, v in super().get_metrics(*args).items() if k != "v_num"}


@isolated()
def train(config: TrainConfig) -> Path | None:
    """Train an RNP and leave a run folder: model, metrics, a picture, a log, and a checkpoint.

    Returns:
        The folder; None in all but the first of several processes.

    Raises:
        FileExistsError: if the run folder exists already and is not resumed.
        FileNotFoundError: if there is nothing to resume, or the data are not there.
        ValueError: if the model does not fit the data, the folder to resume holds another run,
            one that has ended or nothing that works, or Lightning cannot have the device or the
            epochs that are asked for.
        TrainingFailed: if `MAX_SKIPS` steps in a row had to be skipped, memory was not enough, or
            another process was lost; the last good weights are saved.
        OSError: if the disk is full; the last good state is on it.
        Interrupted: if SIGINT or SIGTERM came; a checkpoint is saved.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep_large_blocks(config.recompute_levels == 0)
    if config.resume is None:
        run = Run.create(config, check=getattr(rank_zero_only, "rank", 0) == 0)
        checkpoint, sentence = None, ""
    else:
        run = Run.resume(config)
        checkpoint, sentence = newest(run)
    splits = load_data(config.data, config.data_root, config.binarize, config.classes)
    upright = splits.train
    if config.rotated_classes:
        splits = replace(splits, train=rotate_classes(splits.train))
    if checkpoint is not None:
        check_unended(run, config, checkpoint, splits.train)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    started = None
    with listening() as stop, ExitStack() as until_the_end:
        rnp = RNP(config.model)
        if config.start is not None and config.resume is None:
            first = Run(config.start)
            first.load_weights(rnp)
            started = first.fingerprint
        elif config.start is not None:
            started = run.started
        rnp.check(splits.train.images)
        some = splits.train.images[: config.images_per_class]
        check(OBJECTIVES.make(config.objective), rnp, some, config.images_per_class)
        rnp.model.requires_grad_(config.learn == "all")
        module = Training(rnp, config, splits, Timer(config.duration), run, stop, started)
        module.sentence = sentence
        module.without = baselines(splits.validation.images, upright)
        try:
            trainer = _trainer(module, run, keep=not sentence)
            if trainer.is_global_zero and checkpoint is None:
                run.make()  # another run may have taken the name since
                until_the_end.enter_context(run.lock())
                run.save(module.rnp, config, started)
            elif trainer.is_global_zero:
                until_the_end.enter_context(run.lock())
                run.save_config(config, started)  # what was asked for now
            _fit(trainer, module, checkpoint)
        except (MisconfigurationException, TypeError) as error:
            if isinstance(error, TypeError) and module._trainer is not None:
                raise
            raise ValueError(_sentence(error)) from error
        module.skips.read()
        failed = module.lost()
        if not failed:
            trainer.save_checkpoint(run.checkpoint, weights_only=False)
    if not trainer.is_global_zero:
        return None
    if failed:
        restore(module.rnp, run, module.skips.began)
    run.save(module.rnp, config, started)
    if failed:
        raise TrainingFailed(
            f"The last {module.skips.in_a_row} steps had no finite loss and gradient, the first "
            f"of them step {module.skips.began}; the last weights that had are in {run.path}. A "
            "lower --learning_rate may help."
        )
    module.rnp.to(trainer.strategy.root_device)
    seconds = module.timer.time_elapsed()
    counts = {
        "images_seen": module.images_seen,
        "seconds": seconds,
        "images_per_second": module.images_seen / seconds,
        "skipped_steps": module.skips.total,
    }
    module.note(verdict(write_results(module.rnp, splits.test, upright, run, counts)))
    return run.path


def _trainer(module: Training, run: Run, keep: bool) -> lightning.Trainer:
    """Lightning's Trainer, with curves beside those of earlier parts of the run."""
    config, curves = module.config, run.new_curves()
    checkpoints = Checkpoints()
    checkpoints.keep = keep
    trainer = lightning.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=config.precision,
        max_epochs=config.epochs or -1,
        callbacks=[
            module.timer,
            _Bar(refresh_rate=LOOK_EVERY),
        ],
        logger=[
            logger(run.path, name="", version=curves) for logger in (CSVLogger, TensorBoardLogger)
        ],
        plugins=[checkpoints],
        use_distributed_sampler=False,  # `loader` gives each process its part
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=LOOK_EVERY,
        enable_model_summary=False,
    )
    if config.depth_growth and trainer.world_size > 1 and "find_unused" not in config.strategy:
        raise ValueError(
            "With --depth_growth not all levels learn at first; for several processes that takes "
            "--strategy ddp_find_unused_parameters_true."
        )
    return trainer


def _fit(trainer: lightning.Trainer, module: Training, checkpoint: Path | None) -> None:
    try:
        with warnings.catch_warnings():  # advice on data loaders and folders that does not apply
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", "Encountered NaN")  # such steps are counted here
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except SIGTERMException as error:  # before the first step
        raise Interrupted(_stopped(module.run), signal.SIGTERM) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"The disk is full; free some and go on with --resume {module.run.path}",
            ) from error
        raise
    except (RuntimeError, MemoryError) as error:
        sentence = _fatal(error, module)
        if sentence is None:
            raise
        raise TrainingFailed(f"{sentence} The last good state is in {module.run.path}.") from error


def _fatal(error: Exception, module: Training) -> str | None:
    """What to say of an error that no code could have avoided; None if it is not one."""
    text = str(error)
    if out_of_memory(error):
        return (
            f"Memory is not enough for batches of {module.config.batch_size}: take a smaller "
            "--batch_size, or --recompute_levels 1."
        )
    if module.trainer.world_size > 1 and any(
        words in text.lower() for words in ("gloo", "nccl", "connection", "socket")
    ):
        return (
            f"Another of the {module.trainer.world_size} processes was lost ({_sentence(error)})."
        )
    return None


def _sentence(error: Exception) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())[:300]


def write_results(
    rnp: RNP, test: ImageSet, train: ImageSet, run: Run, counts: dict[str, Any]
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
        parse_figure(rnp.parse(images.to(rnp.device)), run.picture, images)
    run.write_metrics(metrics)  # last: with it a run has ended
    return metrics
