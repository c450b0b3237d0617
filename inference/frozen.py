"""The library's own use of a model: nothing of it stays in Pyro, torch or the model.

Pyro has one stack of handlers and one parameter store in a process, and torch one random state, so
that one thread at a time may use them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch

from pyro_rnp import RNP
from pyro_rnp.params import unowned

PYRO = threading.RLock()
"""Held by the thread that uses Pyro."""


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
        training, learning = rnp.training, [p for p in rnp.parameters() if p.requires_grad]
        rnp.eval().requires_grad_(False)
        devices = [rnp.device] if rnp.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices, enabled=seed is not None):
                if seed is not None:
                    torch.manual_seed(seed)
                yield
        finally:
            rnp.train(training)
            for p in learning:
                p.requires_grad_(True)
