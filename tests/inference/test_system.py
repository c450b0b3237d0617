"""Large blocks are reused once the allocator is asked to keep them."""

import subprocess
import sys

import pytest

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
