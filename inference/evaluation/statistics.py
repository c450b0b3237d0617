"""The standard error of a mean."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def standard_error(values: Float[Tensor, "n"]) -> float:
    """Return the standard error of the mean of independent values, s / sqrt(n).

    Args:
        values: (n,), one value for each image, run or other unit of the mean.

    Returns:
        The sample standard deviation s (with n - 1) over sqrt(n), in the unit of the values; NaN
        of fewer than two values.

    >>> import torch
    >>> round(standard_error(torch.tensor([1.0, 3.0])), 3)
    1.0
    """
    return float(values.std()) / len(values) ** 0.5 if len(values) > 1 else math.nan
