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
        Whether the C library took the settings.
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
    """Give the bytes that this process can still have on a device; infinite if it is not known."""
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
    """Read the values of a file in /proc that are in kB, as bytes."""
    rows = (line.split(":", 1) for line in Path(path).read_text().splitlines())
    return {name: 1024 * int(text.split()[0]) for name, text in rows if text.endswith("kB")}


def _contained(size: int) -> int:
    """Bound a size by the memory that a container may have in all (cgroups 2 or 1)."""
    for group in ("memory.max", "memory/memory.limit_in_bytes"):
        file = Path("/sys/fs/cgroup", group)
        if file.exists() and (text := file.read_text().strip()).isdigit():
            size = min(size, int(text))
    return size


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that there is no memory, on a CPU or a device."""
    words = ("DefaultCPUAllocator", "bad_alloc", "could not create a memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def hardware(device: torch.device) -> str:
    """Name the GPU, or the processor and the number of its cores in use."""
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


class StopRequested(Exception):
    """A signal asked a training to stop; `Interrupted`, within Lightning.

    Lightning ends the process where it meets a `KeyboardInterrupt`.

    Args:
        signal_number: the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to stop.

    Args:
        message: what to say to the user.
        signal_number: the signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopSignal:
    """Notes the first SIGINT or SIGTERM; a second one ends the process at once.

    Args:
        tell: is called with the number of the signal that came.

    Attributes:
        number: the number of the signal that came; 0 if none did.
    """

    def __init__(self, tell: Callable[[int], object] | None = None) -> None:
        self.number = 0
        self.tell = tell
        self.main = threading.current_thread() is threading.main_thread()
        """Whether this is the main thread; in others Python takes no signals, and none is noted."""
        self.before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def listen(self) -> None:
        """Take the signals; call it again after other code has set handlers of its own."""
        if self.main and not self.number:
            for s in self.before:
                signal.signal(s, self._note)

    def forget(self) -> None:
        """Put back the handlers that were there before."""
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
        tell: is called with the number of the signal.

    Yields:
        A `StopSignal`, whose `number` tells which signal came.
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
