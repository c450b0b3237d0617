"""Memory: keep large blocks between training steps, and never ask for more than there is."""

from __future__ import annotations

import ctypes
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

    memory = {
        name: 1024 * int(value.split()[0])
        for name, value in (
            line.split(":") for line in Path("/proc/meminfo").read_text().splitlines()
        )
        if value.endswith("kB")
    }
    limit = memory["MemTotal"] + memory["SwapTotal"]
    for group in ("memory.max", "memory/memory.limit_in_bytes"):  # a container's, new and old
        file = Path("/sys/fs/cgroup", group)
        if file.exists() and (text := file.read_text().strip()).isdigit():
            limit = min(limit, int(text))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY and soft <= limit:
        return False
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return True


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory, on a CPU or a device."""
    words = ("DefaultCPUAllocator", "bad_alloc", "could not create a memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
