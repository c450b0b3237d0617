"""Time and memory of the model, beside other models and the rate of a large matrix product."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from inference.evaluation.rivals import RIVALS, svi_step
from inference.objectives import OBJECTIVES, loss
from inference.system import hardware, keep_large_blocks
from pyro_rnp import RNP, ParseTree, RNPConfig
from pyro_rnp.baselines.literal import LiteralRecursion

Task = Literal["train", "parse", "sample"]
TASKS: tuple[Task, ...] = ("train", "parse", "sample")
PRODUCT = 1024
"""Side of the square matrices whose product is the processor's rate."""
RENAMED = {"flat VAE": "flat VAE of mnist"}
"""Names of subjects in files of earlier versions."""


HEADER = (
    f"{'':24} {'task':6} {'batch':>5} {'ms':>8} {'images/s':>8} {'ratio':>6} {'before':>6} "
    f"{'to flat':>7} {'GFLOP/image':>11} {'roofline':>8} {'peak GiB':>8}"
)
"""Of the lines that `line` makes."""


@dataclass(frozen=True)
class Subject:
    """A model, or a part of one, that is timed."""

    name: str
    config: RNPConfig | None
    """The model's shape; None of a rival, which has its own."""
    kind: Literal["rnp", "literal", "encoder", "svi", "vae", "air"] = "rnp"
    """An RNP, its literal port, its encoder, an RNP in a user's own loop of Pyro's SVI, or one of
    `RIVALS`."""
    recompute_levels: int = 0
    compile: bool = False
    """Whether the RNP is compiled."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What can be timed: loops of SVI only train, and an encoder draws no samples."""
        return {"rnp": TASKS, "literal": TASKS, "encoder": TASKS[:2]}.get(self.kind, TASKS[:1])

    @property
    def nodes(self) -> int:
        """Parts, sub-parts and so on in a tree of this shape."""
        nodes, parts = 0, 1
        for steps in () if self.config is None else self.config.steps:
            parts *= steps
            nodes += parts
        return nodes


def subjects(presets: Sequence[str], compiled: Sequence[str] = ()) -> list[Subject]:
    """Choose the subjects of a comparison.

    Args:
        presets: names of presets.
        compiled: names of presets that are also timed compiled; by default none, since compiling
            takes minutes.

    Returns:
        The literal port of the paper, to which ratios refer; the presets; `fast` with random levels
        and the bottom-up guide; presets that are compiled; flat VAEs of as many parameters as
        `mnist` and `fast`, with the same encoders; the encoder of `fast` alone; and what a user of
        Pyro might pick instead: a loop of `SVI` on that flat VAE, and the models of `RIVALS`.
    """
    paper, fast = RNPConfig.preset("mnist"), RNPConfig.preset("fast")
    ours = [
        *(Subject(name, RNPConfig.preset(name)) for name in dict.fromkeys(presets)),
        Subject("fast, random levels", replace(fast, stochastic="both")),
    ]
    return [
        Subject("literal port", paper, "literal"),
        *ours,
        *(
            Subject(f"{name}, compiled", RNPConfig.preset(name), compile=True)
            for name in dict.fromkeys(compiled)
        ),
        Subject("flat VAE of mnist", replace(paper, program="flat")),
        Subject("flat VAE of fast", replace(fast, program="flat")),
        Subject("encoder alone", fast, "encoder"),
        Subject("SVI, flat VAE of fast", replace(fast, program="flat"), "svi"),
        Subject("Pyro's examples/vae", None, "vae"),
        Subject("Pyro's examples/air", None, "air"),
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
        "recompute levels, K = 3": [  # which keeps weights, as factored ones are not written
            (n, subject(n, steps=(3, 3, 3), weights="mixed"), batch) for n in (0, 1, 2, 3)
        ],
    }


def build(subject: Subject) -> Any:
    """Make the model of a subject, with the same parameters at each call.

    Args:
        subject: what is timed.

    Returns:
        The model, on a GPU where there is one.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if subject.kind in RIVALS:
            return RIVALS[subject.kind].make().to(device)
        model = RNP(subject.config)
    model.model.recursion.recompute_levels = subject.recompute_levels
    if subject.kind == "literal":
        model.model.recursion = LiteralRecursion(model.model.recursion)
    model.to(device)
    if subject.compile:  # the only place where a benchmark compiles
        model.compile()
    return model


def ready(
    subject: Subject, task: Task, batch_size: int, model: Any = None
) -> Callable[[], Tensor | float | ParseTree]:
    """Make a call that takes one step of training, or parses or samples one batch.

    Args:
        subject: what is timed.
        task: `train` (loss, gradient and Adam), `parse` or `sample`.
        batch_size: random images a call.
        model: as `build` makes it, which it does by default.

    Returns:
        The call, which returns the loss, the tree or, of an encoder, the means.

    Raises:
        ValueError: if the subject has no such task.
    """
    if task not in subject.tasks:
        raise ValueError(f"The subject {subject.name!r} has no task {task}.")
    if model is None:
        model = build(subject)
    c = subject.config or RNPConfig(image_size=model.image_size)
    device = next(model.parameters()).device
    images = torch.rand(batch_size, c.channels, c.image_size, c.image_size, device=device)
    if subject.kind == "svi":
        return svi_step(model, images)
    if subject.kind in RIVALS:
        rival = RIVALS[subject.kind]
        return svi_step(model, images, rival.elbo(), rival.learning_rate)
    objective = OBJECTIVES.make("TraceMeanField_ELBO")
    trained: nn.Module = model.guide if subject.kind == "encoder" else model
    optimiser = torch.optim.Adam(trained.parameters(), lr=1e-3, fused=True)

    def train() -> Tensor:
        keep_large_blocks(subject.recompute_levels == 0)
        optimiser.zero_grad()
        if subject.kind == "encoder":
            total = model.guide.posterior(images).rsample().square().sum()
        else:
            total = loss(objective, model, images)
        (total / batch_size).backward()
        optimiser.step()
        return total.detach()

    @torch.no_grad()
    def parse() -> Tensor | ParseTree:
        if subject.kind == "encoder":
            return model.guide.posterior(images).mean
        return model.parse(images)

    @torch.no_grad()
    def sample() -> ParseTree:
        return model.sample(batch_size)

    calls: dict[Task, Any] = {"train": train, "parse": parse, "sample": sample}
    return calls[task]


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
        tasks: the tasks; a subject is left out of those that it has not.

    Returns:
        A row for each. Times are medians over rounds, and quotients are medians of the quotients in
        a round. `step_ms` is the time of a call; `images_per_second`; `ratio`, how many times as
        fast as the first subject, None where that lacks the task; `to_flat`, the time over that of
        the flat VAE of the same configuration, None where there is none; `to_deterministic`, of
        random levels, the time over that without; `gflop_per_image`, see `flop`; `product` (the
        matrix product's rate in GFLOP/s), `roofline` (the share of it that the subject reaches);
        and `peak_gib` of a training step, if `memory`, see `peak_memory`.
    """
    rows = []
    for batch_size in batch_sizes:
        for task in tasks:
            able = [s for s in whats if task in s.tasks]
            works = [ready(s, task, batch_size) for s in able]
            *times, products = interleaved([*works, product()], repeats)
            rate = 2 * PRODUCT**3 / statistics.median(products) / 1e9
            seconds = dict(zip(able, times, strict=True))
            for s, work in zip(able, works, strict=True):
                eager = ready(replace(s, compile=False), task, batch_size) if s.compile else work
                per_image = flop(eager) / batch_size / 1e9
                step = statistics.median(seconds[s])
                flat = _variant(able, s, program="flat", stochastic="none")
                fixed = _variant(able, s, s.compile, stochastic="none")
                rows.append(
                    {
                        "what": s.name,
                        "task": task,
                        "batch_size": batch_size,
                        "step_ms": 1e3 * step,
                        "images_per_second": batch_size / step,
                        "ratio": _quotient(seconds, whats[0], s),
                        "to_flat": _quotient(seconds, s, flat),
                        "to_deterministic": _quotient(seconds, s, None if fixed == s else fixed),
                        "gflop_per_image": per_image,
                        "product": rate,
                        "roofline": per_image * batch_size / step / rate,
                        "peak_gib": peak_memory(s, batch_size)[1]
                        if memory and task == "train"
                        else None,
                    }
                )
    return rows


def _variant(
    whats: Sequence[Subject], s: Subject, compile: bool = False, **changes: Any
) -> Subject | None:
    """The RNP among subjects that differs from one in some fields of its configuration alone."""
    config = None if s.config is None else replace(s.config, **changes)
    same = (w for w in whats if (w.config, w.kind, w.compile) == (config, "rnp", compile))
    return next(same, None)


def _quotient(
    seconds: dict[Subject, list[float]], over: Subject, under: Subject | None
) -> float | None:
    """The median over rounds of one subject's seconds over another's, where both were timed."""
    if over not in seconds or under not in seconds:
        return None
    pairs = zip(seconds[over], seconds[under], strict=True)
    return statistics.median(a / b for a, b in pairs)


def earlier(path: str | Path) -> dict[tuple[str, str, int], float]:
    """Read the ratios of an earlier benchmark.

    Args:
        path: a `benchmark.json` that `pyro-rnp benchmark --out` wrote, of this version or an
            earlier one.

    Returns:
        Ratios to the literal port by subject, task and batch size.

    Raises:
        ValueError: if the file cannot be read or holds none.
    """
    try:
        rows = json.loads(Path(path).read_text())["rows"]
        return {
            (RENAMED.get(row["what"], row["what"]), row["task"], row["batch_size"]): row["ratio"]
            for row in rows
            if isinstance(row["ratio"], float | int)
        }
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} holds no ratios; give the benchmark.json of an earlier benchmark."
        ) from error


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


def line(row: dict[str, Any]) -> str:
    """Write a row of `compare` as a line under `HEADER`.

    Args:
        row: with the earlier ratio under `before`, or None.
    """

    def cell(name: str, width: int) -> str:
        return f"{'' if row[name] is None else format(row[name], '.2f'):>{width}}"

    return (
        f"{row['what']:24} {row['task']:6} {row['batch_size']:5} {row['step_ms']:8.1f} "
        f"{row['images_per_second']:8.0f} {cell('ratio', 6)} {cell('before', 6)} "
        f"{cell('to_flat', 7)} {row['gflop_per_image']:11.3f} {row['roofline']:8.0%} "
        f"{cell('peak_gib', 8)}"
    )


def machine() -> dict[str, Any]:
    """Describe the machine: processor, its vector instructions, cores, threads and GPU."""
    return {
        "processor": hardware(torch.device("cpu")),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
