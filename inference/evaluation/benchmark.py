"""Time and memory of the model, beside other models and the rate of a large matrix product."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from inference.objectives import OBJECTIVES, loss
from inference.system import keep_large_blocks
from pyro_rnp import RNP, RNPConfig
from pyro_rnp.baselines.literal import LiteralRecursion

Task = Literal["train", "parse", "sample"]
TASKS: tuple[Task, ...] = ("train", "parse", "sample")
PRODUCT = 1024
"""Side of the square matrices whose product is the processor's rate."""


@dataclass(frozen=True)
class Subject:
    """A model, or a part of one, that is timed."""

    name: str
    config: RNPConfig
    kind: Literal["rnp", "literal", "encoder"] = "rnp"
    recompute_levels: int = 0

    @property
    def nodes(self) -> int:
        """Parts, sub-parts and so on in a tree of this shape."""
        nodes, parts = 0, 1
        for steps in self.config.steps:
            parts *= steps
            nodes += parts
        return nodes


def subjects(presets: Sequence[str]) -> list[Subject]:
    """Choose the subjects of a comparison.

    Args:
        presets: names of presets.

    Returns:
        The literal port of the paper, to which ratios refer; the presets; a flat VAE with the
        encoder of the preset `mnist`; and that encoder alone.
    """
    paper = RNPConfig.preset("mnist")
    return [
        Subject("literal port", paper, "literal"),
        *(Subject(name, RNPConfig.preset(name)) for name in presets),
        Subject("flat VAE", replace(paper, program="flat")),
        Subject("encoder alone", paper, "encoder"),
    ]


def sweeps(preset: str) -> dict[str, list[tuple[int, Subject, int]]]:
    """Choose the subjects of a scaling test, in which one quantity of a preset grows at a time.

    Args:
        preset: name of the preset.

    Returns:
        By name of the quantity, its values, each with the subject and the batch size.
    """
    base, batch = RNPConfig.preset(preset), 64

    def subject(recompute_levels: int = 0, **changes: Any) -> Subject:
        return Subject(preset, replace(base, **changes), recompute_levels=recompute_levels)

    return {
        "levels K, 3 parts each": [(k, subject(steps=(3,) * k), batch) for k in (1, 2, 3, 4)],
        "parts tau, 2 levels": [(t, subject(steps=(t, t)), batch) for t in (2, 4, 6, 8)],
        "program size": [(z, subject(program_size=z), batch) for z in (16, 32, 64, 128)],
        "image size": [(s, subject(image_size=s), batch) for s in (28, 64, 96, 128)],
        "batch size": [(b, subject(), b) for b in (16, 64, 128, 256, 512)],
        "recompute levels, K = 3": [(n, subject(n, steps=(3, 3, 3)), batch) for n in (0, 1, 2, 3)],
    }


def ready(subject: Subject, task: Task, batch_size: int) -> Callable[[], object]:
    """Make a call that takes one step of training, or parses or samples one batch.

    Args:
        subject: the model.
        task: `train` (loss, gradient and Adam), `parse` or `sample`.
        batch_size: random images a call.

    Raises:
        ValueError: if the subject has no such task.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    c = subject.config
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RNP(c)
    model.model.recursion.recompute_levels = subject.recompute_levels
    if subject.kind == "literal":
        model.model.recursion = LiteralRecursion(model.model.recursion)
    model.to(device)
    images = torch.rand(batch_size, c.channels, c.image_size, c.image_size, device=device)
    objective = OBJECTIVES.make("TraceMeanField_ELBO")
    trained: nn.Module = model.guide if subject.kind == "encoder" else model
    optimiser = torch.optim.Adam(trained.parameters(), lr=1e-3, fused=True)

    def train() -> None:
        keep_large_blocks(subject.recompute_levels == 0)
        optimiser.zero_grad()
        if subject.kind == "encoder":
            total = model.guide.posterior(images).rsample().square().sum()
        else:
            total = loss(objective, model, images)
        (total / batch_size).backward()
        optimiser.step()

    @torch.no_grad()
    def parse() -> object:
        if subject.kind == "encoder":
            return model.guide.posterior(images).mean
        return model.parse(images)

    @torch.no_grad()
    def sample() -> object:
        return model.sample(batch_size)

    if (subject.kind, task) == ("encoder", "sample"):
        raise ValueError("An encoder alone draws no samples.")
    return {"train": train, "parse": parse, "sample": sample}[task]


def product() -> Callable[[], object]:
    """Make a call that computes one large matrix product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = torch.randn(2, PRODUCT, PRODUCT, device=device)
    return lambda: a @ b


def interleaved(works: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Time calls over rounds in which all take turns.

    In its turn a work is called twice, and the second call is timed: the first one claims memory
    and caches.

    Args:
        works: the calls.
        repeats: rounds.

    Returns:
        For each work, its seconds in each round.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, found in zip(works, seconds, strict=True):
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            found.append(time.perf_counter() - began)
    return seconds


def compare(
    whats: Sequence[Subject],
    batch_sizes: Sequence[int],
    repeats: int = 7,
    memory: bool = True,
    tasks: Sequence[Task] = TASKS,
) -> list[dict[str, Any]]:
    """Time each subject at each task and batch size, all in turn with a large matrix product.

    Args:
        whats: the subjects; ratios refer to the first.
        batch_sizes: images a step.
        repeats: rounds.
        memory: whether to measure peak memory too, in a new process for each.
        tasks: the tasks.

    Returns:
        A row for each: `images_per_second` (median over rounds); `ratio` to the first subject
        (median over rounds of the ratio in a round); `gflop_per_image`, see `flop`; `product`
        (the matrix product's median rate in GFLOP/s), `roofline` (the share of it that the subject
        reaches); and `peak_gib` of a training step, if `memory`, see `peak_memory`.
    """
    rows = []
    for batch_size in batch_sizes:
        for task in tasks:
            able = [s for s in whats if (s.kind, task) != ("encoder", "sample")]
            works = [ready(s, task, batch_size) for s in able]
            *times, products = interleaved([*works, product()], repeats)
            rate = 2 * PRODUCT**3 / statistics.median(products) / 1e9
            for s, work, seconds in zip(able, works, times, strict=True):
                per_image = flop(work) / batch_size / 1e9
                speed = batch_size / statistics.median(seconds)
                ratios = [a / b for a, b in zip(times[0], seconds, strict=True)]
                rows.append(
                    {
                        "what": s.name,
                        "task": task,
                        "batch_size": batch_size,
                        "images_per_second": speed,
                        "ratio": statistics.median(ratios),
                        "gflop_per_image": per_image,
                        "product": rate,
                        "roofline": per_image * speed / rate,
                        "peak_gib": peak_memory(s, batch_size)[1]
                        if memory and task == "train"
                        else None,
                    }
                )
    return rows


def scaling(preset: str, repeats: int = 5) -> list[dict[str, Any]]:
    """Measure time and peak memory of a training step as one quantity grows at a time.

    Args:
        preset: name of the preset, see `sweeps`.
        repeats: rounds.

    Returns:
        A row for each: `sweep`, `value`, `batch_size`, `nodes` of the tree, `ms_per_image` (median
        over rounds in which all of a sweep take turns), `mib_per_image` (what a step adds to the
        memory of the process at its highest, over the batch).
    """
    rows = []
    for sweep, points in sweeps(preset).items():
        works = [ready(s, "train", batch) for _, s, batch in points]
        for (value, s, batch), seconds in zip(points, interleaved(works, repeats), strict=True):
            before, peak = peak_memory(s, batch)
            rows.append(
                {
                    "sweep": sweep,
                    "value": value,
                    "batch_size": batch,
                    "nodes": s.nodes,
                    "ms_per_image": 1e3 * statistics.median(seconds) / batch,
                    "mib_per_image": 1024 * (peak - before) / batch,
                }
            )
    return rows


def flop(work: Callable[[], object]) -> int:
    """Count the floating-point operations of products and convolutions in one call.

    Our models write each program's weights once and form their gradient once a program, which is
    the cheapest exact way known to us, so the roofline of a preset refers to this count.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_memory(subject: Subject, batch_size: int) -> tuple[float, float]:
    """Measure the memory of three training steps, in a process of its own.

    Args:
        subject: the model.
        batch_size: images a step.

    Returns:
        GiB before the steps and at their peak: device memory on CUDA, resident size on a CPU.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (subject, batch_size))


def _peak(subject: Subject, batch_size: int) -> tuple[float, float]:
    step = ready(subject, "train", batch_size)
    cuda = torch.cuda.is_available()
    before = torch.cuda.memory_allocated() / 2**30 if cuda else _resident("VmRSS")
    for _ in range(3):
        step()
    return before, torch.cuda.max_memory_allocated() / 2**30 if cuda else _resident("VmHWM")


def _resident(name: str) -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss begins at what the parent had
        (line,) = (row for row in status.read_text().splitlines() if row.startswith(name))
        return int(line.split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
