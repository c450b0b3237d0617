"""Geometry and densities in at least float32, also under autocast and in half precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor, nn


def constant(make: Callable[[Any, torch.dtype, torch.device], Any]) -> Callable[..., Any]:
    """A function of a hashable value and of a tensor, whose results are made once and kept.

    The result depends on the value and on the tensor's type and device. It is made anew where
    tensors are no ordinary ones: while a graph is recorded, and of fake tensors.

    Args:
        make: makes the result from the value, a dtype and a device.
    """

    @lru_cache
    def kept(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
        with torch.inference_mode(False):  # else no later graph could hold what is kept
            return make(value, dtype, device)

    @wraps(make)
    def made(value: Any, like: Tensor) -> Any:
        ordinary = plain_autograd() and type(like) in (Tensor, nn.Parameter)
        return (kept if ordinary else make)(value, like.dtype, like.device)

    return made


def full_precision(x: Tensor) -> Tensor:
    """The tensor in at least float32.

    Args:
        x: a floating-point tensor of any shape.

    Returns:
        `x` itself if it is float32 or float64, else a copy in float32.
    """
    return x if x.dtype == torch.float64 else x.float()


def in_full_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that computes in at least float32, also where autocast is on.

    Args:
        method: a method whose arguments beside `self` are floating-point tensors, one or more.
    """

    @wraps(method)
    def careful(self: Any, first: Tensor, *rest: Tensor, **named: Tensor) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            more = {name: full_precision(tensor) for name, tensor in named.items()}
            return method(self, full_precision(first), *map(full_precision, rest), **more)

    return careful


def plain_autograd() -> bool:
    """Whether autograd alone follows what runs here.

    `torch.compile` and `torch.jit.trace` record a graph to run it again, and the transforms of
    `torch.func` and forward-mode derivatives go their own way; none of them follows an
    `autograd.Function` in full.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )
