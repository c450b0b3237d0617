"""Linear layers whose weights another network writes: W(z) = Θ_0 + Σ_r g_r(z) Θ_r.

A hypernetwork's features g give every program of a batch a layer of its own (`GeneratedLinear`), or
all programs one layer in common (`SharedLinear`); both turn g into a `Layer` that is then applied
at each step of the program.

On a CPU the generated weights are far larger than what passes through them, so memory traffic is
what a step costs. Plain autograd writes one weight gradient per application and adds them up; here
each application only records its input and output gradient, and the weight gradient is formed once
per program, as one product over all steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]
"""(programs, columns, in) -> (programs, columns, out): one program's layer on each row."""


@dataclass
class _Tape:
    """Inputs and output gradients of one weight's applications, for one backward pass."""

    task: int = -1
    inputs: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    def record(self, x: Tensor, dy: Tensor) -> None:
        task = torch._C._current_graph_task_id()
        if task != self.task:  # a backward pass that never reached the weight left its rows here
            self.task, self.inputs, self.gradients = task, [], []
        self.inputs.append(x)
        self.gradients.append(dy)

    def weight_gradient(self) -> Tensor | None:
        if self.task != torch._C._current_graph_task_id():
            return None
        x, dy = torch.cat(self.inputs, 1), torch.cat(self.gradients, 1)
        self.task, self.inputs, self.gradients = -1, [], []
        return torch.bmm(dy.mT, x)


class _Record(torch.autograd.Function):
    """The identity on a weight; its backward is the weight gradient of all applications."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, tape: _Tape) -> Tensor:
        ctx.tape = tape
        ctx.set_materialize_grads(False)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        assert grad is None  # the recorded weight is seen by `_Apply` alone
        if torch.is_grad_enabled():  # create_graph=True: the tape would hide a dependence
            raise RuntimeError("Generated layers have first derivatives only.")
        return ctx.tape.weight_gradient(), None


class _Apply(torch.autograd.Function):
    """x W^T (+ b) for each program, leaving the weight's gradient to the tape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tape: _Tape) -> Tensor:
        y = _apply(x, weight, bias)
        ctx.save_for_backward(x.to(y.dtype), weight.to(y.dtype))  # autocast may have chosen another
        ctx.tape, ctx.has_bias = tape, bias is not None
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        ctx.tape.record(x, dy)
        dx = torch.bmm(dy, weight) if ctx.needs_input_grad[0] else None
        return dx, None, dy.sum(1, keepdim=True) if ctx.has_bias else None, None


def _apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Rows times W^T: a batched product of one row is several times faster than of one column.
    return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias, x, weight.mT)


class GeneratedLinear(nn.Module):
    """A linear layer for each program: features g (P, R) to a `Layer` on (P, columns, in).

    At the start every program has nearly the same layer, with the spread of an ordinary linear
    layer (variance 1 / fan-in), and what differs between programs has as much variance again
    times `spread` squared for features of unit variance.
    """

    def __init__(
        self, features: int, fan_in: int, fan_out: int, bias: bool = True, spread: float = 1.0
    ) -> None:
        super().__init__()
        self.fan_in, self.fan_out = fan_in, fan_out
        self.weight = nn.Linear(features, fan_out * fan_in)
        self.bias = nn.Linear(features, fan_out) if bias else None
        std = fan_in**-0.5
        nn.init.normal_(self.weight.bias, std=std)
        nn.init.normal_(self.weight.weight, std=spread * std / math.sqrt(features))
        if self.bias is not None:
            nn.init.zeros_(self.bias.bias)
            nn.init.normal_(self.bias.weight, std=spread * std / math.sqrt(features))

    @property
    def offset(self) -> Tensor:
        """What all programs' biases have in common, (out,)."""
        assert self.bias is not None
        return self.bias.bias

    def forward(self, g: Float[Tensor, "p r"]) -> Layer:
        weight = self.weight(g).view(-1, self.fan_out, self.fan_in)
        bias = None if self.bias is None else self.bias(g).unsqueeze(1)
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return lambda x: _apply(x, weight, bias)
        tape = _Tape()
        recorded = _Record.apply(weight, tape)
        return lambda x: _Apply.apply(x, recorded, bias, tape)


class SharedLinear(nn.Linear):
    """One linear layer in common for all programs, under the contract of `GeneratedLinear`."""

    def __init__(self, features: int, fan_in: int, fan_out: int, bias: bool = True) -> None:
        super().__init__(fan_in, fan_out, bias)

    @property
    def offset(self) -> Tensor:
        """The bias, (out,)."""
        return self.bias

    def forward(self, g: Float[Tensor, "p r"]) -> Layer:  # type: ignore[override]
        return super().forward
