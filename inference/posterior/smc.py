"""The engine of tempered sequential Monte Carlo, with islands of particles for honest errors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from inference.posterior.densities import Densities, Start
from inference.posterior.engine import ENGINES, Engine, Samples, Settings
from inference.posterior.islands import evidence_error, independent, shared_out
from inference.posterior.log_density import LogDensity, check_memory
from inference.posterior.tempering import Schedule, Tempered, temper
from inference.posterior.variational import fit_normal
from inference.posterior.weights import ENOUGH
from pyro_rnp.arguments import whole, within

STARTS = 4
"""Particles of the start for each one that moves."""
MEMORY = 2**28
"""Bytes that the particles of a group of images may take."""
SURE = 1.0
"""Error of the log evidence, in nats, above which an answer is not trusted."""
STILL = 0.05
"""Mean square of a move, in units of the posterior's variance, below which particles stand still;
that of independent samples is 2."""


@ENGINES.add("smc")
class SMCEngine(Engine):
    """Tempered sequential Monte Carlo, each image with temperatures of its own.

    Half of the particles start at the normal that SVI fits to the image, widened, and half at the
    standard normal of u, where the prior lies. They are taken to the posterior over a path of
    temperatures and moved by Hamiltonian trajectories, each particle with its own acceptance; see
    `inference.posterior.tempering`.

    It is valid for every guide and all evidence, if log p(u, evidence) is differentiable, also
    where the posterior has several modes, if particles of the start come near to them. The
    particles of an image are islands, which share the fitted normal that they start from, and then
    take nothing from each other but the scale of their moves. The spread between islands gives the
    errors of the log evidence and of every mean, and how many independent samples the answer is
    worth. No island tells of a mode that the start does not reach: intervals are then too narrow.

    Source: Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers", 2006; see `temper`.

    Args:
        islands: independent populations of an image, at least 1, at most one a sample; a single one
            has no known error.
        particles: particles of an island that move at a time, at least 2; 0: a quarter of its
            samples, and at least 8.
        sweeps, leaps, temperatures, step: see `Schedule`.

    Raises:
        ValueError: if an option is out of its range.
    """

    name = "smc"

    def __init__(
        self,
        *,
        islands: int = 8,
        particles: int = 0,
        sweeps: int = Schedule.sweeps,
        leaps: int = Schedule.leaps,
        temperatures: int = Schedule.temperatures,
        step: float = Schedule.step,
    ) -> None:
        whole(1, islands=islands, sweeps=sweeps, leaps=leaps, temperatures=temperatures)
        whole(0, particles=particles)
        within(0, step=step)
        if particles == 1:
            raise ValueError("particles must be at least 2, or 0 for the default, got 1.")
        self.islands, self.particles = islands, particles
        self.how: dict[str, Any] = {
            "sweeps": sweeps, "leaps": leaps, "temperatures": temperatures, "step": step
        }  # fmt: skip

    def check(self, density: LogDensity, settings: Settings) -> None:
        if not density.size:  # nothing is left to draw
            return
        schedule, islands, _ = self._plan(settings)
        check_memory(
            2 * islands * _bytes(density, schedule),
            density.rnp.device,
            f"num_samples of {settings.num_samples} with {schedule.particles} particles that move "
            f"in each of {islands} islands needs",
            "take fewer num_samples",
        )

    def _plan(self, settings: Settings) -> tuple[Schedule, int, int]:
        """The schedule, the number of islands, and the samples of each."""
        islands = min(self.islands, settings.num_samples)
        each = math.ceil(settings.num_samples / islands)
        return Schedule(self.particles or max(8, math.ceil(each / 4)), **self.how), islands, each

    def sample(self, density: LogDensity, settings: Settings) -> Samples:
        num, (schedule, islands, each) = settings.num_samples, self._plan(settings)
        run = run_islands(density, settings.steps, islands, each, schedule)
        u = run.u.flatten(0, 1)[:num]
        log_weights = shared_out(run.log_evidence, num)
        weights = log_weights.softmax(0)
        worth = [independent(x, weights, islands) for x in density.by_site(u).values()]
        effective = torch.stack(worth).amin(0)
        error = evidence_error(run.log_evidence)
        diagnostics = {
            "acceptance": run.acceptance.mean(0),
            "moved": run.moved.mean(0),
            "ancestors": _families(run.origin, weights),
            "temperatures": run.temperatures.amax(0).to(error),
        }
        more = f"more num_samples, or smc:sweeps={2 * schedule.sweeps}"
        reasons = [  # with what to do about each
            (
                f"the islands disagree (the worst answer is worth {float(effective.min()):.1f} "
                f"independent samples of {num}; {ENOUGH:g} are wanted)",
                effective < ENOUGH,
                more,
            ),
            (
                f"the log evidence is uncertain (by up to {float(error.max()):.1f} nats)",
                ~(error <= SURE),
                more,
            ),
            (
                "particles stand still",
                diagnostics["moved"] < STILL,
                "another step: smc:step=0.2",
            ),
            (
                f"{schedule.temperatures} temperatures are too few",
                ~run.reached.all(0),
                f"smc:temperatures={10 * schedule.temperatures}",
            ),
        ]
        if islands == 1:
            alone = torch.ones_like(error, dtype=torch.bool)
            reasons = [("of one island no error is known", alone, "two islands or more")]
        doubtful = torch.stack([where for _, where, _ in reasons]).any(0)
        notes = []
        if doubtful.any():
            found = [(why, remedy) for why, where, remedy in reasons if where.any()]
            why, remedy = (", or ".join(dict.fromkeys(each)) for each in zip(*found, strict=True))
            notes.append(
                f"The posterior of {int(doubtful.sum())} of {len(error)} images is unreliable: "
                f"{why}; take {remedy}."
            )
        return Samples(
            u=u,
            weights=weights,
            log_weights=log_weights,
            log_evidence=run.log_evidence.logsumexp(0) - math.log(islands),
            log_evidence_error=error,
            effective_samples=effective,
            pareto_k=torch.zeros_like(error),
            islands=islands,
            doubtful=doubtful,
            diagnostics=diagnostics,
            notes=tuple(notes),
        )


def run_islands(
    density: LogDensity, steps: int, islands: int, num: int, schedule: Schedule
) -> Tempered:
    """Take islands of particles of each image to the posterior.

    Args:
        density: the target.
        steps: gradient steps of the normal that half of the particles start at.
        islands: K, independent populations of an image.
        num: M, samples wanted of an island.
        schedule: how.

    Returns:
        Samples u, (M, K, N, D), and so on.
    """
    start = Start(fit_normal(density, steps))
    images, found = torch.arange(len(start.loc), device=start.loc.device), []
    at, at_once = Densities(density, start), max(1, MEMORY // (islands * _bytes(density, schedule)))
    with tqdm(desc="temperatures", disable=not density.progress, delay=5) as bar:
        for some in images.split(at_once):
            columns = some.repeat(islands)
            first = at(start.draw(STARTS * schedule.particles, columns), columns)
            run = temper(at, first, columns, num, schedule, lambda _: bar.update())
            found.append(run.unflatten(islands))
    return Tempered.join(found, 2)


def _bytes(density: LogDensity, schedule: Schedule) -> int:
    """Bytes of the points of an island of one image, of ten temperatures."""
    points = schedule.particles * (STARTS + 10 * schedule.sweeps)
    return 4 * points * (3 * density.size + 4)


def _families(origin: Tensor, weights: Tensor) -> Tensor:
    """Effective number of particles of the start, (N,), that samples descend from.

    Args:
        origin: (M, K, N), numbers of the particles that samples of each of K islands descend from.
        weights: (S, N), of the samples, one island after the other.
    """
    islands = origin.shape[1]
    own = origin + (origin.max() + 1) * torch.arange(islands, device=origin.device).unsqueeze(1)
    own = own.flatten(0, 1)[: len(weights)]
    mass = weights.new_zeros(int(own.max()) + 1, weights.shape[1]).scatter_add(0, own, weights)
    return 1 / mass.square().sum(0)
