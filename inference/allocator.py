"""Memory: keep large blocks between training steps, and never ask for more than there is."""

from __future__ import annotations

import ctypes
import math
import sys
from pathlib import Path

import torch


def keep_large_blocks(keep: bool = True) -> bool:
    """Ask glibc to keep freed memory instead of returning it to the system.

    By default a block of 32 MiB or more is mapped afresh at every allocation, so that each
    training step writes into pages that the kernel first has to clear; generated weights are such
    blocks. Kept memory is cut into pieces that do not always fit: where memory is short, do not
    keep it. Affects the whole process; does nothing outside glibc.

    Args:
        keep: False goes back to the default.

    Returns:
        Whether the settings were taken.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    blocks, threshold = (0, -1) if keep else (65536, 128 * 1024)
    return bool(mallopt(M_MMAP_MAX, blocks)) and bool(mallopt(M_TRIM_THRESHOLD, threshold))


def limit_memory() -> bool:
    """Let an allocation fail that is more than the whole machine has.

    By default Linux grants it and then kills the process, with no word and no last checkpoint.
    Affects the process for good; does nothing where there is no such limit.

    Returns:
        Whether a limit was set.
    """
    if not sys.platform.startswith("linux"):
        return False
    import resource

    memory = _sizes("/proc/meminfo")
    limit = _contained(memory["MemTotal"] + memory["SwapTotal"])
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY and soft <= limit:
        return False
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return True


def available_memory(device: torch.device) -> float:
    """Bytes that are free for this process on a device; infinite where nobody says."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if not sys.platform.startswith("linux"):
        return math.inf
    import resource

    memory, own = _sizes("/proc/meminfo"), _sizes("/proc/self/status")
    free = memory["MemAvailable"] + memory["SwapFree"]
    free = min(free, _contained(free + own["VmRSS"]) - own["VmRSS"])
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return float(free if soft == resource.RLIM_INFINITY else min(free, soft - own["VmData"]))


def _sizes(path: str) -> dict[str, int]:
    """What a file of /proc says in kB, in bytes."""
    rows = (line.split(":", 1) for line in Path(path).read_text().splitlines())
    return {name: 1024 * int(text.split()[0]) for name, text in rows if text.endswith("kB")}


def _contained(size: int) -> int:
    """At most the memory that a container, new or old, may have in all."""
    for group in ("memory.max", "memory/memory.limit_in_bytes"):
        file = Path("/sys/fs/cgroup", group)
        if file.exists() and (text := file.read_text().strip()).isdigit():
            size = min(size, int(text))
    return size


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory, on a CPU or a device."""
    words = ("DefaultCPUAllocator", "bad_alloc", "could not create a memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
