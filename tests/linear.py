"""A linear-Gaussian model of the same classes, of which everything is known exactly."""

import math

import pyro.distributions as dist
import torch
from torch import nn

from pyro_rnp import RNP, ParseTree
from tests.conftest import tiny

Z, PIXELS, SIGMA = 3, 16, 0.5


class Linear(nn.Module):
    """The recursion's place, taken by canvas = W z."""

    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(PIXELS, Z) / 2)

    def forward(self, z, sites=None, target=None):
        return ParseTree(z, (z @ self.weight.T).view(-1, 1, 4, 4))


class Affine(nn.Module):
    """The encoder's place in the guide `full`: loc = A x, and a Cholesky factor that is given."""

    def __init__(self, a, tril):
        super().__init__()
        self.a = nn.Parameter(a)
        inverse = (tril.diagonal() - 1e-4).expm1().log()  # of softplus
        below = torch.tril_indices(Z, Z, -1)
        self.rest = nn.Parameter(torch.cat([inverse, tril[below[0], below[1]] / 0.1]))

    def forward(self, images):
        return torch.cat([images.flatten(1) @ self.a.T, self.rest.expand(len(images), -1)], -1)


def exact(**changes):
    """A model in float64 whose guide is the exact posterior."""
    rnp = RNP(tiny(image_size=4, guide="full", sigma=SIGMA, part_weight=0.0, **changes)).double()
    rnp.model.recursion = Linear(rnp.config).double()
    w = rnp.model.recursion.weight.detach()
    precision = torch.eye(Z) + w.T @ w / SIGMA**2
    covariance = precision.inverse()
    gain = covariance @ w.T / SIGMA**2
    rnp.guide.top.encoder = Affine(gain, torch.linalg.cholesky(covariance)).double()
    return rnp


def evidence(rnp, images, weight=None):
    w = rnp.model.recursion.weight if weight is None else weight
    covariance = w @ w.T + SIGMA**2 * torch.eye(PIXELS, dtype=w.dtype)
    zero = torch.zeros(PIXELS, dtype=w.dtype)
    return dist.MultivariateNormal(zero, covariance).log_prob(images.flatten(1))


def with_types():
    """The same with the prior `types`, of which the types' axes are askew."""
    rnp = exact(prior="types").eval()
    with torch.no_grad():
        rnp.model.prior.logit.copy_(torch.tensor([-1.0, 0.5, 2.0]))
        rnp.model.prior.turn.copy_(torch.tensor([[0, 0.5, -0.3], [0, 0, 0.7], [0, 0, 0]]))
    return rnp


def elbo(rnp, images):
    """The evidence lower bound of each image, in closed form, whatever the guide's normal is."""
    w, q = rnp.model.recursion.weight, rnp.guide.posterior(images)
    far = (images.flatten(1) - q.loc @ w.T).square().sum(-1)
    far = far + (w @ q.scale_tril).square().sum((-2, -1))
    expected = -far / (2 * SIGMA**2) - PIXELS * math.log(SIGMA * math.sqrt(2 * math.pi))
    size = q.loc.square().sum(-1) + q.scale_tril.square().sum((-2, -1)) - Z
    return expected - size / 2 + q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
