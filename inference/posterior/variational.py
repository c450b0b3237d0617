"""The engine that fits a normal of u to each image by SVI and weights its samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor, nn
from tqdm import tqdm

from inference.posterior.engine import ENGINES, Engine, Samples, Settings
from inference.posterior.log_density import WITH_GRADIENTS, LogDensity
from inference.posterior.weights import REMEDY, importance_weights
from pyro_rnp.params import unowned

FULL = 128
"""Largest size of u for which the fitted normal has a full covariance; above, it is diagonal."""


@ENGINES.add("svi")
class VariationalEngine(Engine):
    """A normal fitted to each image by SVI, whose samples are weighted.

    It is valid for every guide and all evidence. Estimates are consistent in the number of samples:
    a tenth of them is of the standard normal, where the prior of u lies, which bounds the weights
    (Hesterberg, 1995). A posterior with several modes far apart is found as far as the normal
    reaches one of them; effective samples and Pareto k do not tell of a mode that no sample met.

    Source: Hoffman et al., "Stochastic variational inference", 2013; Roeder et al., "Sticking the
    landing", 2017, for the gradient; Hesterberg, "Weighted average importance sampling and
    defensive mixture distributions", 1995.
    """

    name = "svi"

    def sample(self, density: LogDensity, settings: Settings) -> Samples:
        u, log_q = fit_normal(density, settings.steps).draw(settings.num_samples)
        log_weights = density.visit(u) - log_q
        found = importance_weights(log_weights)
        notes = tuple(filter(None, [found.poor(REMEDY)]))
        return Samples(u=u, log_weights=log_weights, notes=notes, **found._asdict())


class FittedNormal(nn.Module):
    """A normal distribution of u, (N, D), for each of N images.

    Its covariance is full up to D = `FULL` and diagonal above.

    Args:
        loc: (N, D).
        scale: (N, D), standard deviations to start from.
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        n, size = loc.shape
        self.loc, self.log_scale = nn.Parameter(loc), nn.Parameter(scale.log())
        self.below = nn.Parameter(loc.new_zeros(n, size, size)) if size <= FULL else None

    @property
    def scale_tril(self) -> Float[Tensor, "n d d"]:
        """The Cholesky factor diag(scale) (1 + `below` under the diagonal)."""
        scale = self.log_scale.exp()
        if self.below is None:
            return scale.diag_embed()
        one = torch.eye(scale.shape[-1], device=scale.device)
        return scale.unsqueeze(-1) * (one + self.below.tril(-1))

    def forward(self) -> Any:
        """Return the distribution, of batch shape (N,) and event shape (D,)."""
        if self.below is None:
            return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)

    def draw(self, num: int) -> tuple[Float[Tensor, "s n d"], Float[Tensor, "s n"]]:
        """Draw samples of a mixture: nine tenths of this normal, one tenth of the standard normal.

        The standard normal is where u lies before any evidence is seen, so that weights are bounded
        (Hesterberg, 1995). Of fewer than ten samples, all are of this normal.

        Returns:
            Samples, (num, N, D), and their log-densities under the mixture, (num, N).
        """
        q, before = self(), dist.Normal(torch.zeros_like(self.loc), 1.0).to_event(1)
        broad = num // 10
        u = torch.cat([q.sample((num - broad,)), before.sample((broad,))])
        share = broad / num
        densities = q.log_prob(u) + math.log1p(-share)
        if broad:
            densities = densities.logaddexp(before.log_prob(u) + math.log(share))
        return u, densities

    @classmethod
    def join(cls, fits: list[FittedNormal]) -> FittedNormal:
        """Return the normals of several groups of images as one."""
        states = [fit.state_dict() for fit in fits]
        every = {name: torch.cat([state[name] for state in states]) for name in states[0]}
        found = cls(every["loc"], torch.ones_like(every["loc"]))
        found.load_state_dict(every)
        return found.requires_grad_(False)

    def from_standard(self, e: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        """Map e, where this normal is a standard one, to u."""
        if self.below is None:
            return self.loc + self.log_scale.exp() * e
        return self.loc + (self.scale_tril @ e.unsqueeze(-1)).squeeze(-1)


def fit_normal(density: LogDensity, steps: int) -> FittedNormal:
    """Fit a normal of u to each image by SVI.

    The fit starts at the most probable of 32 samples of the guide, or of the prior where no pixel
    is seen, with their spread. A few images are fitted at a time.

    Args:
        density: the target.
        steps: gradient steps; 0 returns the start.

    Raises:
        ValueError: if the loss becomes infinite or NaN.
    """
    groups = density.groups(WITH_GRADIENTS)
    total, quiet = steps * len(groups), not density.progress
    with tqdm(total=total, desc="svi", disable=quiet, delay=5) as bar:
        return FittedNormal.join([_fit(part, steps, bar.update) for part in groups])


def _fit(density: LogDensity, steps: int, tell: Callable[[], object]) -> FittedNormal:
    """Fit a normal to each image of a group."""
    u, _, log_p = density.propose(32)
    spread = u.std(0).clamp(1e-2, 1)
    best = log_p.argmax(0)
    normal = FittedNormal(u[best, torch.arange(u.shape[1])], spread)

    def guide() -> None:
        pyro.module("fitted", normal)
        u = normal().rsample()
        # The gradient by way of u alone has no noise where the fit is exact (Roeder et al., 2017).
        with torch.no_grad():
            here = normal()
        with pyro.plate("batch", len(u), dim=-1):
            pyro.sample("u", dist.Delta(u, here.log_prob(u), 1))

    rates = {"lr": 0.03, "lrd": 0.1 ** (1 / max(steps, 1)), "clip_norm": 1e3}
    with torch.enable_grad(), pyro.get_param_store().scope(unowned()):
        svi = SVI(density.model, guide, ClippedAdam(rates), Trace_ELBO())
        for _ in range(steps):
            loss = svi.step()
            tell()
            if not math.isfinite(loss):
                raise ValueError("The fit came upon a value that is not finite; use fewer steps.")
    return normal
