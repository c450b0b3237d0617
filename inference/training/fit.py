"""Training a model: the run folder, Lightning's trainer, and the results at the end."""

from __future__ import annotations

import errno
import logging
import signal
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import (
    MisconfigurationException,
    SIGTERMException,
)
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from inference.config import TrainConfig
from inference.data import ImageSet, load_data
from inference.data.augmentation import rotate_classes
from inference.evaluation.metrics import baselines, evaluate
from inference.isolation import isolated
from inference.objectives import OBJECTIVES, check
from inference.plotting import parse_figure
from inference.run import Run
from inference.system import Interrupted, hardware, keep_large_blocks, listening, out_of_memory
from inference.training.callbacks import (
    AdaptThreads,
    Diagnose,
    KeepCheckpoints,
    Progress,
    ProgressBar,
    ReportSkipped,
    stopped,
)
from inference.training.checkpoints import Checkpoints, check_unended, newest_checkpoint, restore
from inference.training.diagnostics import verdict
from inference.training.module import LOOK_EVERY, Training
from pyro_rnp import RNP


class TrainingFailed(ValueError):
    """Training could not go on; the last good weights are saved."""


@isolated()
def train(config: TrainConfig) -> Path | None:
    """Train a model and leave a run folder: model, metrics, a picture, a log, and a checkpoint.

    Args:
        config: the data, the time, the objective and the model; `config.resume` names a run to go
            on with, `config.start` one whose weights to begin with.

    Returns:
        The run folder, as `inference.Run` reads it; None in all but the first of several processes.

    Raises:
        FileExistsError: if the run folder exists already and is not resumed.
        FileNotFoundError: if there is nothing to resume, or the data are not there.
        ValueError: if the model does not fit the data, the folder to resume holds another run,
            one that has ended or nothing that works, or Lightning cannot provide the device or
            the epochs of the configuration.
        TrainingFailed: if `MAX_SKIPS` steps in a row had to be skipped, memory was not enough, or
            another process was lost; the last good weights are saved.
        OSError: if the disk is full; the last good state is on it.
        Interrupted: if SIGINT or SIGTERM came; a checkpoint is saved.

    Example:
        `train(TrainConfig(data="digits", minutes=1, out="runs/digits"))` trains the default model
        for a minute; `pyro_rnp.load("runs/digits")` then loads it.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep_large_blocks(config.recompute_levels == 0)
    if config.resume is None:
        run = Run.create(config, check=getattr(rank_zero_only, "rank", 0) == 0)
        checkpoint, sentence = None, ""
    else:
        run = Run.resume(config)
        checkpoint, sentence = newest_checkpoint(run)
    splits = load_data(config.data, config.data_root, config.binarize, config.classes)
    upright = splits.train
    if config.rotated_classes:
        splits = replace(splits, train=rotate_classes(splits.train))
    if checkpoint is not None:
        check_unended(run, config, checkpoint, splits.train)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    with listening() as stop, ExitStack() as until_the_end:
        rnp, started = RNP(config.model), None
        if config.start is not None and config.resume is None:
            first = Run(config.start)
            first.load_weights(rnp)
            started = first.fingerprint
        elif config.start is not None:
            started = run.started
        rnp.check(splits.train.images)
        each = config.images_per_class
        check(OBJECTIVES.make(config.objective), rnp, splits.train[:each].images, each)
        rnp.model.requires_grad_(config.learn == "all")
        module = Training(rnp, config, splits, Timer(config.duration), run)
        progress = Progress(baselines(splits.validation.images, upright), sentence)
        report = ReportSkipped()
        callbacks = [
            module.timer,
            ProgressBar(),
            progress,
            report,
            Diagnose(),
            AdaptThreads(progress),
            KeepCheckpoints(run, stop, report, started),
        ]
        trainer = _trainer(config, run, callbacks, keep=not sentence)
        if trainer.is_global_zero and checkpoint is None:
            run.make()  # another run may have taken the name since
            until_the_end.enter_context(run.lock())
            run.save(rnp, config, started)
        elif trainer.is_global_zero:
            until_the_end.enter_context(run.lock())
            run.save_config(config, started)  # as this part of the run is trained
        _fit(trainer, module, checkpoint)
        module.skipped.read()
        diverged = module.has_diverged()
        if not diverged:
            trainer.save_checkpoint(run.checkpoint, weights_only=False)
    if not trainer.is_global_zero:
        return None
    if diverged:
        restore(rnp, run, module.skipped.began)
    run.save(rnp, config, started)
    if diverged:
        raise TrainingFailed(
            f"The last {module.skipped.in_a_row} steps had no finite loss and gradient, the first "
            f"of them step {module.skipped.began}; the last weights that had are in {run.path}. A "
            "lower --learning_rate may help."
        )
    rnp.to(trainer.strategy.root_device)
    seconds = module.timer.time_elapsed()
    counts = {
        "images_seen": module.images_seen,
        "seconds": seconds,
        "images_per_second": module.images_seen / seconds,
        "skipped_steps": module.skipped.total,
    }
    module.note(verdict(write_results(rnp, splits.test, upright, run, counts)))
    return run.path


def _trainer(
    config: TrainConfig, run: Run, callbacks: list[Callback], keep: bool
) -> lightning.Trainer:
    """Lightning's trainer, with curves beside those of earlier parts of the run.

    Args:
        config: how to train.
        run: the run folder.
        callbacks: in the order in which they are called.
        keep: whether the last checkpoint is whole, so that it may become the previous one.

    Raises:
        ValueError: if Lightning cannot provide the devices, precision or epochs of `config`.
    """
    checkpoints = Checkpoints()
    checkpoints.keep = keep
    curves = run.new_curves()
    try:
        trainer = lightning.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=config.precision,
            max_epochs=config.epochs or -1,
            callbacks=callbacks,
            logger=[
                logger(run.path, name="", version=curves)
                for logger in (CSVLogger, TensorBoardLogger)
            ],
            plugins=[checkpoints],
            use_distributed_sampler=False,  # `loader` gives each process its part
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            log_every_n_steps=LOOK_EVERY,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(_one_line(error)) from error
    if config.depth_growth and trainer.world_size > 1 and "find_unused" not in config.strategy:
        raise ValueError(
            "With --depth_growth not all levels learn at first; for several processes that takes "
            "--strategy ddp_find_unused_parameters_true."
        )
    return trainer


def _fit(trainer: lightning.Trainer, module: Training, checkpoint: Path | None) -> None:
    """Train, and tell in a sentence what ended training before its time."""
    folder = module.run.path
    try:
        with warnings.catch_warnings():  # advice on data loaders and folders that does not apply
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", "Encountered NaN")  # such steps are counted here
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise ValueError(_one_line(error)) from error
    except SIGTERMException as error:  # before the first step
        raise Interrupted(stopped(module.run), signal.SIGTERM) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sentence = f"The disk is full; free some and go on with --resume {folder}"
            raise OSError(error.errno, sentence) from error
        raise
    except (RuntimeError, MemoryError) as error:
        reason = _fatal(error, trainer, module.config)
        if reason is None:
            raise
        raise TrainingFailed(f"{reason} The last good state is in {folder}.") from error


def _fatal(error: Exception, trainer: lightning.Trainer, config: TrainConfig) -> str | None:
    """The sentence on an error that no code could have avoided; None if it is another error."""
    text = str(error)
    if out_of_memory(error):
        return (
            f"Memory is not enough for batches of {config.batch_size}: take a smaller "
            "--batch_size, or --recompute_levels 1."
        )
    if trainer.world_size > 1 and any(
        words in text.lower() for words in ("gloo", "nccl", "connection", "socket")
    ):
        return f"Another of the {trainer.world_size} processes was lost ({_one_line(error)})."
    return None


def _one_line(error: Exception) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())[:300]


def write_results(
    rnp: RNP, test: ImageSet, train: ImageSet, run: Run, counts: dict[str, Any]
) -> dict[str, Any]:
    """Score a trained model and write `metrics.json` and `parse.png` into its run folder.

    Args:
        rnp: the model.
        test: the images to score; the first twelve are shown.
        train: the images whose mean image is scored beside the model.
        run: the run folder.
        counts: of training (images, seconds, skipped steps), which join the metrics.

    Returns:
        What `metrics.json` holds.
    """
    rnp.model.recursion.levels = rnp.config.depth
    metrics = {f"test_{k}": v for k, v in evaluate(rnp, test, train=train).items()} | {
        **counts,
        "parameters": sum(p.numel() for p in rnp.parameters()),
        "hardware": hardware(rnp.device),
    }
    images = test[:12].images
    with torch.no_grad():
        parse_figure(rnp.parse(images.to(rnp.device)), run.picture, images)
    run.write_metrics(metrics)  # last: with it a run has ended
    return metrics
