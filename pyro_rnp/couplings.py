"""Affine coupling layers of normalising flows, which priors and guides share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pyro.distributions import transforms
from pyro.nn import ConditionalDenseNN, DenseNN
from torch import Tensor, nn

from pyro_rnp.precision import in_full_precision


class Dense(DenseNN):
    """Pyro's `DenseNN`, evaluated in at least float32, since densities depend on its output."""

    @in_full_precision
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


class ConditionalDense(ConditionalDenseNN):
    """Pyro's `ConditionalDenseNN` in at least float32, since densities depend on its output."""

    @in_full_precision
    def forward(self, x: Tensor, context: Tensor) -> Any:
        return super().forward(x, context)


def start_as_identity(last: nn.Module) -> None:
    """Set the last layer of a coupling's network to zero: a shift of 0 and a scale of 1.

    Args:
        last: the layer, changed in place.
    """
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def permuted(couplings: Iterable[nn.Module], loc: Tensor) -> list[Any]:
    """Couplings with a reversal of the dimensions after each, so that all dimensions change.

    A coupling leaves the first half of the dimensions as they are.

    Args:
        couplings: coupling transforms of vectors of length d.
        loc: a tensor (..., d), read for d and for the device.

    Returns:
        The transforms in order: coupling, reversal, coupling, reversal, ...
    """
    reverse = torch.arange(loc.shape[-1] - 1, -1, -1, device=loc.device)
    return [step for coupling in couplings for step in (coupling, transforms.Permute(reverse))]
