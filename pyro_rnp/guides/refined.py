"""Semi-amortised inference: the encoder's normal, refined for each image by gradient steps."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from pyro_rnp.arguments import whole, within
from pyro_rnp.config import RNPConfig
from pyro_rnp.guides.diagonal_normal import DiagonalNormal
from pyro_rnp.missing import of_seen, split
from pyro_rnp.registry import GUIDES


@GUIDES.add("refined")
class Refined(DiagonalNormal):
    """The encoder's diagonal normal, refined for each image by steps on its own lower bound.

    A step follows the natural gradient (for the mean: the gradient times the variance) of the bound
    at one sample. The noise of each step is drawn once and is the same for all images, so that an
    image has one posterior. Random sites below the top stay at their predictions. The encoder
    learns as if the refinement added a constant to its output. The bound that is followed has a KL
    weight of 1, whatever weight training uses.

    Source: Kim et al., "Semi-amortized variational autoencoders", ICML 2018.

    Args:
        config: gives the encoder's shape and |z|, `program_size`.
        steps: gradient steps for each image, in [0, 10,000].
        rate: length of a step as a share of the natural gradient, in [0, 10,000].

    Raises:
        ValueError: if an option is out of its range.
    """

    sees_missing = True
    noise: Tensor

    def __init__(self, config: RNPConfig, *, steps: int = 3, rate: float = 0.1) -> None:
        super().__init__(config)
        whole(0, 10_000, steps=steps)
        within(0, 10_000, rate=rate)
        self.rate = rate
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(steps, config.program_size, generator=generator)
        self.register_buffer("noise", noise, persistent=False)

    def attach(self, rnp: Any) -> None:
        """Keep the model, whose bound the steps follow.

        Args:
            rnp: a `pyro_rnp.RNP`; its model's parameters do not become the guide's.
        """
        self.model = (rnp.model,)

    def proposal(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The encoder's normal before the refinement.

        Args:
            images: (N, C, H, W) in [0, 1].

        Returns:
            A diagonal normal with batch shape (N,) and event shape (|z|,).
        """
        return super().posterior(images)

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The refined normal.

        Args:
            images: (N, C, H, W) in [0, 1], NaN where a pixel is missing, which the bound leaves
                out.

        Returns:
            A diagonal normal with batch shape (N,) and event shape (|z|,).

        Raises:
            NotImplementedError: under `torch.jit.trace`, which records no gradient steps.
        """
        if torch.jit.is_tracing() and len(self.noise):
            raise NotImplementedError(
                "The guide refined takes gradient steps, which torch.jit.trace cannot record; "
                "use an ELBO without Jit in its name."
            )
        pixels, seen = split(images)
        start = self.proposal(pixels).base_dist  # type: ignore[attr-defined]
        (model,) = self.model
        with torch.enable_grad():
            loc, log_scale = start.loc.detach(), start.scale.detach().log()
            for noise in self.noise:
                loc, log_scale = loc.requires_grad_(), log_scale.requires_grad_()
                z = loc + log_scale.exp() * noise
                canvas = model.recursion(z).canvas
                likelihood = model.likelihood(canvas)
                likelihood = likelihood if seen is None else of_seen(likelihood, seen)
                bound = likelihood.log_prob(pixels) + model.prior().log_prob(z)
                bound = bound.sum() + log_scale.sum()
                towards, wider = torch.autograd.grad(bound, [loc, log_scale])
                variance = (2 * log_scale).exp()
                loc = (loc + self.rate * (variance * towards).clamp(-1, 1)).detach()
                log_scale = (log_scale + self.rate * (wider / 2).clamp(-1, 1)).detach()
        loc = start.loc + (loc - start.loc).detach()
        scale = start.scale * (log_scale.exp() / start.scale).detach()
        return dist.Normal(loc, scale).to_event(1)
