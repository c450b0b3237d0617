"""Memory, the processor's name, and signals."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from inference.system import hardware, listening

FAULTS = """
import resource, torch
from inference.system import keep_large_blocks
kept = keep_large_blocks()
if not {keep}:
    keep_large_blocks(False)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for mib in 5 * [64, 40, 100]:  # sizes in turn, as in a training step
        torch.ones(mib * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults())
"""


def count(keep):
    code = FAULTS.format(keep=keep)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, faults = ran.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_page_faults_stop_and_come_back():
    kept, after = count(True)
    if not kept:
        pytest.skip("not glibc")
    before = count(False)[1]
    assert after < before / 5


def test_one_core_is_one_core(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert hardware(torch.device("cpu")).endswith(", 1 core")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert hardware(torch.device("cpu")).endswith(", 2 cores")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_is_as_before(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append("before"))
    try:
        with listening() as stop:
            assert stop.number == 0
            os.kill(os.getpid(), number)
            assert (stop.number, seen) == (number, [])
            os.kill(os.getpid(), number)
            assert seen == ["before"]
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)
        os.kill(os.getpid(), number)
        assert seen == ["before", "before"]
    finally:
        signal.signal(number, before)
