"""Hamiltonian moves of many particles, each of which accepts for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

DENSE = 64
"""Largest size of u for which moves are scaled by a covariance; above, by standard deviations."""
WANTED = 0.75
"""Acceptance to which step sizes adapt."""
LENGTH = 1.6
"""Longest trajectory, in units of the spread."""
NEVER = -1e30
"""Log-density, in nats, of points where it is not finite; a number, which 0 times makes 0."""


class Points(NamedTuple):
    """P particles in each of C columns, with their densities.

    A column is a population of particles with a temperature and a step size of its own, as an image
    has. Densities are those of a start q and of a target p.
    """

    u: Tensor
    """(P, C, D)."""
    log_p: Tensor
    """(P, C), in nats; `NEVER` where it is not finite."""
    log_q: Tensor
    """(P, C), in nats."""
    slope_p: Tensor
    """Gradient of `log_p`, (P, C, D)."""
    slope_q: Tensor
    """Gradient of `log_q`, (P, C, D)."""

    def log(self, heat: Tensor) -> Tensor:
        """Return the log-density on the geometric path from q to p, (P, C).

        Args:
            heat: where on the path, (C,): 0 is q and 1 is p.
        """
        return torch.lerp(self.log_q, self.log_p, heat)

    def slope(self, heat: Tensor) -> Tensor:
        """Return the gradient of `log`, (P, C, D)."""
        return torch.lerp(self.slope_q, self.slope_p, heat.unsqueeze(-1))

    def take(self, rows: Tensor) -> Points:
        """Return particle `rows[i, c]` of column c as particle i, for rows of shape (M, C)."""
        return self._map(lambda x: x.take_along_dim(_like(rows, x), 0))

    def columns(self, which: Tensor) -> Points:
        """Return some of the columns."""
        return self._map(lambda x: x[:, which])

    def where(self, chosen: Tensor, other: Points) -> Points:
        """Return these particles where they are chosen, and others elsewhere.

        Args:
            chosen: True for these, (P, C).
            other: as many particles.
        """
        pairs = zip(self, other, strict=True)
        return Points(*(torch.where(_like(chosen, x), x, y) for x, y in pairs))

    def _map(self, f: Callable[[Tensor], Tensor]) -> Points:
        return Points(*map(f, self))

    @classmethod
    def join(cls, points: Iterable[Points]) -> Points:
        """Return all particles of several, of the same columns."""
        return cls(*map(torch.cat, zip(*points, strict=True)))


def _like(rows: Tensor, x: Tensor) -> Tensor:
    return rows if x.ndim == rows.ndim else rows.unsqueeze(-1)


At = Callable[[Tensor, Tensor], Points]
"""From u, (P, C, D), and the numbers of the columns, (C,), to the points there."""


def hamiltonian(
    at: At, here: Points, columns: Tensor, heat: Tensor, step: Tensor, spread: Tensor, leaps: int
) -> tuple[Points, Tensor]:
    """Move every particle along one Hamiltonian trajectory, and accept or reject it by itself.

    Source: Neal, "MCMC using Hamiltonian dynamics", 2011.

    Args:
        at: the densities.
        here: where the particles are.
        columns: numbers of the columns, (C,).
        heat: of each column, (C,); see `Points.log`.
        step: size of a leapfrog step of each column, (C,), in units of `spread`; each particle
            takes it times a random number from 0.8 to 1.2, so that no trajectory comes back to
            where it began.
        spread: as `spread_of` returns it.
        leaps: leapfrog steps.

    Returns:
        Where the particles are now, and the probability of acceptance of each, (P, C).
    """
    dense = spread.ndim == 3

    def outward(e: Tensor) -> Tensor:  # from coordinates in which the spread is 1
        return torch.einsum("cij,pcj->pci", spread, e) if dense else spread * e

    def slope(points: Points) -> Tensor:  # in those coordinates
        own = points.slope(heat)
        return torch.einsum("cij,pci->pcj", spread, own) if dense else spread * own

    size = (step * (0.8 + 0.4 * torch.rand_like(here.log_p))).unsqueeze(-1)
    first = torch.randn_like(here.u)
    there, momentum = here, first + size / 2 * slope(here)
    for i in range(leaps):
        there = at(there.u + outward(size * momentum), columns)
        momentum = momentum + (size if i + 1 < leaps else size / 2) * slope(there)
    gain = (first.square().sum(-1) - momentum.square().sum(-1)) / 2
    gain = gain + there.log(heat) - here.log(heat)
    chance = gain.nan_to_num(nan=-torch.inf).clamp(max=0).exp()
    return there.where(torch.rand_like(chance) < chance, here), chance


def adapted(step: Tensor, chance: Tensor, leaps: int, rate: float = 1.0) -> Tensor:
    """Return step sizes that are larger where moves were accepted more often than wanted.

    A whole trajectory is at most `LENGTH` long: in a normal of unit spread it would turn back at pi
    and be where it began at 2 pi.

    Args:
        step: (C,).
        chance: probabilities of acceptance, (P, C).
        leaps: leapfrog steps of a trajectory.
        rate: how fast the logarithm of the step size follows.
    """
    return (step * (rate * (chance.mean(0) - WANTED)).exp()).clamp(1e-6, LENGTH / leaps)


def spread_of(u: Tensor, weights: Tensor) -> Tensor:
    """Return the spread of weighted particles, by which moves are scaled.

    Correlations are shrunk towards 0, the more the fewer effective particles there are.

    Args:
        u: (P, C, D).
        weights: (P, C), which add up to 1 over a column.

    Returns:
        A Cholesky factor of the covariance, (C, D, D), or, above `DENSE` numbers, the standard
        deviations, (C, D).
    """
    mean, square = _moments(u, weights)
    return _spread(mean, square, 1 / weights.square().sum(0).double()).to(u)


class Spreads:
    """The spread of the particles in the other columns of the same image.

    A move that is scaled by the spread of particles to which it belongs leaves the target: in
    directions in which a particle lies far out it is kicked the farther. So the particles of an
    island are moved by the spread of the other islands, as halves of an ensemble are in Goodman and
    Weare, "Ensemble samplers with affine invariance", 2010. A column that is alone takes its own.

    Args:
        columns: the image of each column, (C,).
    """

    def __init__(self, columns: Tensor) -> None:
        self.columns = columns
        self.known: list[Tensor] = []
        """First and second moments and effective particles of each column, as they were last."""

    def __call__(self, active: Tensor, u: Tensor, weights: Tensor) -> Tensor:
        """Return spreads of columns, as `spread_of` does.

        Args:
            active: which of all columns these are, (A,); the first call has all.
            u: their particles, (P, A, D).
            weights: (P, A), which add up to 1 over a column.
        """
        found = [*_moments(u, weights), 1 / weights.square().sum(0).double()]
        if self.known:
            for known, new in zip(self.known, found, strict=True):
                known[active] = new
        else:
            self.known = found
        number = self.columns.bincount()[self.columns].double()
        others = []
        for x in self.known:
            own = (number > 1).view(-1, *[1] * (x.ndim - 1))
            count = (number - 1).clamp(min=1).view(own.shape)
            total = x.new_zeros(len(number), *x.shape[1:]).index_add(0, self.columns, x)
            others.append(torch.where(own, (total[self.columns] - x) / count, x))
        mean, square, enough = (x[active] for x in others)
        return _spread(mean, square, enough * (number - 1).clamp(min=1)[active]).to(u)


def _moments(u: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Means of u, (C, D), and of its products, (C, D, D), or squares, (C, D), above `DENSE`.

    They are in double precision, since a variance is a small difference of two of them; weights
    that add up to a little more than 1 would make it negative.
    """
    u, weights = u.double(), weights.double()
    weights = weights / weights.sum(0)
    mean = torch.einsum("pc,pcd->cd", weights, u)
    if u.shape[-1] > DENSE:
        return mean, torch.einsum("pc,pcd->cd", weights, u.square())
    return mean, torch.einsum("pc,pci,pcj->cij", weights, u, u)


def _spread(mean: Tensor, square: Tensor, enough: Tensor) -> Tensor:
    """A spread from `_moments` and effective particles, (C,)."""
    if square.ndim == 2:
        return (square - mean.square()).clamp(min=1e-8).sqrt()
    covariance = square - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    variance = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1e-8)
    share = (enough / (enough + mean.shape[-1])).view(-1, 1, 1)
    diagonal = ((1 - share[..., 0]) * variance).diag_embed()
    return torch.linalg.cholesky(share * covariance + diagonal)
