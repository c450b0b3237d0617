"""Linear layers whose weights another network writes: W(z) = Θ_0 + Σ_r g_r(z) Θ_r.

A hypernetwork's features g give every program of a batch its own layers (`GeneratedLayers`), or all
programs common layers (`SharedLayers`); both turn g into `Layer`s, which each step of the program
applies.

On a CPU most of the cost of a step are the products that write the weights, and the two gradients
of these products. Therefore one product writes a whole set of layers; it has as many blocks as the
layers have units, which keeps both cores busy where one long, thin product does not; and the weight
gradient of a program is formed once over all its steps instead of once a step. This needs plain
autograd: under compilation, a trace or a transform of `torch.func` the layers are ordinary
products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.precision import plain_autograd

Layer = Callable[[Tensor, Tensor | None], Tensor]
"""Takes inputs (programs, columns, in) and a bias, (programs, 1, out) or None, to (programs,
columns, out)."""


class _Shape(NamedTuple):
    """A layer's layout: in its set (units, programs, width), alone (programs, units, width).

    Either the set's units are the layer's outputs and its inputs lie along the width, or the
    reverse.
    """

    width: int
    by_output: bool

    def matrix(self, weight: Tensor) -> Tensor:
        """The layer's weights as (programs, in, out)."""
        return weight.mT if self.by_output else weight

    def gradient(self, x: Tensor, dy: Tensor) -> Tensor:
        """The layer's weight gradient from its rows, (programs, units, width)."""
        return torch.bmm(dy.mT, x) if self.by_output else torch.bmm(x.mT, dy)


class _Tape:
    """The inputs and output gradients of one set of weights, gathered over all applications."""

    def __init__(
        self, shapes: Sequence[_Shape], write: Callable[[], Sequence[Tensor]] | None
    ) -> None:
        self.shapes, self.write = shapes, write
        self.forget()

    def forget(self) -> None:
        self.task = -1
        self.written: Sequence[Tensor] | None = None
        self.inputs: list[list[Tensor]] = [[] for _ in self.shapes]
        self.gradients: list[list[Tensor]] = [[] for _ in self.shapes]

    def open(self) -> None:
        """Begin on another backward pass, if this is one."""
        task = torch._C._current_graph_task_id()
        if task != self.task:  # one that never reached the weights left its rows here
            self.forget()
            self.task = task

    def weight(self, layer: int) -> Tensor:
        """A layer's weights, written again for this pass."""
        self.open()
        if self.written is None:
            assert self.write is not None
            self.written = self.write()
        return self.written[layer]

    def record(self, layer: int, x: Tensor, dy: Tensor) -> None:
        self.open()
        self.inputs[layer].append(x)
        self.gradients[layer].append(dy)

    def close(self) -> list[Tensor | None]:
        """The gradient of each layer's weights, (programs, units, width), from this pass."""
        self.open()
        gradients = [
            shape.gradient(torch.cat(x, 1), torch.cat(dy, 1)) if x else None
            for shape, x, dy in zip(self.shapes, self.inputs, self.gradients, strict=True)
        ]
        self.forget()
        return gradients


class _Write(torch.autograd.Function):
    """g, Θ -> each layer's W(g); gradients come from the tape, or directly to be derived again."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, basis: Tensor, tape: _Tape) -> tuple[Tensor, ...]:
        ctx.save_for_backward(g, basis)
        ctx.tape = tape
        ctx.set_materialize_grads(False)
        return _write(g, basis, tape.shapes)

    @staticmethod
    def backward(ctx: Any, *direct: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        g, basis = ctx.saved_tensors
        gradients = [
            a if b is None else b if a is None else a + b
            for a, b in zip(direct, ctx.tape.close(), strict=True)
        ]
        known = next((d for d in gradients if d is not None), None)
        if known is None:
            return None, None, None
        ones_g, dgs, dbases = _augmented(g).to(known.dtype), [], []
        for theta, d in zip(_thetas(basis, ctx.tape.shapes), gradients, strict=True):
            if d is None:
                dbases.append(torch.zeros_like(theta, dtype=known.dtype))
                continue
            if ctx.needs_input_grad[0]:
                dgs.append(_towards_g(theta.to(d.dtype), d))
            if ctx.needs_input_grad[1]:
                dbases.append(_towards_theta(ones_g, theta, d))
        dg = sum(dgs[1:], dgs[0]).to(g.dtype) if dgs else None
        dbasis = None
        if ctx.needs_input_grad[1]:  # one layer may be large, so that a copy takes its time
            dbasis = (torch.cat(dbases, -1) if len(dbases) > 1 else dbases[0]).to(basis.dtype)
        return dg, dbasis, None


class _Apply(torch.autograd.Function):
    """x W (+ b) for each program, leaving the gradient of W to the tape."""

    @staticmethod
    def forward(
        ctx: Any, tape: _Tape, layer: int, weight: Tensor, x: Tensor, bias: Tensor | None
    ) -> Tensor:
        y = _apply(tape.shapes[layer].matrix(weight), x, bias)
        ctx.save_for_backward(x, *([] if tape.write else [weight]))
        ctx.tape, ctx.layer, ctx.has_bias = tape, layer, bias is not None
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: checkpointing makes them anew for each look
        x, *kept = (t.to(dy.dtype) for t in saved)  # autocast may have chosen another
        shape = ctx.tape.shapes[ctx.layer]
        direct = dx = None
        if torch.is_grad_enabled():  # this pass will itself be derived: the tape would hide it
            if not kept:
                raise RuntimeError("Second derivatives need recompute_levels=0.")
            direct = shape.gradient(x, dy)
        else:
            ctx.tape.record(ctx.layer, x, dy)
        if ctx.needs_input_grad[3]:
            weight = kept[0] if kept else ctx.tape.weight(ctx.layer).to(dy.dtype)
            dx = torch.bmm(dy, shape.matrix(weight).mT)
        if dx is not None:
            dx = dx.to(saved[0].dtype)
        return None, None, direct, dx, _rows_sum(dy) if ctx.has_bias else None


def _augmented(g: Tensor) -> Tensor:
    """Features with g_0 = 1 in front."""
    return F.pad(g, (1, 0), value=1.0)


def _thetas(basis: Tensor, shapes: Sequence[_Shape]) -> Sequence[Tensor]:
    return basis.split([shape.width for shape in shapes], -1)


def _write(g: Tensor, basis: Tensor, shapes: Sequence[_Shape]) -> tuple[Tensor, ...]:
    ones_g = _augmented(g)
    return tuple(_written(ones_g, theta) for theta in _thetas(basis, shapes))


def _by_unit(theta: Tensor) -> bool:
    """Whether a layer is large: a product for each unit keeps more cores busy than a wide one."""
    return theta.shape[-1] > 512


def _written(ones_g: Tensor, theta: Tensor) -> Tensor:
    """One layer's weights, (programs, units, width), in one piece where the layer is small.

    Args:
        ones_g: features with 1 in front, (programs, 1 + R).
        theta: (units, 1 + R, width).
    """
    if _by_unit(theta):
        return torch.bmm(ones_g.expand(len(theta), -1, -1), theta).transpose(0, 1)
    return (ones_g @ _row(theta)).view(len(ones_g), len(theta), theta.shape[-1])


def _towards_g(theta: Tensor, d: Tensor) -> Tensor:
    """The gradient of g from that of one layer's weights, d, (programs, units, width)."""
    if _by_unit(theta):
        return torch.bmm(d.transpose(0, 1), theta[:, 1:].mT).sum(0)
    return d.reshape(len(d), d.shape[1] * d.shape[2]) @ _row(theta)[1:].mT


def _towards_theta(ones_g: Tensor, theta: Tensor, d: Tensor) -> Tensor:
    """The gradient of Θ from that of one layer's weights, d, (programs, units, width)."""
    if _by_unit(theta):
        return torch.bmm(ones_g.expand(len(theta), -1, -1).mT, d.transpose(0, 1))
    rows = ones_g.mT @ d.reshape(len(d), d.shape[1] * d.shape[2])
    return rows.view(theta.shape[1], len(theta), -1).transpose(0, 1)


def _row(theta: Tensor) -> Tensor:
    """Θ of a layer as rows, (1 + R, units * width)."""
    return theta.transpose(0, 1).reshape(theta.shape[1], -1)


def _autocast(like: Tensor) -> tuple[str, torch.dtype, bool]:
    """The arguments of the autocast that is active; a backward pass runs without it."""
    device = like.device.type
    return device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)


def _write_as(
    precision: tuple[str, torch.dtype, bool], g: Tensor, basis: Tensor, shapes: Sequence[_Shape]
) -> tuple[Tensor, ...]:
    with torch.autocast(*precision):
        return _write(g, basis, shapes)


def _rows_sum(dy: Tensor) -> Tensor:
    return dy if dy.shape[1] == 1 else dy.sum(1, keepdim=True)


def _apply(matrix: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    # Rows times W: a batched product of one row is several times faster than of one column.
    return torch.bmm(x, matrix) if bias is None else torch.baddbmm(bias, x, matrix)


class GeneratedLayers(nn.Module):
    """A set of linear layers for each program: features g, (P, R), to `Layer`s.

    At the start the part of a weight that all programs share has the variance of an ordinary linear
    layer, 1 / fan-in, and the part that differs between programs `spread` squared times as much for
    features of unit variance.

    Source: the paper, section 2.1, the heads of the hypernetwork.

    Args:
        features: R, the number of features.
        units: the number of inputs or of outputs that all layers of the set have.
        shapes: (in, out) of each layer.
        spread: the standard deviation of the part that differs, over that of the shared part.

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
        self.shapes = [_Shape(i if o == units else o, o == units) for i, o in shapes]
        self.widths = [shape.width for shape in self.shapes]
        self.basis = nn.Parameter(torch.empty(units, 1 + features, sum(self.widths)))
        """Θ, unit by unit: (units, 1 + R, width), Θ_0 first."""
        with torch.no_grad():
            for own, (i, _) in zip(self.basis.split(self.widths, -1), shapes, strict=True):
                own[:, :1].normal_(std=i**-0.5)
                own[:, 1:].normal_(std=spread * i**-0.5 / math.sqrt(features))

    def thetas(self) -> list[Float[Tensor, "_ _ _"]]:
        """Each layer's Θ in the paper's form, (1 + R, out, in), Θ_0 first, as views of `basis`."""
        own = zip(self.shapes, self.basis.split(self.widths, -1), strict=True)
        return [shape.matrix(theta.transpose(0, 1)).mT for shape, theta in own]

    def forward(self, g: Float[Tensor, "p r"], recompute: bool = False) -> list[Layer]:
        """The layers of P programs.

        Args:
            g: features, (P, R).
            recompute: write the weights again in the backward pass instead of keeping them, where
                plain autograd runs; by default false.

        Raises:
            RuntimeError: in a backward pass that creates a graph, if `recompute` is true.
        """
        learning = torch.is_grad_enabled() and (g.requires_grad or self.basis.requires_grad)
        if not (learning and plain_autograd()):
            written = zip(self.shapes, _write(g, self.basis, self.shapes), strict=True)
            return [partial(_apply, shape.matrix(weight)) for shape, weight in written]
        again = None
        if recompute:
            again = partial(_write_as, _autocast(g), g.detach(), self.basis.detach(), self.shapes)
        tape = _Tape(self.shapes, again)
        weights = enumerate(_Write.apply(g, self.basis, tape))
        return [partial(_Apply.apply, tape, i, weight) for i, weight in weights]


class FactoredLayers(nn.Module):
    """A set of linear layers for each program, in factors: W(z) = A diag(h(z)) B.

    A and B are common to all programs, and the gains h are linear in the features g. Nothing is
    written for a program but its gains, so that a layer costs as much as two common ones. It is the
    form W(z) = Θ_0 + Σ_r g_r Θ_r of `GeneratedLayers` with Θ_r = A diag(h_r) B, and starts with the
    same variances.

    Source: Sutskever et al., "Generating text with recurrent neural networks", ICML 2011.

    Args:
        features: R, the number of features.
        units: unused.
        shapes: (in, out) of each layer.
        factors: the number of gains of each layer.
    """

    def __init__(
        self, features: int, units: int, shapes: Sequence[tuple[int, int]], factors: int
    ) -> None:
        super().__init__()
        self.gains = nn.Linear(features, factors * len(shapes))
        nn.init.normal_(self.gains.weight, std=features**-0.5)
        nn.init.ones_(self.gains.bias)
        self.a = nn.ParameterList(torch.randn(i, factors) * i**-0.5 for i, _ in shapes)
        self.b = nn.ParameterList(torch.randn(factors, o) * factors**-0.5 for _, o in shapes)

    def thetas(self) -> list[Float[Tensor, "_ _ _"]]:
        """Each layer's Θ in the paper's form, (1 + R, out, in), Θ_0 first."""
        gains = torch.cat([self.gains.bias.unsqueeze(1), self.gains.weight], 1).chunk(len(self.a))
        layers = zip(self.a, gains, self.b, strict=True)
        return [torch.einsum("if,fr,fo->roi", a, h, b) for a, h, b in layers]

    def forward(self, g: Float[Tensor, "p r"], recompute: bool = False) -> list[Layer]:
        """The layers of P programs.

        Args:
            g: features, (P, R).
            recompute: unused, since no weights are written.
        """
        gains = self.gains(g).chunk(len(self.a), 1)
        return [partial(_factored, *each) for each in zip(self.a, gains, self.b, strict=True)]


def _factored(a: Tensor, gains: Tensor, b: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    if x.shape[1] == 1:  # a row for each program: products of two matrices
        inner = (x.squeeze(1) @ a) * gains
        y = inner @ b if bias is None else torch.addmm(bias.squeeze(1), inner, b)
        return y.unsqueeze(1)
    y = ((x @ a) * gains.unsqueeze(1)) @ b
    return y if bias is None else y + bias


class SharedLayers(nn.Module):
    """Linear layers that all programs share, with the interface of `GeneratedLayers`.

    Args:
        features: unused.
        units: unused.
        shapes: (in, out) of each layer.
    """

    def __init__(self, features: int, units: int, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        linears = [nn.Linear(i, o, bias=False) for i, o in shapes]
        self.weights = nn.ParameterList(linear.weight for linear in linears)

    def thetas(self) -> list[Float[Tensor, "_ _ _"]]:
        """Each layer's weights as Θ_0 alone, (1, out, in)."""
        return [weight.unsqueeze(0) for weight in self.weights]

    def forward(self, g: Float[Tensor, "p r"], recompute: bool = False) -> list[Layer]:
        return [partial(_shared, weight) for weight in self.weights]


def _shared(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    y = F.linear(x, weight)
    return y if bias is None else y + bias
