"""What made a result: on which machine, from which weights, in what time."""

from __future__ import annotations

import hashlib
import platform
import time
from pathlib import Path
from typing import Any

import torch

from pyro_rnp.checkpoint import WEIGHTS, find

STARTED = "started"
"""The note of a run folder that says with which weights another run let it begin."""


class Clock:
    """Begins when it is made."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def made(self, run: str | Path, **how: Any) -> dict[str, Any]:
        """What a result that a run's model gave is to say of itself.

        Args:
            how: what was asked.

        Returns:
            `how`, `weights` (see `fingerprint`), `seconds` so far and `hardware`.
        """
        seconds = time.monotonic() - self.began
        on = hardware(torch.device("cpu"))
        return {**how, "weights": fingerprint(run), "seconds": seconds, "hardware": on}


def fingerprint(run: str | Path) -> str:
    """Twelve digits of the SHA-256 of a run's, or a shipped model's, file of weights."""
    return hashlib.sha256((find(run) / WEIGHTS).read_bytes()).hexdigest()[:12]


def hardware(device: torch.device) -> str:
    """The processor by name, and how many of its cores are used; or the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = torch.get_num_threads()
    return f"{_processor()}, {cores} core{'s' * (cores > 1)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
