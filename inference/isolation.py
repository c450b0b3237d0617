"""The library's own use of a model and of the process: afterwards all is as it was before.

Pyro has one stack of handlers and one parameter store in a process, and torch one random state, so
that one thread at a time may use them.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch
from torch import nn

from inference.system import keep_large_blocks
from pyro_rnp import RNP
from pyro_rnp.contract import PYRO
from pyro_rnp.params import unowned

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


@contextmanager
def alone(rnp: RNP) -> Iterator[None]:
    """Hold Pyro for this thread, with no model in its parameter store, which is as it was after.

    Parameters that the store has for the model take effect first. Parameters of the caller's own,
    which pieces may use, stay there.
    """
    with PYRO:
        rnp.take_over()
        with pyro.get_param_store().scope(unowned()):
            yield


@contextmanager
def frozen(rnp: RNP, seed: int | None = None) -> Iterator[None]:
    """Evaluation mode, and parameters that take no gradients, besides what `alone` does.

    Args:
        seed: of what is drawn; the caller's random state stays as it was. None draws from that.
    """
    with alone(rnp):
        training = rnp.training
        rnp.eval()
        devices = [rnp.device] if rnp.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices, enabled=seed is not None):
                if seed is not None:
                    torch.manual_seed(seed)
                with _constant(rnp):
                    yield
        finally:
            rnp.train(training)


@contextmanager
def _constant(module: nn.Module) -> Iterator[None]:
    """Others in the place of the parameters, of the same memory, that take no gradients.

    The parameters themselves stay as they are, since the backward pass of another thread, which
    need not hold Pyro, leaves out whatever takes no gradient at that moment.
    """
    own = [(m, name, p) for m in module.modules() for name, p in m._parameters.items()]
    for m, name, p in own:
        m._parameters[name] = None if p is None else nn.Parameter(p.detach(), False)
    try:
        yield
    finally:
        for m, name, p in own:
            m._parameters[name] = p
