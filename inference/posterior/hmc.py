"""The engine of Hamiltonian chains in which every chain accepts for itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from inference.posterior.chains import bulk_and_tail_size, mixing, rank_r_hat
from inference.posterior.densities import Densities
from inference.posterior.engine import ENGINES, Engine, Samples, Settings
from inference.posterior.islands import evidence_error
from inference.posterior.log_density import LogDensity
from inference.posterior.moves import At, adapted, hamiltonian, spread_of
from inference.posterior.smc import run_islands
from inference.posterior.tempering import Schedule
from inference.posterior.weights import ENOUGH
from pyro_rnp.arguments import whole, within

PILOT = 16
"""Samples of each island from which chains learn their spread before the warm-up."""
DIVERGED = 0.01
"""Share of moves of which the energy went astray, above which an image is not trusted."""


@ENGINES.add("hmc")
class HMCEngine(Engine):
    """Hamiltonian chains, each image with a step size of its own, each chain accepting for itself.

    It is valid for every guide and all evidence, if log p(u, evidence) is differentiable. Chains
    are exact in the limit of long ones. Each starts at a particle of an island of its own, as those
    of `smc`, which also give the log evidence; in the warm-up each image learns its step size and
    its spread from all of its chains. Rank-normalised r-hat tells of chains that have not mixed;
    the effective samples are the smaller number of bulk and tail.

    Source: Neal, "MCMC using Hamiltonian dynamics", 2011; Vehtari et al., "Rank-normalization,
    folding, and localization: an improved r-hat", 2021.

    Args:
        leaps: leapfrog steps of a transition, at least 1.
        step: size of such a step to begin with, in units of the posterior's spread; 0 lets nothing
            move.

    Raises:
        ValueError: if there are fewer than 4 samples a chain, or an option is out of its range.
    """

    name = "hmc"

    def __init__(self, *, leaps: int = 8, step: float = 0.3) -> None:
        whole(1, leaps=leaps)
        within(0, step=step)
        self.leaps, self.step = leaps, step

    def check(self, density: LogDensity, settings: Settings) -> None:
        least = 4 * settings.chains
        if settings.num_samples < least:
            raise ValueError(f"hmc needs 4 samples a chain: num_samples of {least} or more.")

    def sample(self, density: LogDensity, settings: Settings) -> Samples:
        chains, warmup = settings.chains, settings.warmup
        each = math.ceil(settings.num_samples / chains)
        islands = run_islands(density, settings.steps, chains, PILOT, Schedule())
        pilot = islands.u.flatten(0, 1)
        spread = spread_of(pilot, torch.full_like(pilot[..., 0], 1 / len(pilot)))
        images = torch.arange(pilot.shape[1], device=pilot.device)
        with tqdm(total=warmup + each, desc="hmc", disable=not density.progress, delay=5) as bar:
            run = run_chains(
                Densities(density), islands.u[0], images, spread,
                warmup, each, self.leaps, self.step, bar.update,
            )  # fmt: skip
        r_hat = {
            name: rank_r_hat(values).amax(-1) for name, values in density.by_site(run.u).items()
        }
        bulk, tail = (sizes.amin(-1) for sizes in bulk_and_tail_size(run.u))
        u = run.u.flatten(0, 1)
        astray, effective = run.diverged / len(u), torch.minimum(bulk, tail)
        error = evidence_error(islands.log_evidence)
        notes = mixing(r_hat, int(run.diverged[astray > DIVERGED].sum()), u[..., 0].numel())
        if (few := effective < ENOUGH).any():
            notes.append(
                f"The posterior of {int(few.sum())} of {len(few)} images is unreliable: fewer than "
                f"{ENOUGH:g} effective samples (the least has {float(effective.min()):.1f}); take "
                "more num_samples."
            )
        return Samples(
            kind="chains",
            u=u,
            weights=u.new_full(u.shape[:2], 1 / len(u)),
            log_weights=islands.log_evidence,
            log_evidence=islands.log_evidence.logsumexp(0) - math.log(chains),
            log_evidence_error=error,
            effective_samples=effective,
            pareto_k=torch.zeros_like(error),
            r_hat=r_hat,
            doubtful=astray > DIVERGED,
            chains=chains,
            diagnostics={
                "acceptance": run.acceptance, "bulk": bulk, "tail": tail, "diverged": astray
            },
            notes=tuple(notes),
        )  # fmt: skip


class Chains(NamedTuple):
    """Draws of P chains in each of C columns."""

    u: Tensor
    """(P, draws, C, D)."""
    acceptance: Tensor
    """Mean probability of acceptance after the warm-up, (C,)."""
    diverged: Tensor
    """Transitions after the warm-up that no chance was left to accept, (C,): by 100 nats."""


def run_chains(
    at: At,
    u: Tensor,
    columns: Tensor,
    spread: Tensor,
    warmup: int,
    num: int,
    leaps: int,
    step: float,
    tell: Callable[[], object] = lambda: None,
) -> Chains:
    """Run Hamiltonian chains whose step size and spread are learned in a warm-up.

    After each of the first three quarters of the warm-up, the spread becomes that of all chains of
    a column in that quarter. The step size follows the acceptance, ever more slowly within a
    quarter, and stays as it is after the warm-up.

    Args:
        at: the densities, of which the target is sampled.
        u: where the chains start, (P, C, D).
        columns: numbers of the columns, (C,), as `at` takes them.
        spread: to begin with, (C, D, D) or (C, D); see `spread_of`.
        warmup, num: transitions of each chain before and after the first sample.
        leaps: leapfrog steps of a transition.
        step: size of the steps to begin with; 0 stays 0.
        tell: called after each transition.
    """
    here, heat = at(u, columns), torch.ones_like(u[0, :, 0])
    size, recent, window = step * heat, [], max(1, warmup // 4)
    for k in range(warmup):
        here, chance = hamiltonian(at, here, columns, heat, size, spread, leaps)
        size = adapted(size, chance, leaps, (1 + k % window) ** -0.5) if step else size
        recent.append(here.u)
        if (k + 1) % window == 0 and 20 <= k + 1 + window <= warmup:
            every = torch.cat(recent)
            spread, recent = spread_of(every, torch.full_like(every[..., 0], 1 / len(every))), []
        tell()
    draws, chances = [], []
    for _ in range(num):
        here, chance = hamiltonian(at, here, columns, heat, size, spread, leaps)
        draws.append(here.u)
        chances.append(chance)
        tell()
    chance = torch.cat(chances)
    return Chains(torch.stack(draws, 1), chance.mean(0), (chance == 0).sum(0))
