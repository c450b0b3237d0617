"""The normal that is fitted to each image, and samples of it."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from inference.isolation import frozen
from inference.posterior import variational
from inference.posterior.densities import Start
from inference.posterior.evidence import read_evidence
from inference.posterior.log_density import LogDensity
from inference.posterior.variational import FittedNormal, fit_normal
from pyro_rnp import RNP
from tests.conftest import tiny


@pytest.mark.parametrize("full", [True, False])
@torch.no_grad()
def test_samples_are_of_a_mixture_with_the_standard_normal_and_have_its_density(full, monkeypatch):
    monkeypatch.setattr(variational, "FULL", 3 if full else 2)
    normal = FittedNormal(3 + torch.randn(2, 3), torch.rand(2, 3) + 0.1).double()
    if full:
        normal.below.copy_(torch.randn(2, 3, 3))
    u, found = normal.draw(20_000)
    scale = normal.log_scale.exp()
    loc, tril = normal.loc, scale.diag_embed()
    if full:
        below = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0.0]]) * normal.below
        tril = tril + scale.unsqueeze(-1) * below
    covariance = tril @ tril.mT
    apart = u - loc
    far = torch.einsum("sni,nij,snj->sn", apart, covariance.inverse(), apart)
    own = -far / 2 - covariance.logdet() / 2
    standard = -u.square().sum(-1) / 2
    wanted = (0.9 * own.exp() + 0.1 * standard.exp()).log() - 3 / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(found, wanted)
    fitted, before = u[:18_000], u[18_000:]
    for some, mean, cov in ((fitted, loc, covariance), (before, 0 * loc, torch.eye(3).double())):
        m, deviation = len(some), cov.diagonal(dim1=-2, dim2=-1).sqrt()
        assert ((some.mean(0) - mean).abs() < 5 * deviation / m**0.5).all()
        products = torch.einsum("sni,snj->snij", some - mean, some - mean)
        assert ((products.mean(0) - cov).abs() < 5 * products.std(0) / m**0.5).all()
    e = torch.randn(4, 2, 3).double()
    wanted = loc + torch.einsum("nij,snj->sni", tril, e)
    torch.testing.assert_close(normal.from_standard(e), wanted)


@torch.no_grad()
def test_a_fit_starts_at_the_most_probable_sample_of_the_guide(images):
    rnp = RNP(tiny(stochastic="both", sigma=0.1))
    known = read_evidence(rnp, images, {}, None, None, 0.1)
    with frozen(rnp, 1):
        density = LogDensity(rnp, known)
        torch.manual_seed(2)
        u = density.propose(32)[0]
        torch.manual_seed(2)
        normal = fit_normal(density, 0)
        log_p, here = density.visit(u), density.visit(normal.loc.unsqueeze(0))
    torch.testing.assert_close(here[0], log_p.amax(0), rtol=1e-4, atol=1e-4)
    assert (log_p.amax(0) > log_p.mean(0) + 1).all()


@pytest.mark.parametrize("full", [True, False])
@torch.no_grad()
def test_the_start_of_particles_has_its_density_and_is_diagonal_where_the_fit_is(full, monkeypatch):
    monkeypatch.setattr(variational, "FULL", 3 if full else 2)
    normal = FittedNormal(torch.randn(2, 3), torch.rand(2, 3) + 0.5).double()
    if full:
        normal.below.copy_(torch.randn(2, 3, 3))
    start, images = Start(normal, 2.0), torch.tensor([1, 0, 1])
    assert start.spread.shape == start.inverse.shape == ((2, 3, 3) if full else (2, 3))
    near = MultivariateNormal(normal.loc, scale_tril=2 * normal.scale_tril).expand((2,))
    u = start.draw(40_000, images)
    mean, covariance = u[:20_000].mean(0), u[:20_000, 1].T.cov()
    torch.testing.assert_close(mean, normal.loc[images], atol=0.2, rtol=0)
    torch.testing.assert_close(covariance, near.covariance_matrix[0], atol=0.3, rtol=0.1)
    torch.testing.assert_close(u[20_000:, 0].T.cov(), torch.eye(3).double(), atol=0.05, rtol=0)
    with torch.enable_grad():
        u = u[19_990:20_010].requires_grad_()
        first = MultivariateNormal(near.loc[images], scale_tril=near.scale_tril[images])
        both = torch.stack([first.log_prob(u), Normal(0.0, 1.0).log_prob(u).sum(-1)])
        wanted = both.logsumexp(0) - math.log(2)
        (slope,) = torch.autograd.grad(wanted.sum(), u)
    log_q, slope_q = start.log_prob(u, images)
    torch.testing.assert_close(log_q, wanted)
    torch.testing.assert_close(slope_q, slope)
