"""Likelihoods of an image given its canvas.

A likelihood is a module, made from the configuration, whose call takes canvases (..., C, H, W) to
p(x | canvas), a distribution with event shape (C, H, W). Its mean is what the model expects to
see.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.config import RNPConfig
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import LIKELIHOODS


class _Noise(nn.Module):
    """A likelihood with one scale for all pixels, `sigma` or learned from there."""

    family: type[dist.Normal] | type[dist.Laplace]

    def __init__(self, config: RNPConfig, *, learned: bool = False) -> None:
        super().__init__()
        self.sigma = config.sigma
        if learned:
            self.log_scale = nn.Parameter(torch.tensor(self.sigma).log())
        self.learned = learned

    def forward(self, canvas: Tensor) -> Distribution:
        canvas = full_precision(canvas)
        # A number would be copied to a device, and waited for.
        scale = self.log_scale.exp() if self.learned else canvas.new_full((), self.sigma)
        return self.family(canvas, scale).to_event(3)


@LIKELIHOODS.add("normal")
class NormalLikelihood(_Noise):
    """x ~ Normal(canvas, sigma), each pixel by itself: squared error over 2 sigma^2, in nats.

    Args:
        learned: whether sigma is a parameter; the part term keeps the configuration's.
    """

    family = dist.Normal


@LIKELIHOODS.add("laplace")
class LaplaceLikelihood(_Noise):
    """x ~ Laplace(canvas, sigma), each pixel by itself: absolute error over sigma, in nats.

    Args:
        learned: whether sigma is a parameter.
    """

    family = dist.Laplace


class _Chance(nn.Module):
    """A likelihood that takes the canvas, brought into (0, 1), as a probability."""

    family: type[dist.Bernoulli] | type[dist.ContinuousBernoulli]

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()

    def forward(self, canvas: Tensor) -> Distribution:
        return self.family(logits=logit(full_precision(canvas))).to_event(3)


@LIKELIHOODS.add("bernoulli")
class BernoulliLikelihood(_Chance):
    """x ~ Bernoulli with `logit(canvas)`, each pixel by itself; images must be 0 or 1."""

    family = dist.Bernoulli


class ContinuousBernoulli(dist.ContinuousBernoulli):
    """Pyro's, whose normaliser goes on where a float can no longer tell a probability from 1."""

    def _cont_bern_log_norm(self) -> Tensor:
        """Log of 2 (l / 2) / tanh(l / 2) for the logit l."""
        half = self.logits / 2
        near = half.abs() < 1e-2  # where l / tanh(l) is 0 / 0, or nearly
        away = torch.where(near, torch.ones_like(half), half)
        return math.log(2) + torch.where(near, half.square() / 3, (away / away.tanh()).log())


@LIKELIHOODS.add("continuous_bernoulli")
class ContinuousBernoulliLikelihood(_Chance):
    """x ~ ContinuousBernoulli with `logit(canvas)` in [0, 1] (Loaiza-Ganem, Cunningham, 2019)."""

    family = ContinuousBernoulli


FLOOR, KNEE = 1e-4, 0.9


def logit(canvas: Tensor) -> Tensor:
    """Logits of the probabilities that a canvas stands for: itself between `FLOOR` and `KNEE`.

    Sums of patches may pass 1. Beyond the knee the distance from 1 falls exponentially, so that
    log(1 - p) goes on in a straight line: a pixel with too much ink keeps a gradient of 10 nats a
    unit. A pixel that no part reaches still has ink once in 10,000.
    """
    room = 1 - KNEE
    over = (canvas - KNEE).clamp(min=0) / room
    beyond = torch.log1p(-room * (-over).exp()) - math.log(room) + over
    return torch.where(canvas < KNEE, canvas.clamp(FLOOR, KNEE).logit(), beyond)


def canvas_of(logits: Tensor) -> Tensor:
    """The canvas that stands for probabilities: what `logit` undoes, but for its floor."""
    room = 1 - KNEE
    beyond = KNEE + room * (F.softplus(logits) + math.log(room))
    return torch.where(logits < math.log(KNEE / room), logits.sigmoid(), beyond)
