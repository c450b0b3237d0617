"""Keep large blocks of memory between training steps."""

from __future__ import annotations

import ctypes
import sys


def keep_large_blocks() -> bool:
    """Ask glibc to keep freed memory instead of returning it to the system.

    By default a block of 32 MiB or more is mapped afresh at every allocation, so that each
    training step writes into pages that the kernel first has to clear; generated weights are such
    blocks. Affects the process for good; does nothing outside glibc.

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
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
