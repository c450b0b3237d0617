"""The engines of a query, Pyro's: a normal fitted to each image by SVI, and NUTS from there."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor, nn
from tqdm import tqdm

from inference.posterior.log_density import LogDensity

FULL = 128
"""Up to so many numbers of u, its fitted normal has a full covariance."""


class FittedNormal(nn.Module):
    """A normal distribution of u for each image."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        n, size = loc.shape
        self.loc, self.log_scale = nn.Parameter(loc), nn.Parameter(scale.log())
        self.below = nn.Parameter(loc.new_zeros(n, size, size)) if size <= FULL else None

    @property
    def scale_tril(self) -> Tensor:
        """diag(scale) (1 + what is below the diagonal)."""
        scale = self.log_scale.exp()
        if self.below is None:
            return scale.diag_embed()
        one = torch.eye(scale.shape[-1], device=scale.device)
        return scale.unsqueeze(-1) * (one + self.below.tril(-1))

    def forward(self) -> Any:
        if self.below is None:
            return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)

    def draw(self, num: int) -> tuple[Tensor, Tensor]:
        """Samples, (num, N, D), and their log-densities, (num, N).

        One in ten is of the standard normal, where u lies before anything is known, so that no
        weight is out of bounds (Hesterberg, 1995).
        """
        q, before = self(), dist.Normal(torch.zeros_like(self.loc), 1.0).to_event(1)
        broad = num // 10
        u = torch.cat([q.sample((num - broad,)), before.sample((broad,))])
        share = broad / num
        densities = q.log_prob(u) + math.log1p(-share)
        if broad:
            densities = densities.logaddexp(before.log_prob(u) + math.log(share))
        return u, densities

    def placed(self, e: Tensor) -> Tensor:
        """What is at e in coordinates in which this is a standard normal."""
        if self.below is None:
            return self.loc + self.log_scale.exp() * e
        return self.loc + (self.scale_tril @ e.unsqueeze(-1)).squeeze(-1)


def fit(density: LogDensity, steps: int) -> FittedNormal:
    """SVI for each image: a normal that starts where the guide, or the prior, fits best."""
    u, _, log_p, _ = density.propose(32)
    spread = u.std(0).clamp(1e-2, 1)
    best = log_p.argmax(0)
    normal = FittedNormal(u[best, torch.arange(u.shape[1])], spread)

    def guide() -> None:
        pyro.module("fitted", normal)
        u = normal().rsample()
        # The gradient by way of u alone, which has no noise where the fit is exact (Roeder et
        # al., 2017).
        with torch.no_grad():
            here = normal()
        with pyro.plate("asked", len(u), dim=-1):
            pyro.sample("u", dist.Delta(u, here.log_prob(u), 1))

    rates = {"lr": 0.03, "lrd": 0.1 ** (1 / max(steps, 1)), "clip_norm": 1e3}
    with torch.enable_grad():
        svi = SVI(density.model, guide, ClippedAdam(rates), Trace_ELBO())
        for _ in tqdm(range(steps), "svi", disable=not density.progress, delay=5):
            loss = svi.step()
            if not math.isfinite(loss):
                raise ValueError("The fit came upon a value that is not finite; use fewer steps.")
    return normal.requires_grad_(False)


def nuts(
    density: LogDensity, fitted: FittedNormal, num: int, warmup: int, chains: int
) -> tuple[Tensor, int]:
    """Samples of u, (chains, num / chains, N, D), and how many transitions diverged.

    All images and chains are one state and move together, in num / chains transitions.
    """
    like, shape = fitted.loc, (chains, *fitted.loc.shape)

    def potential(params: dict[str, Tensor]) -> Tensor:
        u = fitted.placed(params["e"]).flatten(0, 1)
        return -density.log_joint(u)[0].sum()

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
    return fitted.placed(e).transpose(0, 1), diverged
