"""Tempered sequential Monte Carlo of many columns of particles, each at its own temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inference.posterior.moves import At, Points, Spreads, adapted, hamiltonian


@dataclass(frozen=True)
class Schedule:
    """How particles are tempered and moved."""

    particles: int = 8
    """Particles of a column that move at one temperature."""
    sweeps: int = 2
    """Trajectories of each particle at one temperature; the ends of all of them count."""
    leaps: int = 4
    """Leapfrog steps of a trajectory."""
    least: float = 2.0
    """Effective samples at the next temperature, in units of `particles`."""
    temperatures: int = 100
    """The most of them; the last is always 1."""
    step: float = 0.4
    """Step size to begin with, in units of the particles' spread; 0 lets nothing move."""


class Tempered(NamedTuple):
    """Samples of the target in each of C columns."""

    u: Tensor
    """(M, C, D), which count alike."""
    log_evidence: Tensor
    """Log of the target's integral, (C,), in nats."""
    origin: Tensor
    """Which particle of the start each sample descends from, (M, C)."""
    acceptance: Tensor
    """Mean probability of acceptance at the target, (C,)."""
    moved: Tensor
    """Mean square of a move at the target in units of the samples' variance, (C,)."""
    temperatures: Tensor
    """Temperatures after the start, (C,)."""
    reached: Tensor
    """Whether the last temperature kept the effective samples that `Schedule.least` wants, (C,)."""

    def columns(self, which: Tensor) -> Tempered:
        """Return some of the columns."""
        return Tempered(*(x[which] if x.ndim == 1 else x[:, which] for x in self))

    def unflatten(self, k: int) -> Tempered:
        """Return the same with (K, C / K) in the place of (C,)."""
        return Tempered(*(x.unflatten(min(x.ndim - 1, 1), (k, -1)) for x in self))

    @classmethod
    def join(cls, runs: list[Tempered], dim: int) -> Tempered:
        """Return several beside each other.

        Args:
            runs: of different columns.
            dim: the dimension of u that the columns are.
        """
        return cls(*(torch.cat(x, min(x[0].ndim - 1, dim)) for x in zip(*runs, strict=True)))


class Stage(NamedTuple):
    """A temperature that particles have been at."""

    heat: Tensor
    """(C,), from 0 to 1; see `Points.log`."""
    evidence: Tensor
    """Log of the integral of the density there, (C,), in nats."""
    size: int
    """Points of a column that it has left behind."""

    def columns(self, which: Tensor) -> Stage:
        """Return some of the columns."""
        return Stage(self.heat[which], self.evidence[which], self.size)


def systematic(weights: Tensor, num: int) -> Tensor:
    """Draw particles by weight, each floor or ceil of `num` times its weight often.

    Source: Kitagawa, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space
    models", 1996.

    Args:
        weights: (P, C), which add up to 1 over a column.
        num: how many.

    Returns:
        Rows, (num, C), in rising order.
    """
    up_to = weights.double().cumsum(0).T.contiguous()
    places = torch.arange(num, device=weights.device) + torch.rand_like(up_to[:, :1])
    return torch.searchsorted(up_to / up_to[:, -1:], places / num).clamp(max=len(weights) - 1).T


def effective(log_weights: Tensor) -> Tensor:
    """Return 1 / sum of squared weights, (C,), of log-weights, (P, C)."""
    return 1 / log_weights.softmax(0).square().sum(0)


def temper(
    at: At,
    start: Points,
    columns: Tensor,
    num: int,
    schedule: Schedule,
    tell: Callable[[int], object] = lambda _: None,
) -> Tempered:
    """Take particles of a start q to a target p over a geometric path of temperatures.

    The next temperature of a column is the highest at which its particles are still worth
    `schedule.least` times `schedule.particles` samples. Particles are resampled there and moved,
    and all points that they come to are kept: at every later temperature they count with weights
    of a mixture of the temperatures that they come from, so that nothing which was computed is
    thrown away. A column leaves at temperature 1.

    Source: Karamanis and Seljak, "Persistent sampling", 2024, and Dau and Chopin, "Waste-free
    sequential Monte Carlo", 2022, of Del Moral, Doucet and Jasra, "Sequential Monte Carlo
    samplers", 2006.

    Args:
        at: the densities.
        start: samples of q, (P, C), with their densities.
        columns: numbers of the columns, (C,), as `at` takes them.
        num: samples wanted of each column.
        schedule: how.
        tell: called at every temperature with the number of columns that are still there.
    """
    count, zero = len(start.u), torch.zeros_like(start.log_p[0])
    active = torch.arange(len(zero), device=zero.device)
    step, path = zero + schedule.step, [Stage(zero, zero, count)]
    origin = torch.arange(count, device=active.device).unsqueeze(1).expand(count, len(zero))
    pool, order, found, spreads = start, [], [], Spreads(columns)
    for k in range(1, schedule.temperatures + 1):
        tell(len(active))
        mixture = _mixture(pool, path)
        least = schedule.least * schedule.particles
        heat, last = _next_heat(pool, mixture, path[-1].heat, least), k == schedule.temperatures
        reached = heat == 1 if last else torch.ones_like(heat, dtype=torch.bool)
        heat = torch.ones_like(heat) if last else heat
        log_weights = pool.log(heat) - mixture
        weights = log_weights.softmax(0)
        rows = systematic(weights, schedule.particles)
        spread = spreads(active, pool.u, weights)
        here, own = pool.take(rows), origin.take_along_dim(rows, 0)
        for _ in range(schedule.sweeps):
            before, of = here.u, columns[active]
            here, chance = hamiltonian(at, here, of, heat, step, spread, schedule.leaps)
            step = adapted(step, chance, schedule.leaps) if schedule.step else step
            pool, origin = Points.join([pool, here]), torch.cat([origin, own])
        path.append(Stage(heat, _log_mean(log_weights), schedule.particles * schedule.sweeps))
        done, jump = heat == 1, (here.u - before).square().mean(0)
        if done.any():
            run = _ended(pool.columns(done), [s.columns(done) for s in path], origin[:, done], num)
            moved = (jump[done] / run.moved.clamp(min=1e-12)).mean(-1)
            run = run._replace(acceptance=chance[:, done].mean(0), moved=moved)
            found.append(run._replace(temperatures=run.temperatures + k, reached=reached[done]))
            order.append(active[done])
            more = ~done
            active, step, pool = active[more], step[more], pool.columns(more)
            path, origin = [stage.columns(more) for stage in path], origin[:, more]
        if not len(active):
            break
    return Tempered.join(found, 1).columns(torch.cat(order).argsort())


def _ended(pool: Points, path: list[Stage], origin: Tensor, num: int) -> Tempered:
    """Samples of the target from all points; `moved` is their variance, (C, D)."""
    log_weights = pool.log_p - _mixture(pool, path)
    weights = log_weights.softmax(0)
    rows = systematic(weights, num)
    rows = rows.gather(0, torch.rand(rows.shape, device=rows.device).argsort(0))  # in any order
    scale = weights.unsqueeze(-1)
    variance = (scale * (pool.u - (scale * pool.u).sum(0)).square()).sum(0)
    zero = torch.zeros_like(weights[0])
    u, origin = pool.u.take_along_dim(rows.unsqueeze(-1), 0), origin.take_along_dim(rows, 0)
    return Tempered(u, _log_mean(log_weights), origin, zero, variance, zero, zero == 0)


def _log_mean(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def _mixture(points: Points, path: list[Stage]) -> Tensor:
    """Log-density of the mixture of all temperatures so far, normalised, (P, C)."""
    total, every = torch.full_like(points.log_p, -math.inf), sum(stage.size for stage in path)
    for heat, evidence, count in path:
        total = total.logaddexp(points.log(heat) - evidence + math.log(count / every))
    return total


def _next_heat(pool: Points, mixture: Tensor, heat: Tensor, least: float) -> Tensor:
    """The highest temperature, (C,), with as many effective samples, by bisection."""
    low, high = heat, torch.ones_like(heat)
    low = high.where(effective(pool.log(high) - mixture) >= least, low)
    for _ in range(25):
        middle = (low + high) / 2
        enough = effective(pool.log(middle) - mixture) >= least
        low, high = middle.where(enough, low), high.where(enough, middle)
    return high
