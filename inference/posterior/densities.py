"""What particles are moved by: the densities of a query's start and target, with gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference.posterior.log_density import WITH_GRADIENTS, LogDensity
from inference.posterior.moves import NEVER, Points
from inference.posterior.variational import FittedNormal


class Start:
    """A distribution of u, (N, D), to start from: half a fitted normal, widened, half N(0, 1).

    Args:
        fitted: the normal of each image.
        wider: times its standard deviations.
    """

    def __init__(self, fitted: FittedNormal, wider: float = 1.5) -> None:
        self.loc, scale = fitted.loc.detach(), wider * fitted.log_scale.detach().exp()
        if fitted.below is None:
            self.spread, self.inverse = scale, 1 / scale
        else:
            self.spread = wider * fitted.scale_tril.detach()
            one = torch.eye(scale.shape[1]).to(scale)
            self.inverse = torch.linalg.solve_triangular(self.spread, one, upper=False)
            scale = self.spread.diagonal(dim1=-2, dim2=-1)
        self.log_det = scale.log().sum(-1)

    def draw(self, num: int, images: Tensor) -> Tensor:
        """Draw samples, (num, C, D), of which the first half are of the normal.

        Args:
            num: an even number.
            images: numbers of C images.
        """
        e = torch.randn(num, len(images), self.loc.shape[1]).to(self.loc)
        near = self.loc[images] + _times(self.spread[images], e[: num // 2])
        return torch.cat([near, e[num // 2 :]])

    def log_prob(self, u: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-density, (P, C), in nats, and its gradient.

        Args:
            u: (P, C, D).
            images: numbers of C images.
        """
        inverse = self.inverse[images]
        e = _times(inverse, u - self.loc[images])
        near, broad = -e.square().sum(-1) / 2 - self.log_det[images], -u.square().sum(-1) / 2
        share = (near - broad).sigmoid().unsqueeze(-1)
        slope = -share * _times(inverse.mT if inverse.ndim == 3 else inverse, e) - (1 - share) * u
        constant = math.log(2) + u.shape[-1] / 2 * math.log(2 * math.pi)
        return torch.logaddexp(near, broad) - constant, slope


def _times(matrix: Tensor, e: Tensor) -> Tensor:
    """Matrices, (C, D, D), or their diagonals, (C, D), times vectors, (P, C, D)."""
    return matrix * e if matrix.ndim == 2 else torch.einsum("cij,pcj->pci", matrix, e)


class Densities:
    """The densities of start and target at particles, whose columns are images by number.

    Args:
        density: the target.
        start: the start; None leaves it out, with a density of 1.
    """

    def __init__(self, density: LogDensity, start: Start | None = None) -> None:
        self.density, self.start = density, start

    def __call__(self, u: Tensor, images: Tensor) -> Points:
        """Return the points at u, (P, C, D), whose columns are of these images, (C,)."""
        every, rows, pieces = u.flatten(0, 1), images.repeat(len(u)), []
        few = WITH_GRADIENTS
        for some, of in zip(every.split(few), rows.split(few), strict=True):
            with torch.enable_grad():
                here = some.clone().requires_grad_()
                log_p, _ = self.density.log_joint(here, of)
                (slope,) = torch.autograd.grad(log_p.sum(), here)
            pieces.append((log_p.detach(), slope))
        log_p, slope_p = (
            torch.cat(some).unflatten(0, u.shape[:2]) for some in zip(*pieces, strict=True)
        )
        good = log_p.isfinite() & slope_p.isfinite().all(-1)
        log_p = log_p.where(good, NEVER)
        slope_p = slope_p.where(good.unsqueeze(-1), 0.0)
        if self.start is None:
            return Points(u, log_p, torch.zeros_like(log_p), slope_p, torch.zeros_like(slope_p))
        log_q, slope_q = self.start.log_prob(u, images)
        return Points(u, log_p, log_q, slope_p, slope_q)
