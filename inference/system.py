"""The machine: its memory, its processor's name, and signals that ask a process to end."""

from __future__ import annotations

import ctypes
import math
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

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


class Interrupted(Exception):
    """Asked to stop, by a signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopSignal:
    """The first SIGINT or SIGTERM that came, if any; a second one ends the process at once."""

    def __init__(self, tell: Callable[[int], object] | None = None) -> None:
        self.number = 0
        self.tell = tell
        self.main = threading.current_thread() is threading.main_thread()
        """Elsewhere Python takes no signals, and nothing here changes."""
        self.before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def listen(self) -> None:
        """Note signals instead of ending; again where other code has changed that."""
        if self.main and not self.number:
            for s in self.before:
                signal.signal(s, self._note)

    def forget(self) -> None:
        """Do as before."""
        if self.main:
            for s, handler in self.before.items():
                signal.signal(s, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.forget()
        if self.tell is not None:
            self.tell(number)


@contextmanager
def listening(tell: Callable[[int], object] | None = None) -> Iterator[StopSignal]:
    """Note the first SIGINT or SIGTERM instead of ending at once.

    Args:
        tell: what is called with its number.
    """
    stop = StopSignal(tell)
    stop.listen()
    try:
        yield stop
    finally:
        stop.forget()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the work within at once.

    Training within, which notes signals to save a checkpoint first, does so as ever. A second
    signal ends that too.

    Raises:
        Interrupted: if one came.
    """
    came = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()  # elsewhere there are no signals
    before = {s: signal.signal(s, stop) for s in signals} if main else {}
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if not came:
            raise
        raise Interrupted("Stopped.", came[0]) from error
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
