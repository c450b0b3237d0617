"""Importance sampling in rounds, each of which follows the weights of those before."""

import pytest
import torch
from pyro.distributions import Normal

from inference.posterior import adaptation, query
from inference.posterior.adaptation import FREEDOM, Mixture, flattened, follow
from inference.posterior.weights import importance_weights
from pyro_rnp import RNP
from pyro_rnp.sites import sites
from tests.conftest import tiny
from tests.inference.posterior.test_queries import LEFT, asked, trained  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("unchecked")
ROUNDS = {"method": "importance:rounds=10", "num_samples": 10_000, "progress": False}


def near(found, error, wanted, wanted_error):
    room = 5 * (error.double().square() + wanted_error.square()).sqrt() + 1e-5
    return bool(((found.double() - wanted).abs() <= room).all())


def test_it_agrees_with_brute_force_on_all_evidence(asked):  # noqa: F811
    rnp, known, truth = asked
    answer = query(rnp, **known, **ROUNDS)
    assert answer.trusted.all() or known["given"]
    if not answer.trusted.all():
        return
    assert near(answer.log_evidence, answer.log_evidence_error, *truth_of_evidence(truth))
    for name in sites(rnp.config):
        assert near(answer.mean(name)[0], answer.standard_error(name)[0], *truth.mean(name)), name
        covariance = answer.covariance(name)[0], answer.covariance_error(name)[0]
        assert near(*covariance, *truth.covariance(name)), name


def truth_of_evidence(truth):
    return truth.evidence, truth.evidence_error


class Astray(torch.nn.Module):
    """A guide far from every posterior."""

    def posterior(self, images):
        return Normal(torch.full((len(images), 2), 2.0), 0.3).to_event(1)


def test_rounds_find_the_posterior_from_a_guide_that_is_far_off():
    rnp = trained()
    images = rnp.sample(6).canvas.clamp(0, 1)
    top = rnp.guide.top
    try:
        rnp.guide.top = Astray()
        how = {"mask": LEFT, "num_samples": 1000, "progress": False}
        plain = query(rnp, images, method="importance", **how)
        rounds = query(rnp, images, method="importance:rounds=10", **how)
    finally:
        rnp.guide.top = top
    assert plain.trusted.float().mean() < 0.5
    assert rounds.trusted.float().mean() > 0.8
    assert rounds.effective_samples.median() > 10 * plain.effective_samples.median()


class Known:
    """A density of 16 numbers whose evidence is 1, with the prior as guide."""

    def __init__(self, known):
        self.prior = Normal(torch.zeros(200, 16), 1.0).to_event(1)
        self.posterior = Normal(torch.full((200, 16), 0.3), 0.6).to_event(1)
        self.visit = self.posterior.log_prob
        self.known = known

    def groups(self, most):
        return [self]

    def propose(self, num, broad=0):
        u = self.prior.sample((num,))
        return u, self.prior.log_prob(u), self.visit(u)

    def proposal_log_prob(self, num, broad):
        return self.prior.log_prob if self.known else None


@pytest.mark.parametrize("known", [False, True])
def test_samples_that_a_proposal_was_fitted_to_do_not_count(known):
    torch.manual_seed(0)
    _, log_weights = adaptation.rounds_of_importance(Known(known), 300, 10)
    found = importance_weights(log_weights)
    assert (found.effective_samples > 10).float().mean() > 0.8, "the answers look good"
    assert found.log_evidence.exp().mean() == pytest.approx(1, abs=0.05)
    error = found.log_evidence / found.log_evidence_error
    assert error.square().mean().sqrt() < 1.5, "and are as good as they say"


def test_the_mixture_counts_every_round_as_often_as_it_was_drawn_from():
    mixture = Mixture(torch.zeros(3, 2))
    a = Normal(torch.full((3, 2), 5.0), 1.0).to_event(1)
    b = Normal(torch.full((3, 2), -5.0), 1.0).to_event(1)
    u = torch.cat([mixture.add(a, 100), mixture.add(b, 300)])
    assert u.shape == (400, 3, 2)
    assert ((u > 2).all(2).sum(0) >= 90).all()
    standard = Normal(torch.zeros(3, 2), 1.0).to_event(1)
    parts = [0.2375 * a.log_prob(u).exp(), 0.7125 * b.log_prob(u).exp()]
    wanted = sum(parts) + 0.05 * standard.log_prob(u).exp()
    torch.testing.assert_close(mixture.log_prob(u), wanted.log())


def test_a_proposal_follows_the_weighted_mean_and_covariance():
    wanted = torch.tensor([[1.0, 0.6], [0.6, 2.0]])
    u = torch.randn(20_000, 1, 2) @ torch.linalg.cholesky(wanted).mT + 3
    q = follow(u, torch.zeros(20_000, 1))
    torch.testing.assert_close(q.loc, torch.full((1, 2), 3.0), atol=0.05, rtol=0)
    shrunk = 1.2 * torch.tensor([[1.0, 0.42], [0.42, 2.0]])
    found = q.scale_tril[0] @ q.scale_tril[0].mT
    torch.testing.assert_close(found, shrunk, atol=0.1, rtol=0)
    assert q.df == FREEDOM
    assert follow(torch.randn(9, 2, 200), torch.zeros(9, 2)).sample((3,)).shape == (3, 2, 200)


def test_weights_are_flattened_only_as_far_as_needed():
    log_weights = 10 * torch.randn(500, 3)
    log_weights[:, 0] = 0.1 * torch.randn(500)
    w = flattened(log_weights, 30)
    torch.testing.assert_close(w[:, 0], log_weights[:, 0].softmax(0), rtol=1e-4, atol=1e-7)
    effective = 1 / w.square().sum(0)
    torch.testing.assert_close(effective[1:], torch.full((2,), 30.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(w.sum(0), torch.ones(3))


def test_numbers_of_rounds_and_samples_are_checked_and_kept():
    rnp, images = RNP(tiny(stochastic="both")).eval(), torch.rand(2, 1, 8, 8)
    for rounds in (1, 4, 6):
        how = {"method": f"importance:rounds={rounds}", "num_samples": 6}
        answer = query(rnp, images, mask=LEFT, **how)
        assert answer.weights.shape == answer.log_weights.shape == (6, 2)
        assert torch.equal(query(rnp, images, mask=LEFT, **how).weights, answer.weights)
    with pytest.raises(ValueError, match="rounds must be at most num_samples, 5, got 6"):
        query(rnp, images, method="importance:rounds=6", num_samples=5)
    with pytest.raises(ValueError, match="rounds must be at least 0"):
        query(rnp, images, method="importance:rounds=-1")


def test_one_sample_and_many_numbers(monkeypatch):
    rnp, images = RNP(tiny(masked_guide="diagonal")), torch.rand(2, 1, 8, 8)
    how = {"mask": LEFT, "method": "importance:rounds=1"}
    assert query(rnp, images, num_samples=1, **how).weights.shape == (1, 2)
    whole = query(rnp, images, num_samples=40, **how)
    monkeypatch.setattr(adaptation, "PIECE", 1)
    apart = query(rnp, images, num_samples=40, **how)
    torch.testing.assert_close(apart.log_weights, whole.log_weights)
