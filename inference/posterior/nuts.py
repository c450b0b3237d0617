"""The engine of Hamiltonian chains, NUTS, in the coordinates of a fitted normal."""

from __future__ import annotations

import math

import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor
from tqdm import tqdm

from inference.posterior.chains import chain_size, mixing
from inference.posterior.densities import Densities
from inference.posterior.engine import ENGINES, Engine, Samples, Settings
from inference.posterior.log_density import LogDensity
from inference.posterior.variational import FittedNormal, fit_normal
from inference.posterior.weights import REMEDY, importance_weights


@ENGINES.add("nuts")
class NUTSEngine(Engine):
    """The no-U-turn sampler, in coordinates where a normal that SVI fitted is a standard one.

    It is valid for every guide and all evidence, if log p(u, evidence) is differentiable. Chains
    are exact in the limit of long ones; r-hat and divergences tell of chains that have not mixed.
    All images and chains are one state with one step size and move together, so that a hard image
    slows down the rest. The log evidence is that of the fit, as `VariationalEngine` has it.

    Source: Hoffman and Gelman, "The no-U-turn sampler", 2014.

    Raises:
        ValueError: if there are fewer than 4 samples a chain.
    """

    name = "nuts"

    def check(self, density: LogDensity, settings: Settings) -> None:
        least = 4 * settings.chains
        if settings.num_samples < least:
            raise ValueError(f"nuts needs 4 samples a chain: num_samples of {least} or more.")

    def sample(self, density: LogDensity, settings: Settings) -> Samples:
        fitted = fit_normal(density, settings.steps)
        u, log_q = fitted.draw(settings.num_samples)
        log_weights = density.visit(u) - log_q
        found, notes = importance_weights(log_weights), []
        if poor := found.poor("take method='smc' for it"):
            notes.append(f"The log evidence, from the fit before the chains: {poor}")
        num, warmup, chains = settings.num_samples, settings.warmup, settings.chains
        u, diverged = sample_chains(density, fitted, num, warmup, chains)
        r_hat = {
            name: split_gelman_rubin(values, 0, 1).amax(-1)
            for name, values in density.by_site(u).items()
        }
        notes += mixing(r_hat, diverged, u.shape[1])
        size = u.shape[0] * u.shape[1]
        found = found._replace(
            weights=u.new_full((size, u.shape[2]), 1 / size),
            effective_samples=chain_size(u).amin(-1),
            pareto_k=torch.zeros_like(found.pareto_k),
        )
        notes += filter(None, [found.poor(REMEDY)])
        return Samples(
            kind="chains",
            u=u.flatten(0, 1),
            log_weights=log_weights,
            r_hat=r_hat,
            divergences=diverged,
            chains=chains,
            notes=tuple(notes),
            **found._asdict(),
        )


def sample_chains(
    density: LogDensity, fitted: FittedNormal, num: int, warmup: int, chains: int
) -> tuple[Tensor, int]:
    """Draw samples of u by NUTS.

    Args:
        density: the target.
        fitted: a normal near to it; chains start at independent samples of that normal.
        num: samples of all chains together; each chain has num / chains, rounded up.
        warmup: transitions of each chain before the first sample.
        chains: how many.

    Returns:
        (chains, draws, N, D), and how many transitions diverged.
    """
    like, shape = fitted.loc, (chains, *fitted.loc.shape)
    at, images = Densities(density), torch.arange(len(like), device=like.device)

    def potential(params: dict[str, Tensor]) -> Tensor:
        u = fitted.from_standard(params["e"])
        here = at(u.detach(), images)  # whose gradients are taken a few rows at a time
        return -(here.log_p.sum() + ((u - u.detach()) * here.slope_p).sum())

    each = math.ceil(num / chains)
    bar = tqdm(total=warmup + each, desc="nuts", disable=not density.progress, delay=5)
    with torch.enable_grad():
        kernel = NUTS(potential_fn=potential, max_tree_depth=6, step_size=0.1)
        mcmc = MCMC(
            kernel,
            num_samples=each,
            warmup_steps=warmup,
            initial_params={"e": torch.randn(shape, dtype=like.dtype, device=like.device)},
            disable_progbar=True,
            hook_fn=lambda *_: bar.update(),
        )
        mcmc.run()
    bar.close()
    e = mcmc.get_samples()["e"]  # (each, chains, N, D)
    diverged = sum(len(rows) for rows in mcmc.diagnostics()["divergences"].values())
    return fitted.from_standard(e).transpose(0, 1), diverged
