"""Training a model: the run folder, Lightning's trainer, and the results at the end."""

from __future__ import annotations

import errno
import logging
import signal
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import (
    MisconfigurationException,
    SIGTERMException,
)
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from inference.config import TrainConfig, check_shape
from inference.data import ImageSet, Splits
from inference.data.augmentation import rotate_classes
from inference.data.datasets import absolute
from inference.evaluation.metrics import baselines, check_images, evaluate
from inference.isolation import isolated
from inference.objectives import OBJECTIVES, check
from inference.plotting import parse_figure
from inference.run import Run
from inference.system import (
    Interrupted,
    StopRequested,
    hardware,
    keep_large_blocks,
    listening,
    out_of_memory,
)
from inference.training.callbacks import (
    AdaptThreads,
    CallAfterValidation,
    Diagnose,
    KeepBest,
    KeepCheckpoints,
    Progress,
    ProgressBar,
    ReportSkipped,
)
from inference.training.checkpoints import (
    Checkpoints,
    check_unended,
    newest_checkpoint,
    read,
    restore,
)
from inference.training.diagnostics import verdict
from inference.training.module import LOOK_EVERY, Training
from inference.training.settings import settings
from inference.training.start import begin, freeze
from pyro_rnp import RNP, RNPConfig
from pyro_rnp.config import OBJECTS
from pyro_rnp.registry import object_text, object_type


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
    run, first = _learn(config)
    return run.path if first else None


@isolated()
def fit(
    images: Any,
    config: RNPConfig | TrainConfig | str | None = None,
    *,
    validation: Any = None,
    test: Any = None,
    out: str | Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    prior: Any = None,
    guide: Any = None,
    lower_guide: Any = None,
    likelihood: Any = None,
    placement: Any = None,
    composition: Any = None,
    start: str | Path | Run | None = None,
    resume: str | Path | Run | None = None,
    callbacks: Any = (),
    logger: Any = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Train a model on images from a script or a notebook.

    As on the command line, a run folder keeps the model, its scores, a picture, a log, the learning
    curve and a checkpoint; how well the test images are explained is printed. Nothing else of the
    process changes: random states, threads, signal handlers, warnings and Pyro's parameter store
    are as they were, also after an error. Outside of the main thread Python takes no signals, and
    neither does this function.

    Args:
        images: a tensor or an array (N, C, H, W) or (N, H, W) in [0, 1], an `ImageSet`, `Splits`,
            or all else that `inference.data.load_data` takes, as the name of a data set.
        config: the model as an `RNPConfig`, or by the name of a preset; or a `TrainConfig`. By
            default the preset fast in the size of the images, or the model of `start` or `resume`.
        validation: images to score after each epoch, as `images` are given. By default those of a
            data set's own split or of `Splits`, or else some of `images`, kept by a hash of each.
            Where they are given, no images are kept by hash, and an own split is left out and not
            learned from.
        test: images to score at the end, as `validation`.
        out: run folder to make, which must not exist; by default one in `runs/`.
        epochs: passes through the training images.
        minutes: train for this many minutes instead; with neither, 4 minutes.
        prior: p(z^K), a name as `flow`, or an object, as `RNP` takes it. This piece and those below
            are by default those of `config`. The run learns with a copy of an object, and its
            `load` needs none in this process.
        guide: q(z^K | x).
        lower_guide: the guide of random sites below the top.
        likelihood: p(x | canvas).
        placement: of parts on a canvas.
        composition: of parts that overlap.
        start: run whose model and weights to begin with, or the name of shipped weights. Where a
            piece is another, the rest is taken, and the log says what is new. Of a `Run` of this
            process, objects are taken too.
        resume: run to go on with, on the same images; `epochs` or `minutes` count from its
            beginning.
        callbacks: functions `f(run, scores)`, called after each validation with the run, whose
            folder has the present weights, and the last row of `Run.curve`; one that returns True
            ends training. Also Lightning callbacks, which come after those of this package. One or
            several; None is none.
        logger: Lightning loggers beside the run's own, which `Run.curve` reads: one or several;
            None or False is none.
        progress: whether to show a progress bar and print what is noted. The run's log has the
            notes in either case.
        options: any other field of `TrainConfig` or `RNPConfig`, as `learning_rate=5e-4` or
            `steps=(6, 3)`.

    Returns:
        The run, whose `load` gives the trained model.

    Raises:
        ValueError, FileExistsError, FileNotFoundError, TrainingFailed, OSError: as `train`.
        TypeError: if an option is no field of either configuration, or `callbacks` or `logger` are
            of another kind.
        Interrupted: if SIGINT or SIGTERM came, as by Ctrl-C or a notebook's stop button; a
            checkpoint is saved. It is a `KeyboardInterrupt`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     run = fit(torch.rand(40, 1, 8, 8), out=f"{folder}/run", epochs=1, progress=False)
        ...     run.load().sample(2).canvas.shape
        torch.Size([2, 1, 8, 8])
    """
    pieces = {
        "prior": prior,
        "guide": guide,
        "lower_guide": lower_guide,
        "likelihood": likelihood,
        "placement": placement,
        "composition": composition,
    }
    functions, loggers = _several(callbacks), _several(None if logger is False else logger)
    for f in functions:
        a_class = isinstance(f, type) and issubclass(f, Callback)
        if a_class or not (callable(f) or isinstance(f, Callback)):
            raise TypeError(f"callbacks must be functions or Lightning callbacks, got {f!r}.")
    for one in loggers:
        if not isinstance(one, Logger):
            raise TypeError(f"logger must be a Lightning logger or several, got {one!r}.")
    places = {"out": out, "start": start, "resume": resume}
    places = {
        n: str(p.path if isinstance(p, Run) else p) for n, p in places.items() if p is not None
    }
    given = {"epochs": epochs, "minutes": minutes, **pieces}
    options |= places | {name: value for name, value in given.items() if value is not None}
    config, splits = settings(images, config, validation, test, options, not progress)
    objects = {n: p for n, p in pieces.items() if p is not None and not isinstance(p, str)}
    for run in (start, resume):
        kept = run.objects if isinstance(run, Run) else {}
        own = {n: p for n, p in kept.items() if getattr(config.model, n) == object_text(p)}
        objects = own | objects
    run, first = _learn(config, splits, functions, loggers, progress, objects)
    if progress and first:
        print(verdict(run.metrics or {}))
    return run


def _several(given: Any) -> tuple[Any, ...]:
    """One or several as a tuple; None is none."""
    if given is None:
        return ()
    several = isinstance(given, Sequence) and not isinstance(given, str)
    return tuple(given) if several else (given,)


def _learn(
    config: TrainConfig,
    splits: Splits | None = None,
    callbacks: Sequence[Any] = (),
    loggers: Sequence[Logger] = (),
    progress: bool = True,
    objects: Mapping[str, Any] | None = None,
) -> tuple[Run, bool]:
    """Train as `fit` does, or without `splits` as `train` does.

    Returns:
        The run, and whether this is the first of all processes.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    root = None if config.data_root is None else str(Path(config.data_root).absolute())
    config = replace(config, data=absolute(config.data), data_root=root)
    functions = [c for c in callbacks if not isinstance(c, Callback)]
    if config.resume is None:
        run = Run.create(config, check=getattr(rank_zero_only, "rank", 0) == 0)
        checkpoint, sentence = None, ""
    else:
        run = Run.resume(config)
        checkpoint, sentence = newest_checkpoint(run)
    sound = not sentence
    run.objects = dict(objects or {})
    for field in OBJECTS:
        kind = object_type(getattr(config.model, field))
        if kind is not None and field not in run.objects:
            raise ValueError(
                f"This model's {field.replace('_', ' ')} was given as an object of {kind}; give "
                f"it: fit(..., {field}=...)."
            )
    again = f"--resume {run.path}" if splits is None else f"fit(images, resume={str(run.path)!r})"
    if splits is None:
        splits = config.load_data()
    run.record(config, splits, again)
    splits = splits if config.classes is None else splits.of(config.classes)
    upright = splits.train
    if config.rotated_classes:
        splits = replace(splits, train=rotate_classes(splits.train))
    if checkpoint is not None:
        check_unended(run, config, checkpoint, splits.train)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    with listening() as stop, ExitStack() as until_the_end:
        rnp, started = RNP(config.model, **deepcopy(run.objects)), None
        new: list[str] = []
        if config.start is not None and config.resume is None:
            first = Run(config.start)
            new, sentence = begin(rnp, first)
            started = first.fingerprint
        elif config.start is not None and checkpoint is not None:
            new, started = read(checkpoint).get("learning", []), run.started
        check_shape(config.data, upright.shape, config.model)
        check_images(rnp, upright)
        each = config.images_per_class
        check(OBJECTIVES.make(config.objective), rnp, splits.train[:each].images, each)
        freeze(rnp, config.learn, new)
        module = Training(rnp, config, splits, Timer(config.duration), run, quiet=not progress)
        counts = Progress(baselines(splits.validation, upright), sentence)
        report, keeper = ReportSkipped(), KeepBest()
        own = [
            module.timer,
            *([ProgressBar()] if progress else []),
            counts,
            report,
            Diagnose(),
            AdaptThreads(counts),
            keeper,
            CallAfterValidation(run, functions, started),
            KeepCheckpoints(run, stop, report, started),
            *(c for c in callbacks if isinstance(c, Callback)),
        ]
        trainer = _trainer(config, run, own, loggers, keep=sound)
        if trainer.is_global_zero and checkpoint is None:
            run.make()  # another run may have taken the name since
            until_the_end.enter_context(run.lock())
            run.save(rnp, config, started)
        elif trainer.is_global_zero:
            until_the_end.enter_context(run.lock())
            run.save_config(config, started)  # as this part of the run is trained
        keep_large_blocks(config.recompute_levels == 0)  # for steps alone, as what is kept scatters
        _fit(trainer, module, checkpoint, again)
        keep_large_blocks(False)
        module.skipped.read()
        diverged = module.has_diverged()
        if not diverged:
            trainer.save_checkpoint(run.checkpoint, weights_only=False)
    if not trainer.is_global_zero:
        return run, False
    if diverged:
        restore(rnp, run, module.skipped.began)
    elif keeper.best:
        rnp.load_state_dict(keeper.best["weights"])
        at = f"epoch {keeper.best['epoch']}"
        module.say(f"The weights are those of {at}, whose validation score is the best.")
    run.save(rnp, config, started)
    if diverged:
        raise TrainingFailed(
            f"The last {module.skipped.in_a_row} steps had no finite loss and gradient, the first "
            f"of them step {module.skipped.began}; the last weights that had are in {run.path}. A "
            "lower --learning_rate may help."
        )
    rnp.to(trainer.strategy.root_device)
    seconds = module.timer.time_elapsed()
    done = {
        "images_seen": module.images_seen,
        "seconds": seconds,
        "images_per_second": module.images_seen / seconds,
        "skipped_steps": module.skipped.total,
        **({"best_epoch": keeper.best["epoch"]} if keeper.best else {}),
    }
    module.note(verdict(write_results(rnp, splits.test, upright, run, done)))
    return run, True


def _trainer(
    config: TrainConfig,
    run: Run,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    keep: bool,
) -> lightning.Trainer:
    """Lightning's trainer, with curves beside those of earlier parts of the run.

    Args:
        config: how to train.
        run: the run folder.
        callbacks: in the order in which they are called.
        loggers: further ones beside the run's own.
        keep: whether the last checkpoint is whole, so that it may become the previous one.

    Raises:
        ValueError: if Lightning cannot provide the devices, precision or epochs of `config`.
    """
    checkpoints = Checkpoints()
    checkpoints.keep = keep
    curves = run.new_curves()
    every = [
        CSVLogger(run.path, name="", version=curves),
        TensorBoardLogger(run.path, name="", version=curves),
        *loggers,
    ]
    try:
        trainer = lightning.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=config.precision,
            max_epochs=config.epochs or -1,
            callbacks=list(callbacks),
            logger=every,
            plugins=[checkpoints],
            use_distributed_sampler=False,  # `loader` gives each process its part
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            log_every_n_steps=LOOK_EVERY,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
        )
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(_one_line(error)) from error
    if config.depth_growth and trainer.world_size > 1 and "find_unused" not in config.strategy:
        raise ValueError(
            "With --depth_growth not all levels learn at first; for several processes that takes "
            "--strategy ddp_find_unused_parameters_true."
        )
    return trainer


def _fit(trainer: lightning.Trainer, module: Training, checkpoint: Path | None, again: str) -> None:
    """Train, and tell in a sentence what ended training before its time.

    Args:
        trainer: Lightning's trainer.
        module: the model in training.
        checkpoint: where to go on from; None begins.
        again: how to resume the run, as a message says it.
    """
    try:
        with warnings.catch_warnings():  # advice on data loaders and folders that does not apply
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", "Encountered NaN")  # such steps are counted here
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise ValueError(_one_line(error)) from error
    except StopRequested as error:
        raise Interrupted(f"Stopped; go on with {again}", error.signal_number) from None
    except SIGTERMException:  # before the first step
        raise Interrupted(f"Stopped; go on with {again}", signal.SIGTERM) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sentence = f"The disk is full; free some and go on with {again}"
            raise OSError(error.errno, sentence) from error
        raise
    except (RuntimeError, MemoryError) as error:
        reason = _fatal(error, trainer, module.config)
        if reason is None:
            raise
        raise TrainingFailed(f"{reason} The last good state is in {module.run.path}.") from error


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
