"""Lightning callbacks: what happens around the steps of a training.

Lightning calls them in the order of `inference.training.fit`, in which each may use what those
before it have done in the same step. A callback keeps its state in a checkpoint under a key of its
own at the top of the checkpoint.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch import Tensor

from inference.run import Run
from inference.system import StopRequested, StopSignal
from inference.training.checkpoints import set_loop_counts
from inference.training.diagnostics import Diagnostics, coverage_sentence, missing_sentence
from inference.training.module import LOOK_EVERY, MAX_SKIPS, SkippedSteps, Training
from inference.training.threads import Threads

DIAGNOSE_EVERY = 100
"""Steps between two looks of `Diagnose`."""


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar, without the version of its log, and right in a resumed run."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=LOOK_EVERY)

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore
        super().on_train_start(trainer, module)
        done = module.batches_seen % int(self.total_train_batches)
        if done:  # within an epoch, which Lightning's bar takes for one without end
            self.on_train_epoch_start(trainer)
            self.train_progress_bar.initial = self.train_progress_bar.n = done
            self.train_progress_bar.refresh()

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        return {k: v for k, v in super().get_metrics(*args).items() if k != "v_num"}


class Progress(Callback):
    """Counts the batches and images of a training, over all parts of its run.

    Args:
        baselines: the squared error of validation images by the mean training image and by a blank
            canvas (`sse_mean_image`, `sse_blank`), with which `val_sse` is to be compared.
        sentence: what to say at the start, also in place of the usual of a run that is resumed.
    """

    def __init__(self, baselines: dict[str, float], sentence: str = "") -> None:
        self.baselines, self.sentence = baselines, sentence
        self.seconds = 0.0
        """The time that the last step took."""

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore
        if module.config.resume is not None:
            module.say(self.sentence or f"Going on from step {module.batches_seen}.")
        else:
            train = module.splits.train
            covered = coverage_sentence(module.rnp.config, train[:1000].images)
            for said in (self.sentence, missing_sentence(train), covered):
                if said:
                    module.say(said)
        mean_image, blank = self.baselines["sse_mean_image"], self.baselines["sse_blank"]
        module.say(
            f"Without a model, val_sse is {mean_image:.1f} by the mean training image and "
            f"{blank:.1f} by a blank canvas."
        )

    def on_train_batch_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, outputs: Any, batch: Tensor, _: int
    ) -> None:
        self.seconds = time.perf_counter() - self.began
        module.batches_seen += 1
        module.images_seen += len(batch) * trainer.world_size

    def on_save_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["batches_seen"] = module.batches_seen
        checkpoint["images_seen"] = module.images_seen
        checkpoint["images_per_batch"] = module.images_per_batch()
        if module.config.learn == "new":
            learning = (n for n, p in module.rnp.named_parameters() if p.requires_grad)
            checkpoint["learning"] = list(learning)

    def on_load_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        module.batches_seen = checkpoint["batches_seen"]
        module.images_seen = checkpoint["images_seen"]
        if checkpoint["images_per_batch"] != module.images_per_batch():
            module.batches_seen = module.images_seen // module.images_per_batch()
        epoch, wanted = len(module.train_dataloader()), module.config.epochs
        if wanted is not None and module.batches_seen > wanted * epoch:
            raise ValueError(
                f"{module.run.path} has gone through {module.batches_seen / epoch:.3g} epochs "
                "already; give more --epochs to go on."
            )
        if module.batches_seen:
            set_loop_counts(module.batches_seen, epoch, checkpoint["loops"]["fit_loop"])


class ReportSkipped(Callback):
    """Says when steps begin to be skipped, and stops training when all are."""

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore
        module.skipped.to(module.device)

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Training, *_: Any) -> None:  # type: ignore
        if module.batches_seen % LOOK_EVERY == 0 or trainer.is_last_batch:
            self.look(trainer, module)

    def look(self, trainer: lightning.Trainer, module: Training) -> None:
        """Read the counts of skipped steps, which waits for the device.

        Too many skipped steps in a row stop the training.

        Args:
            trainer: Lightning's trainer.
            module: the training module, whose counts are read.
        """
        skipped = module.skipped
        before, in_a_row = skipped.total, skipped.in_a_row
        skipped.read()
        if skipped.total > before and (not in_a_row or not skipped.in_a_row):
            module.say(
                f"Since step {skipped.began} the loss or gradient is not finite; such steps are "
                f"not applied, {skipped.total} so far."
            )
        if skipped.in_a_row >= MAX_SKIPS:
            trainer.should_stop = True

    def on_save_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        module.skipped.read()
        checkpoint["skips"] = module.skipped.counts.cpu()

    def on_load_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        module.skipped = SkippedSteps(checkpoint["skips"])


class Diagnose(Callback):
    """Looks at a few images of a batch now and then and says what goes wrong; see `Diagnostics`."""

    def __init__(self) -> None:
        self.diagnostics = Diagnostics()

    def on_train_batch_end(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, outputs: Any, batch: Tensor, _: int
    ) -> None:
        step = module.batches_seen
        if step % DIAGNOSE_EVERY == 0 and not module.skipped.in_a_row:
            late = module.progress() >= 0.5
            for sentence in self.diagnostics.look(module.rnp, batch[:32], step, late):
                module.say(sentence)

    def on_save_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["watch"] = self.diagnostics.state_dict()

    def on_load_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        self.diagnostics.load_state_dict(checkpoint["watch"])


class AdaptThreads(Callback):
    """Takes fewer threads where these are much faster; see `Threads`.

    Args:
        progress: has the time of the last step.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.threads = Threads(torch.get_num_threads(), torch.set_num_threads)

    def on_train_batch_end(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, outputs: Any, batch: Tensor, _: int
    ) -> None:
        if module.device.type != "cpu":
            return
        changed = self.threads.step(self.progress.seconds, lambda: module.time_step(batch))
        if changed:
            module.say(changed)

    def on_save_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["threads"] = self.threads.number

    def on_load_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        if checkpoint.get("threads", self.threads.number) < self.threads.number:
            self.threads.take(checkpoint["threads"])


def row(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the scores of the validation that has just ended, as the last row of `Run.curve`."""
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    kept = {n: v for n, v in logged.items() if n.startswith("val_")}
    counts = {n: logged[n] for n in ("images_seen", "seconds")}
    return {"epoch": trainer.current_epoch + 1, **counts, **kept}


class KeepBest(Callback):
    """Keeps the weights of the best validation, and ends training when none is better for long.

    A checkpoint holds them too, so that a run that is resumed ends with the same weights. While the
    depth grows or random levels come in, no validation counts.

    Attributes:
        best: `weights` by name, on the CPU, the `epoch` after which they were these, their `score`
            (nats, or a negative squared error; larger is better), and how many validations since
            then were not better (`waited`). Empty before the first.
    """

    def __init__(self) -> None:
        self.best: dict[str, Any] = {}

    def on_validation_end(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore
        patience, grown = module.config.patience, module.rnp.model.recursion.levels
        coming = module.rnp.guide.settled_share  # while random levels come in, errors may rise
        if patience is None or grown < module.config.model.depth or coming:
            return
        scores = row(trainer)
        score = -scores["val_sse"]
        if module.masked_alone:
            score = -scores["val_masked_nll"]
        elif "val_elbo" in scores:
            score = scores["val_elbo"] + (1 - module.config.kl_weight) * scores["val_kl"]
        if score > self.best.get("score", -math.inf):
            weights = {n: v.detach().cpu().clone() for n, v in module.rnp.state_dict().items()}
            self.best = {"weights": weights, "epoch": scores["epoch"], "score": score, "waited": 0}
        elif self.best:
            self.best["waited"] += 1
        self._end(trainer, module)

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore
        self._end(trainer, module)  # a signal may have come at the last validation

    def _end(self, trainer: lightning.Trainer, module: Training) -> None:
        patience = module.config.patience
        if patience is not None and self.best.get("waited", 0) >= patience:
            trainer.should_stop = True

    def on_save_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        if module.config.patience is not None:
            checkpoint["best"] = self.best

    def on_load_checkpoint(  # type: ignore
        self, trainer: lightning.Trainer, module: Training, checkpoint: dict[str, Any]
    ) -> None:
        self.best = checkpoint.get("best", {})


class CallAfterValidation(Callback):
    """Calls functions after each validation, when the run's folder has the present weights.

    Args:
        run: the run folder, the first argument of each.
        functions: the second argument is the last row of `Run.curve`. One that returns True ends
            the training.
        started: the fingerprint of the run that this one began with, if any.
    """

    def __init__(
        self,
        run: Run,
        functions: Sequence[Callable[[Run, dict[str, Any]], object]],
        started: str | None,
    ) -> None:
        self.run, self.functions, self.started = run, functions, started

    def on_validation_end(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore
        stop = False
        if trainer.is_global_zero and self.functions:
            trainer.loggers[0].save()
            if not module.skipped.in_a_row:
                self.run.save(module.rnp, module.config, self.started)
            answers = [f(self.run, row(trainer)) for f in self.functions]  # all are called
            stop = any(answer is True for answer in answers)
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True


class KeepCheckpoints(Callback):
    """Saves a checkpoint where one is due or a signal asks the run to stop, and then stops.

    After the last batch of an epoch it does so once the validation is over, which a run that goes
    on from there does not repeat.

    Args:
        run: the run folder.
        stop: notes signals.
        report: reads how many steps were skipped, so that broken weights are not kept.
        started: the fingerprint of the run that this one began with, if any.
    """

    def __init__(
        self, run: Run, stop: StopSignal, report: ReportSkipped, started: str | None
    ) -> None:
        self.run, self.stop, self.report, self.started = run, stop, report, started

    def on_train_start(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore
        self.stop.listen()  # Lightning has set handlers of its own
        if module.config.resume is None:
            trainer.save_checkpoint(self.run.checkpoint, weights_only=False)
        self.saved = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Training, *_: Any) -> None:  # type: ignore
        """See the class.

        Raises:
            StopRequested: if a signal asked the run to stop.
        """
        if not trainer.is_last_batch:
            self.look(trainer, module, always=False)

    def on_validation_end(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore
        """See the class.

        Raises:
            StopRequested: as `on_train_batch_end`.
        """
        if trainer.is_last_batch:
            self.look(trainer, module, always=True)

    def look(self, trainer: lightning.Trainer, module: Training, always: bool) -> None:
        """Save and stop if that is due; see the class.

        Args:
            trainer: Lightning's trainer.
            module: the training module.
            always: whether to look at this step also where several processes train.

        Raises:
            StopRequested: if a signal asked the run to stop.
        """
        due = time.monotonic() - self.saved >= 60 * module.config.checkpoint_minutes
        number = self.stop.number
        if trainer.world_size > 1:  # all processes must agree, and need not at every step
            if module.batches_seen % LOOK_EVERY and not always:
                return
            wanted = torch.tensor([due, number > 0], device=module.device).float()
            due, stop = (trainer.strategy.reduce(wanted) > 0).tolist()
            number = (number or signal.SIGTERM) if stop else 0
        if not (due or number):
            return
        self.report.look(trainer, module)
        if not module.skipped.in_a_row:
            trainer.save_checkpoint(self.run.checkpoint, weights_only=False)
            if trainer.is_global_zero:
                self.run.save(module.rnp, module.config, self.started)
            self.saved = time.monotonic()
        if number:
            name = signal.Signals(number).name
            module.say(f"Stopped by {name} after step {module.batches_seen}.")
            raise StopRequested(number)
