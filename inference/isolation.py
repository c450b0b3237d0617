"""Contexts that leave the process, Pyro's parameter store and the model as they were before.

Pyro has one stack of handlers and one parameter store in a process, and torch one random state, so
that one thread at a time may use them.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import pyro
import torch
from torch import nn

from inference.system import keep_large_blocks
from pyro_rnp import RNP
from pyro_rnp.contract import PYRO
from pyro_rnp.params import unowned

VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""Environment variables in which Lightning keeps a seed, for processes that it starts."""


@contextmanager
def isolated() -> Iterator[None]:
    """Put back the state of the process at the end, also after an error.

    That state is the number of threads, the random states of torch, NumPy and Python, Lightning's
    seed in the environment and its log level, and the C library's default for freed memory.
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
    """Hold Pyro for this thread, without models in its parameter store, and put the store back.

    Values that the store holds for the model's parameters take effect in the model first. Other
    parameters of the caller, which pieces may use, stay in the store.

    Args:
        rnp: the model that is used.
    """
    with PYRO:
        rnp.take_over()
        with pyro.get_param_store().scope(unowned()):
            yield


@contextmanager
def frozen(rnp: RNP, seed: int | None = None) -> Iterator[None]:
    """Use a model in evaluation mode, without gradients of its parameters, in `alone`.

    Args:
        rnp: the model, whose mode is put back.
        seed: seed of what is drawn, with which the caller's random state stays as it was; None
            draws from the caller's random state.
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


class Snapshot:
    """A copy of a model as it is now, with what its pieces have in Pyro's parameter store.

    Training, loading or clearing the store later do not reach it.

    Args:
        rnp: the model, in `frozen`.
    """

    def __init__(self, rnp: RNP) -> None:
        self.rnp = deepcopy(rnp)
        state = unowned()
        params = {name: value.detach().clone() for name, value in state["params"].items()}
        self._store: Any = {**state, "params": params}

    @contextmanager
    def frozen(self) -> Iterator[RNP]:
        """Use the copy, with its own parameter store, and put the caller's random state back."""
        devices = [self.rnp.device] if self.rnp.device.type == "cuda" else []
        own_store = pyro.get_param_store().scope(self._store)
        with PYRO, torch.random.fork_rng(devices), torch.no_grad(), own_store:
            yield self.rnp


@contextmanager
def _constant(module: nn.Module) -> Iterator[None]:
    """Put parameters that take no gradients, of the same memory, in the place of a module's own.

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
