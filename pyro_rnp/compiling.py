"""Compiling a model's tensor code in place, by `torch.compile`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from pyro_rnp.precision import plain_autograd


class Compiled(NamedTuple):
    """A compiled function and when it stands for the plain one."""

    run: Callable[..., Any]
    inference: bool
    """Whether it also runs where no gradients are taken, for which it is compiled once more."""

    def now(self) -> bool:
        """Whether the compiled function may run here."""
        return plain_autograd() and (self.inference or torch.is_grad_enabled())


def compiles(device: torch.device, **options: Any) -> bool:
    """Whether `torch.compile` works here; if it does not, a warning says why.

    Args:
        device: for which code would be compiled.
        options: as `torch.compile` takes them.
    """
    try:
        torch.compile(torch.sin, **options)(torch.zeros(2, device=device))
    except Exception as error:  # a compiler that is missing shows itself in many ways
        reason = str(error).strip().splitlines()
        warnings.warn(
            f"torch.compile does not work here ({reason[0] if reason else type(error).__name__}), "
            "so the model runs as it is; on a CPU it needs a C++ compiler, such as g++.",
            stacklevel=3,
        )
        return False
    return True
