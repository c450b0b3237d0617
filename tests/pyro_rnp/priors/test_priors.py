"""Priors: what each is, by its own formula."""

import math

import pyro
import pytest
import torch
from pyro.infer import HMC, MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from torch.distributions import Normal, StudentT, biject_to

from pyro_rnp import RNP
from pyro_rnp.priors import Flow, GaussianMixture, StandardNormal
from pyro_rnp.priors import StudentT as StudentTPrior
from pyro_rnp.registry import PRIORS
from tests.conftest import tiny


def test_it_is_standard_normal():
    prior = StandardNormal(tiny())()
    assert (prior.batch_shape, prior.event_shape) == ((), (3,))
    z = torch.tensor([0.5, -1.0, 2.0])
    wanted = (-0.5 * z**2).sum() - 1.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(prior.log_prob(z), wanted)


@pytest.mark.parametrize("name", PRIORS.pieces)
def test_what_every_prior_has(name):
    prior = RNP(tiny(prior=name)).model.prior()
    assert (prior.batch_shape, prior.event_shape) == ((), (3,))
    z = prior.sample((7,))
    assert z.shape == (7, 3)
    assert prior.log_prob(z).shape == (7,)
    assert prior.expand([4]).log_prob(z[:4]).shape == (4,)
    torch.testing.assert_close(prior.expand([4]).log_prob(z[:4]), prior.log_prob(z)[:4])


@pytest.mark.parametrize("name", PRIORS.pieces)
def test_pyro_s_samplers_and_automatic_guides_run_with_every_prior(name, images):
    rnp = RNP(tiny(prior=name, steps=(2,))).eval()
    prior = rnp.model.prior()
    assert prior.support.check(prior.sample((7,))).all()
    assert not prior.support.check(torch.full((3,), math.nan)).any()
    biject_to(prior.support)
    short = {"step_size": 0.01, "adapt_step_size": False}
    kernels = (NUTS(rnp.model, max_tree_depth=2, **short), HMC(rnp.model, num_steps=2, **short))
    for kernel in kernels:
        mcmc = MCMC(kernel, num_samples=2, warmup_steps=1, disable_progbar=True)
        mcmc.run(images)
        assert mcmc.get_samples()["z"].shape == (2, 4, 3)
        assert mcmc.get_samples()["z"].isfinite().all()
    for automatic in (AutoNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal, AutoDelta):
        guide = automatic(rnp.model)
        svi = SVI(rnp.model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        assert math.isfinite(svi.step(images))
        assert guide.median(images)["z"].shape == (4, 3)


def test_a_mixture_is_the_weighted_mean_of_its_components():
    prior = GaussianMixture(tiny(), components=4)
    with torch.no_grad():
        prior.logits.add_(torch.randn(4))
        prior.log_scale.add_(0.5 * torch.randn(4, 3))
    z = torch.randn(5, 3)
    each = Normal(prior.loc, prior.log_scale.exp()).log_prob(z.unsqueeze(1)).sum(-1).exp()
    wanted = (each * prior.logits.softmax(0)).sum(1).log()
    torch.testing.assert_close(prior().log_prob(z), wanted)


@pytest.mark.parametrize("guide", ["diagonal", "full", "flow", "refined"])
def test_the_vamp_prior_is_the_mean_posterior_of_its_pseudo_images(guide):
    rnp = RNP(tiny(prior="vamp:components=4", guide=guide))
    prior = rnp.model.prior
    with torch.no_grad():
        prior.logits.add_(torch.randn(4))
    z = torch.randn(5, 3)
    images = prior.raw.sigmoid()
    single = [rnp.guide.proposal(images[k : k + 1]) for k in range(4)]
    each = torch.stack([q.log_prob(row.unsqueeze(0)) for row in z for q in single]).view(5, 4)
    wanted = (each + prior.logits.log_softmax(0)).logsumexp(1)
    torch.testing.assert_close(prior().log_prob(z), wanted)
    names = dict(rnp.model.named_parameters())
    assert not any("encoder" in name for name in names), "the encoder stays the guide's"


def test_a_flow_starts_as_the_standard_normal_and_integrates_to_one():
    prior = Flow(tiny(program_size=2), layers=3)
    z = torch.randn(6, 2)
    torch.testing.assert_close(prior().log_prob(z), Normal(0, 1).log_prob(z).sum(-1))
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.05 * torch.randn_like(p))
    line = torch.linspace(-12, 12, 401)
    mass = prior().log_prob(torch.cartesian_prod(line, line)).exp().sum() * 0.06**2
    assert mass.item() == pytest.approx(1, abs=1e-3)
    assert not torch.allclose(prior().log_prob(z), Normal(0, 1).log_prob(z).sum(-1), atol=0.01)


def test_student_s_t_has_heavier_tails():
    z = torch.full((1, 3), 4.0)
    prior = StudentTPrior(tiny(), df=3.0)()
    torch.testing.assert_close(prior.log_prob(z), StudentT(3.0).log_prob(z).sum(-1))
    normal = 3 * (-8 - 0.5 * math.log(2 * math.pi))
    assert prior.log_prob(z).item() > normal + 5
