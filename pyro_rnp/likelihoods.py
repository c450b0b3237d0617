"""Likelihoods p(x | canvas) of an image given its canvas."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.config import RNPConfig
from pyro_rnp.precision import full_precision
from pyro_rnp.registry import LIKELIHOODS


class Likelihood(nn.Module, ABC):
    """A likelihood of an image: the contract of the pieces in `registry.LIKELIHOODS`.

    A likelihood that is chosen by name is made as `Likelihood(config, **options)`, where each
    option is a keyword-only argument with a default; an object may be made in any way. A class need
    not derive from this one; it needs `forward`.

    Laws, which `pyro_rnp.check` tries:

    - event shape (C, H, W) and batch shape (...), as the canvas has them, with a `mean` and a
      `support` in which its samples lie; the canvas stays as it is;
    - an image's distribution depends on its canvas alone, with no random number of its own: the
      model calls the likelihood inside of the plate of images, where no other site may be drawn;
    - samples and their log-probabilities are finite, in the precision and on the device of the
      canvas; the gradient is, to the canvas and to each of the module's parameters;
    - where pixels are independent (`.to_event(3)`), any of them may be missing: their value is then
      0, and their density is left out. Other likelihoods work for whole images.
    """

    @abstractmethod
    def forward(self, canvas: Tensor) -> Distribution:
        """The distribution p(x | canvas).

        Args:
            canvas: the image before noise, (..., C, H, W); sums of patches may pass 1.

        Returns:
            A distribution of `pyro.distributions` with batch shape (...) and event shape (C, H, W).
            Its mean is the image that the model expects; its support, which pixels are possible.
        """


class _Noise(Likelihood):
    """A likelihood with one scale for all pixels, fixed at `sigma` or learned from there."""

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

    Source: the paper, equation (1).

    Args:
        config: gives `sigma`.
        learned: whether sigma is a parameter, which starts at the configuration's value; the part
            term uses that value throughout.
    """

    family = dist.Normal


@LIKELIHOODS.add("laplace")
class LaplaceLikelihood(_Noise):
    """x ~ Laplace(canvas, sigma), each pixel by itself: absolute error over sigma, in nats.

    Args:
        config: gives `sigma`, the scale.
        learned: whether the scale is a parameter, which starts at the configuration's value.
    """

    family = dist.Laplace


class _Chance(Likelihood):
    """A likelihood that takes the canvas, brought into (0, 1) by `logit`, as a probability."""

    family: type[dist.Bernoulli] | type[dist.ContinuousBernoulli]

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()

    def forward(self, canvas: Tensor) -> Distribution:
        return self.family(logits=logit(full_precision(canvas))).to_event(3)


@LIKELIHOODS.add("bernoulli")
class BernoulliLikelihood(_Chance):
    """x ~ Bernoulli with the logits `logit(canvas)`, each pixel by itself; pixels must be 0 or 1.

    Args:
        config: unused.
    """

    family = dist.Bernoulli


class ContinuousBernoulli(dist.ContinuousBernoulli):
    """Pyro's `ContinuousBernoulli` with a normaliser that is finite for logits of any size."""

    def _cont_bern_log_norm(self) -> Tensor:
        """The log of 2 (l / 2) / tanh(l / 2) for the logit l."""
        half = self.logits / 2
        near = half.abs() < 1e-2  # where l / tanh(l) is 0 / 0, or nearly
        away = torch.where(near, torch.ones_like(half), half)
        return math.log(2) + torch.where(near, half.square() / 3, (away / away.tanh()).log())


@LIKELIHOODS.add("continuous_bernoulli")
class ContinuousBernoulliLikelihood(_Chance):
    """x ~ ContinuousBernoulli with the logits `logit(canvas)`, each pixel in [0, 1] by itself.

    Source: Loaiza-Ganem and Cunningham, "The continuous Bernoulli", NeurIPS 2019.

    Args:
        config: unused.
    """

    family = ContinuousBernoulli


FLOOR, KNEE = 1e-4, 0.9
"""Canvas values between which `logit` takes the canvas itself for the probability."""


def logit(canvas: Tensor) -> Tensor:
    """The logits of the probabilities that a canvas stands for.

    Between `FLOOR` and `KNEE` the probability is the canvas itself. Sums of patches may pass 1:
    above the knee the distance of the probability from 1 falls exponentially, so that log(1 - p) is
    a straight line and a pixel that is too bright keeps a gradient of 10 nats for each unit. Below
    the floor the probability is 1e-4.

    Args:
        canvas: values of pixels, of any shape.

    Returns:
        Logits of the same shape.
    """
    room = 1 - KNEE
    over = (canvas - KNEE).clamp(min=0) / room
    beyond = torch.log1p(-room * (-over).exp()) - math.log(room) + over
    return torch.where(canvas < KNEE, canvas.clamp(FLOOR, KNEE).logit(), beyond)


def canvas_of(logits: Tensor) -> Tensor:
    """The canvas that stands for probabilities: the inverse of `logit` above its floor.

    Args:
        logits: of probabilities, of any shape.

    Returns:
        Canvas values above 0, of the same shape.
    """
    room = 1 - KNEE
    beyond = KNEE + room * (F.softplus(logits) + math.log(room))
    return torch.where(logits < math.log(KNEE / room), logits.sigmoid(), beyond)
