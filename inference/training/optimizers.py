"""What takes the steps of training: Adam, or Muon for the matrices of the networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from pyro_rnp import RNP
from pyro_rnp.generated_layers import FactoredLayers, GeneratedLayers
from pyro_rnp.hypernet import Hypernetwork

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration, as published: five steps bring singular values near 1."""


class Muon(torch.optim.Adam):
    """Muon for matrices, Adam for all other parameters.

    The step of a matrix is its momentum (Nesterov's, 0.95) with all singular values brought near 1,
    scaled so that its root mean square is the learning rate, about that of a step of Adam. Kernels
    of convolutions count as matrices with a row for each channel. Matrices of one shape are
    taken together, in their own precision; `torch.optim.Muon` takes them one by one and in
    bfloat16, which is four times as slow on a CPU.

    A step whose `found_inf` is not zero changes nothing, as with Adam.

    Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks"; Liu et
    al. (2025), arXiv 2502.16982, for the idea to match Adam's root mean square.

    Args:
        matrices: parameters of two dimensions or more.
        others: all other parameters.
        lr: learning rate of both.
        momentum: share of the former momentum that is kept, in [0, 1).
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__([{"params": list(some)} for some in (matrices, others)], lr, fused=True)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step.

        Args:
            closure: computes the loss and the gradients.

        Returns:
            What the closure returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self._step_matrices([p for p in groups[0]["params"] if p.grad is not None], groups[0]["lr"])
        self.param_groups = groups[1:]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_matrices(self, matrices: list[nn.Parameter], lr: float) -> None:
        """The share of the step that is Muon's."""

        def shape(p: Tensor) -> tuple[int, int]:
            return len(p), p[0].numel()

        for (rows, columns), some in groupby(sorted(matrices, key=shape), shape):
            same = list(some)
            directions = torch.stack([self._direction(p).flatten(1) for p in same])
            size = lr * max(rows, columns) ** 0.5
            if self.found_inf is not None:
                size = torch.where(self.found_inf > 0, 0.0, size)
            for p, step in zip(same, orthogonal(directions), strict=True):
                p.sub_((size * step).view_as(p))

    def _direction(self, p: nn.Parameter) -> Tensor:
        """The momentum of a matrix after this step's gradient, one step ahead."""
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())  # which Adam looks for when it loads a state
            state["momentum"] = torch.zeros_like(p)
        state["step"] += 1
        past, grad = state["momentum"], p.grad
        assert grad is not None
        if self.found_inf is not None:
            grad = torch.where(self.found_inf > 0, past, grad)
        past.lerp_(grad, 1 - self.momentum)
        return grad.lerp(past, self.momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring all singular values of matrices near 1 by five Newton-Schulz steps.

    Singular values that were above 1 % of the Frobenius norm end between 0.6 and 1.3.

    Args:
        matrices: (B, rows, columns).

    Returns:
        Matrices of the same shape with the same singular vectors.
    """
    a, b, c = COEFFICIENTS
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrices else x.mT


def adam(rnp: RNP, lr: float) -> torch.optim.Optimizer:
    """Adam over all parameters that learn.

    Args:
        rnp: the model.
        lr: learning rate.
    """
    return torch.optim.Adam([p for p in rnp.parameters() if p.requires_grad], lr, fused=True)


def muon(rnp: RNP, lr: float) -> torch.optim.Optimizer:
    """Muon over the matrices of the recursion and the guide, Adam over all else that learns.

    The heads of a hypernetwork go by Adam: they are many matrices, one for each layer that they
    generate, stored as one, and to make the whole orthogonal would mix them.

    Args:
        rnp: the model.
        lr: learning rate.
    """
    networks = (rnp.model.recursion, rnp.guide)
    matrices = {id(p) for module in networks for p in module.parameters() if p.dim() > 1}
    matrices -= {id(p) for p in _heads(rnp)}
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for p in rnp.parameters():
        if p.requires_grad:
            groups[id(p) not in matrices].append(p)
    return Muon(*groups, lr)


def _heads(rnp: RNP) -> Iterator[Tensor]:
    """What the features of a program are multiplied with, for many layers at once."""
    for module in rnp.modules():
        if isinstance(module, Hypernetwork):
            yield module.vectors.weight
        elif isinstance(module, FactoredLayers):
            yield module.gains.weight
        elif isinstance(module, GeneratedLayers):
            yield module.basis


OPTIMIZERS = {"Adam": adam, "Muon": muon}
"""What `TrainConfig.optimizer` names."""
