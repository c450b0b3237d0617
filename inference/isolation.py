"""What training changes in its process for a while, and puts back."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from inference.allocator import keep_large_blocks

VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""Where Lightning keeps a seed in the environment, for processes that it starts."""


@contextmanager
def isolated() -> Iterator[None]:
    """Whatever happens meanwhile, the process is afterwards as it was before.

    That is the number of its threads, the random states of torch, NumPy and Python, Lightning's
    seed in the environment and its log level; freed memory is kept as the C library has it.
    """
    threads, states = torch.get_num_threads(), (random.getstate(), np.random.get_state())
    environment = {name: os.environ.get(name) for name in VARIABLES}
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        log.setLevel(level)
        keep_large_blocks(False)
