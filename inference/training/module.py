"""The Lightning module: data loaders, loss, optimiser, and what a step does with its gradient."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

import lightning
import numpy as np
import pyro
import torch
from lightning.pytorch.callbacks import Timer
from pyro import poutine
from torch import Tensor
from torch.utils.data import DataLoader

from inference.config import MASKS, TrainConfig
from inference.data import ImageSet, Splits
from inference.data.augmentation import jitter
from inference.data.masks import random_masks
from inference.data.sampler import loader
from inference.evaluation.metrics import evaluate
from inference.objectives import OBJECTIVES, loss, masked_loss, prior_loss
from inference.run import Run
from inference.training.optimizers import OPTIMIZERS
from inference.training.schedules import ramp, schedule
from pyro_rnp import RNP

LOOK_EVERY = 10
"""Steps between two readings of what the device has counted; a reading waits for the device."""
MAX_SKIPS = 20
"""Training stops after this many skipped steps in a row: the weights no longer give gradients."""


class SkippedSteps:
    """Counts the steps that were not applied, on the device, which nothing waits for.

    Args:
        counts: as `counts` of another; None begins at zero.
    """

    def __init__(self, counts: Tensor | None = None) -> None:
        self.counts = torch.zeros(3, dtype=torch.long) if counts is None else counts
        """On the device: the number of skipped steps, how many of these came last in a row, and
        the first step of that row."""
        self.read()

    def to(self, device: torch.device) -> None:
        """Move the counts to a device.

        Args:
            device: the device that training is on.
        """
        self.counts = self.counts.to(device)

    def count(self, bad: Tensor, step: int) -> None:
        """Count a step, without waiting for the device.

        Args:
            bad: a truth value (a tensor of no dimensions): whether the step was skipped.
            step: the number of the step.
        """
        total, in_a_row, began = self.counts.unbind()
        began = torch.where(bad & (in_a_row == 0), step, began)
        self.counts = torch.stack([total + bad, (in_a_row + 1) * bad, began])

    def read(self) -> None:
        """Wait for the device and set `total`, `in_a_row` and `began` to its counts."""
        self.total, self.in_a_row, self.began = self.counts.tolist()


class Training(lightning.LightningModule):
    """An RNP in training.

    The random numbers of a step depend on the seed, the step and the process alone, and the order
    of the images on the seed and the epoch. A run that is resumed therefore needs the weights, the
    optimiser's state and the counts of batches and images, and goes on as if it had never stopped.

    Args:
        rnp: the model that learns.
        config: how it learns.
        splits: the data set; `train` is learned from, `validation` scored after each epoch.
        timer: Lightning's timer, which ends training when `config.duration` is over.
        run: the run folder, for its log.
        quiet: whether `say` does not print; by default false.
    """

    def __init__(
        self,
        rnp: RNP,
        config: TrainConfig,
        splits: Splits,
        timer: Timer,
        run: Run,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        self.rnp, self.config, self.splits = rnp, config, splits
        self.timer, self.run, self.quiet = timer, run, quiet
        self.objective = OBJECTIVES.make(config.objective)
        rnp.model.recursion.recompute_levels = config.recompute_levels
        self.batches_seen = self.images_seen = 0
        """Counts over all parts of the run; `callbacks.Progress` counts them up."""
        self.skipped = SkippedSteps()
        self.kl_weight = config.kl_weight
        self.elapsed = 0.0

    def say(self, sentence: str) -> None:
        """Print a sentence, unless training is quiet, and add it to the run's log.

        Args:
            sentence: the sentence.
        """
        if not self.quiet:
            self.print(sentence)
        self.note(sentence)

    def note(self, sentence: str) -> None:
        """Add a sentence to the run's log, in one process alone.

        Args:
            sentence: the sentence.
        """
        if self.trainer.is_global_zero:
            self.run.log(sentence)

    # Lightning's hooks -------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return the loader of training images, which continues after the batches seen."""
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
        """Return the loader of the first 1,000 validation images."""
        return loader(self.splits.validation[:1000], 500, shuffle=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of the parameters that learn."""
        return OPTIMIZERS[self.config.optimizer](self.rnp, self.config.learning_rate)

    def on_train_start(self) -> None:
        """Compile the model, where the configuration says so."""
        if self.config.compiles(len(self.splits.train)):
            self.say("The model is being compiled: the first step may take some minutes.")
            self.rnp.compile(inference=False)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Seed the step, and set the learning rate, the weight of the KL and the depth."""
        numbers = [self.config.seed, self.batches_seen, self.trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
        config, progress = self.config, self.progress()
        factor = schedule(self.batches_seen, config.warmup, progress, config.schedule)
        self.kl_weight = config.kl_weight * ramp(progress, config.kl_warmup)
        if config.lower_warmup:
            self.rnp.guide.settled_share = 1 - ramp(progress, config.lower_warmup)
        depth = config.model.depth
        self.rnp.model.recursion.levels = max(
            1, min(depth, 1 + int((depth - 1) * ramp(progress, config.depth_growth)))
        )
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = config.learning_rate * factor

    def on_train_end(self) -> None:
        """Let the lower guide propose for all images again."""
        self.rnp.guide.settled_share = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of a batch (N, C, H, W), in nats an image, and log it."""
        if self.config.jitter:
            batch = jitter(batch, self.config.jitter)
        found = self.loss_per_image(batch)
        self.loss = found.detach()
        self.log("loss", self.loss, prog_bar=True)
        if self.masked_learns:
            masked = self.masked_loss_per_image(batch)
            self.log("masked_loss", masked.detach(), prog_bar=self.masked_alone)
            found = found + masked
            self.loss = found.detach()
        if self.batches_seen % LOOK_EVERY == 0:
            self.log("minutes", self.timer.time_elapsed() / 60, prog_bar=True)
        return found

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the gradient; where it or the loss is not finite, the optimizer skips the step.

        All of it happens on the device, which nothing here waits for.
        """
        masked = self._masked()  # clipped apart, so that all else learns as without it
        others = [p for p in self.rnp.parameters() if not any(p is q for q in masked)]
        norms = [
            torch.nn.utils.clip_grad_norm_(some, self.config.clip) for some in (others, masked)
        ]
        bad = ~(sum(norms).isfinite() & self.loss.isfinite())  # type: ignore[union-attr]
        bad = self.trainer.strategy.reduce(bad.float()) > 0  # of any of several processes
        optimizer.found_inf = bad.float()
        self.skipped.count(bad, self.batches_seen)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Score a batch of validation images and log the scores."""
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
        if self.rnp.guide.masked is not None:
            with torch.random.fork_rng([]):
                torch.manual_seed(batch_idx)  # the same masks at each validation
                nll = float(self.masked_loss_per_image(batch))
            self.log("val_masked_nll", nll, batch_size=len(batch), sync_dist=True)
        self.log("images_seen", float(self.images_seen), sync_dist=True)
        self.log("seconds", self.timer.time_elapsed(), sync_dist=True)

    # For the callbacks -------------------------------------------------------------------------

    def loss_per_image(self, batch: Tensor) -> Tensor:
        """Return the objective, the mean over a batch of images, in nats.

        Args:
            batch: (N, C, H, W) in [0, 1].
        """
        if self.masked_alone:
            return batch.new_zeros(())
        if self.prior_alone:
            return prior_loss(self.rnp, batch) / len(batch)
        # Pyro's own checks stop at the first value that is not finite; here such steps are skipped.
        each = self.config.images_per_class
        with pyro.validation_enabled(False):
            found = loss(self.objective, self.rnp, batch, self.kl_weight, each)
        return found / len(batch)

    @property
    def masked_learns(self) -> bool:
        """Whether the guide that has seen masks learns."""
        return any(p.requires_grad for p in self._masked())

    @property
    def masked_alone(self) -> bool:
        """Whether nothing else learns, so that the model need not run."""
        return self.masked_learns and len(self._learning()) == len(self._masked())

    @cached_property
    def prior_alone(self) -> bool:
        """Whether nothing else learns than a prior without latents of its own, so that the model
        need not run.
        """
        prior = self.rnp.model.prior
        own = {id(p) for p in prior.parameters()}
        if getattr(prior, "trained_elsewhere", ()) or not self._learning():
            return False
        with torch.random.fork_rng([]):
            latents = poutine.trace(prior).get_trace().stochastic_nodes
        return not latents and all(id(p) in own for p in self._learning())

    def masked_loss_per_image(self, batch: Tensor) -> Tensor:
        """Return the loss of the masked guide, the mean over a batch of images, in nats.

        Args:
            batch: (N, C, H, W) in [0, 1].
        """
        kinds = self.config.mask_training or MASKS
        seen = random_masks(len(batch), batch.shape[-1], kinds).to(batch.device)
        return masked_loss(self.rnp, batch, seen) / len(batch)

    def time_step(self, batch: Tensor) -> float:
        """Return the seconds that the loss and its gradient take; nothing learns from it.

        The random state stays as it was.

        Args:
            batch: images of the last step, (N, C, H, W).
        """
        learning, began = self._learning(), time.perf_counter()
        with torch.random.fork_rng([]), torch.enable_grad():
            loss = self.loss_per_image(batch)
            if self.masked_learns:
                loss = loss + self.masked_loss_per_image(batch)
            torch.autograd.grad(loss, learning, allow_unused=True)
        return time.perf_counter() - began

    def progress(self) -> float:
        """Return the share of training that is done, from 0 to 1."""
        if self.config.duration is None:
            return self.batches_seen / float(self.trainer.estimated_stepping_batches)
        if self.trainer.world_size > 1:  # one clock for all processes
            if self.batches_seen % LOOK_EVERY == 0 or not self.elapsed:
                self.elapsed = self.trainer.strategy.broadcast(self.timer.time_elapsed())
        else:
            self.elapsed = self.timer.time_elapsed()
        return self.elapsed / self.config.duration.total_seconds()

    def images_per_batch(self) -> int:
        """Return the number of images that all processes take in a step."""
        return self.trainer.world_size * self.train_dataloader().sampler.size  # type: ignore

    def has_diverged(self) -> bool:
        """Return, once training has ended, whether the weights no longer give finite losses."""
        if not 0 < self.skipped.in_a_row < MAX_SKIPS:
            return self.skipped.in_a_row > 0
        images, each = self.splits.train, self.config.images_per_class
        some = images[: min(len(images), self.config.batch_size) // each * each].images
        with torch.random.fork_rng(), torch.no_grad():
            return not bool(self.loss_per_image(some.to(self.rnp.device)).isfinite())

    def _masked(self) -> list[torch.nn.Parameter]:
        masked = self.rnp.guide.masked
        return [] if masked is None else list(masked.parameters())

    def _learning(self) -> list[torch.nn.Parameter]:
        return [p for p in self.rnp.parameters() if p.requires_grad]
