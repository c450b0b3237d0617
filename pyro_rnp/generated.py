"""Linear layers whose weights another network writes: W(z) = Θ_0 + Σ_r g_r(z) Θ_r.

A hypernetwork's features g give every program of a batch layers of its own (`GeneratedLayers`), or
all programs layers in common (`SharedLayers`); both turn g into `Layer`s that are then applied at
each step of the program.

On a CPU the products that write the weights, and their two gradients, are most of what a step
costs. So layers are written together, one product for a whole set; the product is cut into as many
blocks as the layers have units, which keeps both cores busy where one long, thin product does not;
and the weight gradient of a program is formed once, over all its steps, instead of once a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Layer = Callable[[Tensor, Tensor | None], Tensor]
"""(programs, columns, in), bias (programs, 1, out) -> (programs, columns, out)."""


class _Place(NamedTuple):
    """Where a layer's weights are in those of its set, (units, programs, width).

    The set's units are the layer's outputs, and its inputs lie along the width, or the reverse.
    """

    start: int
    stop: int
    by_output: bool

    def of(self, weights: Tensor) -> Tensor:
        """This layer's weights, (programs, in, out)."""
        part = weights[..., self.start : self.stop]
        return part.permute(1, 2, 0) if self.by_output else part.transpose(0, 1)

    def gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """The layer's weight gradient from its rows, (programs, units, stop - start)."""
        return torch.bmm(dy.mT, x) if self.by_output else torch.bmm(x.mT, dy)


class _Tape:
    """One set of weights: what its backward pass needs, gathered from all applications."""

    def __init__(self, places: Sequence[_Place], write: Callable[[], Tensor] | None) -> None:
        self.places, self.write = places, write
        self.forget()

    def forget(self) -> None:
        self.task, self.written = -1, None
        self.inputs: list[list[Tensor]] = [[] for _ in self.places]
        self.gradients: list[list[Tensor]] = [[] for _ in self.places]

    def open(self) -> None:
        """Begin on another backward pass, if this is one."""
        task = torch._C._current_graph_task_id()
        if task != self.task:  # one that never reached the weights left its rows here
            self.forget()
            self.task = task

    def weights(self) -> Tensor:
        """The weights, written again."""
        self.open()
        if self.written is None:
            assert self.write is not None
            self.written = self.write()
        return self.written

    def record(self, layer: int, x: Tensor, dy: Tensor) -> None:
        self.open()
        self.inputs[layer].append(x)
        self.gradients[layer].append(dy)

    def gradient(self, like: Tensor) -> Tensor | None:
        """The gradient of all weights, (programs, units, width), of the pass that asks."""
        self.open()
        rows = list(zip(self.places, self.inputs, self.gradients, strict=True))
        self.forget()
        if not any(x for _, x, _ in rows):
            return None
        units, programs = like.shape[:2]
        parts = [
            place.gradient(torch.cat(x, 1), torch.cat(dy, 1))
            if x
            else like.new_zeros(programs, units, place.stop - place.start)
            for place, x, dy in rows
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


class _Write(torch.autograd.Function):
    """g, Θ -> W(g); the gradient of W comes from the tape, save where it is to be derived again."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, basis: Tensor, tape: _Tape) -> Tensor:
        weights = _write(g, basis)
        ctx.save_for_backward(g, basis)
        ctx.tape, ctx.like = tape, weights.new_empty(0).expand(*weights.shape[:2], 0)
        ctx.set_materialize_grads(False)
        return weights

    @staticmethod
    def backward(ctx: Any, direct: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        g, basis = ctx.saved_tensors
        d = ctx.tape.gradient(ctx.like)
        if direct is not None:
            d = direct.transpose(0, 1) if d is None else d + direct.transpose(0, 1)
        if d is None:
            return None, None, None
        d = d.transpose(0, 1)
        blocks = _augmented(g).to(d.dtype).expand(len(d), -1, -1)
        dg = torch.bmm(d, basis[:, 1:].mT.to(d.dtype)).sum(0) if ctx.needs_input_grad[0] else None
        dbasis = torch.bmm(blocks.mT, d) if ctx.needs_input_grad[1] else None
        return (
            None if dg is None else dg.to(g.dtype),
            None if dbasis is None else dbasis.to(basis.dtype),
            None,
        )


class _Apply(torch.autograd.Function):
    """x W (+ b) for each program, leaving the gradient of W to the tape."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, bias: Tensor | None, tape: _Tape, layer: int
    ) -> Tensor:
        y = _apply(x, tape.places[layer].of(weights), bias)
        kept = [] if tape.write else [weights.to(y.dtype)]  # autocast may have chosen another
        ctx.save_for_backward(x.to(y.dtype), *kept)
        ctx.tape, ctx.layer, ctx.has_bias = tape, layer, bias is not None
        ctx.width = weights.shape[-1]
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, *kept = ctx.saved_tensors
        place = ctx.tape.places[ctx.layer]
        direct = None
        if torch.is_grad_enabled():  # this pass will itself be derived: the tape would hide it
            if not kept:
                raise RuntimeError("Second derivatives need recompute_levels=0.")
            d = place.gradient(x, dy).transpose(0, 1)
            direct = F.pad(d, (place.start, ctx.width - place.stop))
        else:
            ctx.tape.record(ctx.layer, x, dy)
        dx = None
        if ctx.needs_input_grad[0]:
            weights = kept[0] if kept else ctx.tape.weights().to(dy.dtype)
            dx = torch.bmm(dy, place.of(weights).mT)
        return dx, direct, dy.sum(1, keepdim=True) if ctx.has_bias else None, None, None


def _augmented(g: Tensor) -> Tensor:
    """Features with g_0 = 1 in front."""
    return F.pad(g, (1, 0), value=1.0)


def _write(g: Tensor, basis: Tensor) -> Tensor:
    return torch.bmm(_augmented(g).expand(len(basis), -1, -1), basis)


def _apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Rows times W: a batched product of one row is several times faster than of one column.
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)


class GeneratedLayers(nn.Module):
    """A set of linear layers for each program: features g (P, R) to a `Layer` each.

    At the start every program has nearly the same layers, with the spread of ordinary linear
    layers (variance 1 / fan-in), and what differs between programs has as much variance again
    times `spread` squared for features of unit variance.

    Args:
        features: R.
        units: what every layer of the set has as its number of inputs or of outputs.
        shapes: (in, out) of each layer.
        spread: see above.

    Raises:
        ValueError: if a layer has another number of inputs and of outputs than `units`.
    """

    def __init__(
        self, features: int, units: int, shapes: Sequence[tuple[int, int]], spread: float = 1.0
    ) -> None:
        super().__init__()
        for shape in shapes:
            if units not in shape:
                raise ValueError(f"A layer of {shape} has no side of {units} units.")
        widths = [i if o == units else o for i, o in shapes]
        stops = list(accumulate(widths))
        self.places = [
            _Place(stop - width, stop, o == units)
            for stop, width, (_, o) in zip(stops, widths, shapes, strict=True)
        ]
        self.basis = nn.Parameter(torch.empty(units, 1 + features, stops[-1]))
        """Θ, unit by unit: (units, 1 + R, width), Θ_0 first."""
        with torch.no_grad():
            for place, (i, _) in zip(self.places, shapes, strict=True):
                own = self.basis[..., place.start : place.stop]
                own[:, :1].normal_(std=i**-0.5)
                own[:, 1:].normal_(std=spread * i**-0.5 / math.sqrt(features))

    def thetas(self) -> list[Float[Tensor, "_ _ _"]]:
        """Each layer's Θ as the paper has it, (1 + R, out, in), Θ_0 first: views of `basis`."""
        return [place.of(self.basis).transpose(1, 2) for place in self.places]

    def forward(self, g: Float[Tensor, "p r"], recompute: bool = False) -> list[Layer]:
        """The layers of P programs.

        Args:
            g: features, (P, R).
            recompute: write the weights again in the backward pass instead of keeping them.
        """
        if not (torch.is_grad_enabled() and (g.requires_grad or self.basis.requires_grad)):
            written = _write(g, self.basis)
            return [
                lambda x, bias=None, p=place: _apply(x, p.of(written), bias)
                for place in self.places
            ]
        again = (lambda: _write(g.detach(), self.basis.detach())) if recompute else None
        tape = _Tape(self.places, again)
        weights = _Write.apply(g, self.basis, tape)
        return [
            lambda x, bias=None, i=i: _Apply.apply(x, weights, bias, tape, i)
            for i in range(len(self.places))
        ]


class SharedLayers(nn.Module):
    """Linear layers in common for all programs, under the contract of `GeneratedLayers`."""

    def __init__(self, features: int, units: int, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in shapes)

    def thetas(self) -> list[Float[Tensor, "_ _ _"]]:
        """Each layer's weights as Θ_0 alone, (1, out, in)."""
        return [layer.weight.unsqueeze(0) for layer in self.layers]

    def forward(self, g: Float[Tensor, "p r"], recompute: bool = False) -> list[Layer]:
        return [
            lambda x, bias=None, f=layer: f(x) if bias is None else f(x) + bias
            for layer in self.layers
        ]
