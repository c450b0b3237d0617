"""How fast training steps are, side by side, and how much memory they take."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pyro.infer import TraceMeanField_ELBO

from inference.allocator import keep_large_blocks
from inference.literal import LiteralRecursion
from pyro_rnp import RNP, RNPConfig

LITERAL = "literal port"


def training_step(what: str, batch_size: int) -> Callable[[], None]:
    """One step of training (loss, gradient, Adam) on random images, ready to be called.

    Args:
        what: `LITERAL`, or "preset NAME".
    """
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rnp = RNP(RNPConfig.preset("mnist" if what == LITERAL else what.removeprefix("preset ")))
    if what == LITERAL:
        rnp.model.recursion = LiteralRecursion(rnp.model.recursion)  # type: ignore[assignment]
    rnp.to(device)
    c = rnp.config
    images = torch.rand(batch_size, c.channels, c.image_size, c.image_size, device=device)
    elbo = TraceMeanField_ELBO()(rnp.model, rnp.guide)
    optimiser = torch.optim.Adam(rnp.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        (elbo(images) / batch_size).backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def compare(
    whats: Sequence[str],
    batch_sizes: Sequence[int],
    steps: int = 3,
    repeats: int = 7,
    memory: bool = True,
) -> list[dict[str, Any]]:
    """Images per second of training, in turn: each of `repeats` rounds times `steps` of each.

    Returns:
        A row for each batch size and what: the median over rounds, and the median over rounds of
        its ratio to the first what, and the peak memory, see `peak_memory`, if `memory`.
    """
    keep_large_blocks()
    rows = []
    for batch_size in batch_sizes:
        ready = {what: training_step(what, batch_size) for what in whats}
        rates: dict[str, list[float]] = {what: [] for what in whats}
        for step in ready.values():
            step()
        for _ in range(repeats):
            for what, step in ready.items():
                began = time.perf_counter()
                for _ in range(steps):
                    step()
                rates[what].append(steps * batch_size / (time.perf_counter() - began))
        for what in whats:
            ratios = [a / b for a, b in zip(rates[what], rates[whats[0]], strict=True)]
            rows.append(
                {
                    "what": what,
                    "batch_size": batch_size,
                    "images_per_second": statistics.median(rates[what]),
                    "ratio": statistics.median(ratios),
                    "peak_gib": peak_memory(what, batch_size) if memory else None,
                }
            )
    return rows


def peak_memory(what: str, batch_size: int) -> float:
    """Largest resident size of a new process that trains for three steps, in GiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (what, batch_size))


def _peak(what: str, batch_size: int) -> float:
    keep_large_blocks()
    step = training_step(what, batch_size)
    for _ in range(3):
        step()
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss begins at what the parent had
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
