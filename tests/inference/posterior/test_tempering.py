"""Particles against targets whose moments and evidence are known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from inference.posterior.chains import bulk_and_tail_size, rank_normalised, rank_r_hat
from inference.posterior.hmc import run_chains
from inference.posterior.islands import evidence_error, independent, island_error, shared_out
from inference.posterior.moves import NEVER, Points, Spreads, hamiltonian, spread_of
from inference.posterior.tempering import Schedule, systematic, temper

pytestmark = pytest.mark.usefixtures("double")
COVARIANCE = [[1.0, 0.9, 0.0], [0.9, 1.0, -0.3], [0.0, -0.3, 0.5]]
LOG_Z = torch.tensor([3.0, -40.0])


def correlated(u, columns):
    """Correlated normals, elsewhere in each of two columns, of known evidence."""
    loc = torch.tensor([[1.0, -1.0, 0.5], [-2.0, 0.0, 1.0]])[columns]
    normal = MultivariateNormal(torch.zeros(3), 0.05 * torch.tensor(COVARIANCE))
    return normal.log_prob(u - loc) + LOG_Z[columns]


def bimodal(u, columns):
    """Two narrow bumps, of weights 0.3 and 0.7, 4 apart."""
    bumps = [Normal(x, 0.25).log_prob(u).sum(-1) for x in (-2.0, 2.0)]
    return torch.logaddexp(bumps[0] + math.log(0.3), bumps[1] + math.log(0.7)) + LOG_Z[columns]


def densities(log_density, calls=None):
    """What `temper` moves by: a standard normal to start from and a target."""

    def at(u, columns):
        if calls is not None:
            calls.append(u.shape[:2])
        found = []
        for f in (log_density, lambda u, _: Normal(0.0, 1.0).log_prob(u).sum(-1)):
            here = u.clone().requires_grad_()
            log = f(here, columns)
            found.append((log.detach(), torch.autograd.grad(log.sum(), here)[0]))
        (log_p, slope_p), (log_q, slope_q) = found
        return Points(u, log_p, log_q, slope_p, slope_q)

    return at


def tempered(log_density, size, islands=64, particles=16, num=50, **options):
    columns = torch.arange(2).repeat(islands)
    at = densities(log_density)
    first = at(torch.randn(4 * particles, 2 * islands, size), columns)
    schedule = Schedule(particles=particles, **options)
    return temper(at, first, columns, num, schedule).unflatten(islands)


def summary(run, f=lambda u: u):
    """Mean of a function with its error, (2, ...) each, islands weighted by their evidence."""
    u = f(run.u.flatten(0, 1))
    weights = shared_out(run.log_evidence, len(u)).softmax(0)
    islands = len(run.log_evidence)
    mean = (weights.view(*weights.shape, *[1] * (u.ndim - 2)) * u).sum(0)
    return mean, island_error(u, weights, islands)


@pytest.mark.parametrize("target", [correlated, bimodal])
def test_evidence_and_moments_are_those_of_the_target(target):
    run = tempered(target, 3 if target is correlated else 2)
    evidence = run.log_evidence.logsumexp(0) - math.log(64)
    error = evidence_error(run.log_evidence)
    assert error.max() < 0.25
    assert ((evidence - LOG_Z).abs() < 4 * error).all()
    mean, error = summary(run)
    if target is correlated:
        wanted = torch.tensor([[1.0, -1.0, 0.5], [-2.0, 0.0, 1.0]])
        apart, covariance = (run.u.flatten(0, 1) - wanted), 0.05 * torch.tensor(COVARIANCE)
        products = apart.unsqueeze(-1) * apart.unsqueeze(-2)
        found, far = summary(run._replace(u=products.flatten(2).unflatten(0, (-1, 64))))
        assert ((found - covariance.flatten()).abs() < 4.5 * far).all()
        assert far.max() < 0.01
    else:
        wanted = torch.full((2, 2), 0.8)
        share, _ = summary(run, lambda u: (u > 0).double())
        assert ((share - 0.7).abs() < 0.15).all()
    assert ((mean - wanted).abs() < 4.5 * error).all()
    assert error.max() < 0.3
    assert run.reached.all()
    assert run.temperatures.min() >= 2
    assert ((run.acceptance.mean(0) > 0.5) & (run.acceptance.mean(0) < 0.99)).all()


def test_small_islands_in_many_dimensions_know_the_evidence():
    # Scaled by their own spread, these few particles would be more than a nat too low.
    size, images = 20, torch.arange(20)
    at = densities(lambda u, _: Normal(0.0, 0.3).log_prob(u).sum(-1))
    columns = images.repeat(8)
    first = at(torch.randn(32, len(columns), size), columns)
    run = temper(at, first, columns, 25, Schedule()).unflatten(8)
    found = run.log_evidence.logsumexp(0) - math.log(8)
    assert abs(float(found.mean())) < 0.35
    assert float(run.u.std()) == pytest.approx(0.3, rel=0.05)
    error = evidence_error(run.log_evidence)
    assert 0.3 < float((found / error).square().mean()) < 3


def test_particles_are_moved_by_the_spread_of_the_other_islands():
    u, alike = torch.randn(50, 3, 2), torch.full((50, 3), 1 / 50)
    u[:, 1] *= 5.0
    spreads = Spreads(torch.tensor([0, 0, 1]))  # two islands of one image, and one of another
    found = spreads(torch.arange(3), u, alike)
    for mine, other in ((0, 1), (1, 0), (2, 2)):
        torch.testing.assert_close(found[mine], spread_of(u[:, other : other + 1], alike[:, :1])[0])
    later = spreads(torch.tensor([1]), 2 * u[:, 1:2], alike[:, :1])
    torch.testing.assert_close(later[0], found[1])  # the island that left is still known
    wide = torch.randn(50, 2, 100)
    spreads = Spreads(torch.zeros(2, dtype=torch.long))
    found = spreads(torch.arange(2), wide, alike[:, :2])
    torch.testing.assert_close(found[0], wide[:, 1].std(0, correction=0))


def test_columns_that_are_done_are_not_computed_any_more():
    def easy_and_hard(u, columns):
        width = torch.tensor([1.0, 0.01])[columns].unsqueeze(-1)
        return Normal(0.0, width).log_prob(u).sum(-1)

    calls, columns = [], torch.arange(2)
    at = densities(easy_and_hard, calls)
    first = at(torch.randn(32, 2, 2), columns)
    told = []
    run = temper(at, first, columns, 10, Schedule(), told.append)
    assert run.temperatures[0] == 1 < run.temperatures[1]
    assert told == [2, *[1] * (len(told) - 1)]
    assert len(told) == run.temperatures[1]
    each = 2 * Schedule.leaps
    assert calls[1:] == [(8, 2)] * each + [(8, 1)] * each * (len(told) - 1)


def test_a_column_is_the_same_beside_others_in_distribution_and_alone_reproducible():
    torch.manual_seed(1)
    one = tempered(correlated, 3, islands=4)
    torch.manual_seed(1)
    again = tempered(correlated, 3, islands=4)
    for x, y in zip(one, again, strict=True):
        assert torch.equal(x, y)


def test_moves_leave_a_density_as_it_is_and_each_particle_accepts_for_itself():
    at, columns = densities(correlated), torch.arange(2)
    loc = torch.tensor([[1.0, -1.0, 0.5], [-2.0, 0.0, 1.0]])
    covariance = 0.05 * torch.tensor(COVARIANCE)
    u = loc + MultivariateNormal(torch.zeros(3), covariance).sample((20_000, 2))
    weights = torch.full((len(u), 2), 1 / len(u))
    for spread in (spread_of(u, weights), torch.tensor([[0.3, 0.2, 0.1]] * 2)):
        here = at(u, columns)
        step = torch.tensor([0.5, 0.9])
        there, chance = hamiltonian(at, here, columns, torch.ones(2), step, spread, 3)
        moved = (there.u != here.u).any(-1)
        assert ((moved.double() - chance).mean(0).abs() < 0.02).all()
        assert (chance.mean(0) < 0.99).all()
        torch.testing.assert_close(there.log_p, at(there.u, columns).log_p)
        torch.testing.assert_close(there.slope_p, at(there.u, columns).slope_p)
        apart = there.u - loc
        assert (apart.mean(0).abs() < 4.5 * (covariance.diag() / len(u)).sqrt()).all()
        products = torch.einsum("pci,pcj->pcij", apart, apart)
        error = products.std(0) / len(u) ** 0.5
        assert ((products.mean(0) - covariance).abs() < 4.5 * error).all()


def test_moves_to_where_the_density_is_not_finite_are_refused():
    def half(u, columns):
        log = Normal(0.0, 1.0).log_prob(u).sum(-1)
        return log.where(u[..., 0] > 0, NEVER)

    at, columns = densities(half), torch.zeros(1, dtype=torch.long)
    here = at(torch.randn(2000, 1, 2).abs(), columns)
    spread = torch.ones(1, 2)
    for _ in range(5):
        here, _ = hamiltonian(at, here, columns, torch.ones(1), torch.ones(1), spread, 3)
    assert (here.u[..., 0] > 0).all()
    assert here.u[..., 0].mean() == pytest.approx((2 / math.pi) ** 0.5, abs=0.05)


def test_particles_are_drawn_as_often_as_their_weight_says():
    weights = torch.rand(7, 3).softmax(0)
    counts = torch.stack([row.bincount(minlength=7) for row in systematic(weights, 100).T], 1)
    assert ((counts - 100 * weights).abs() < 1).all()
    rows = torch.stack([systematic(weights, 2) for _ in range(3000)])
    share = (rows.unsqueeze(-1) == torch.arange(7)).double().mean((0, 1))
    torch.testing.assert_close(share.T, weights, rtol=0, atol=0.03)


def test_the_spread_is_the_covariance_as_far_as_particles_tell():
    u = MultivariateNormal(torch.zeros(3), torch.tensor(COVARIANCE)).sample((50_000, 1))
    weights = torch.full((len(u), 1), 1 / len(u))
    factor = spread_of(u, weights)[0]
    torch.testing.assert_close(factor @ factor.T, torch.tensor(COVARIANCE), rtol=0, atol=0.03)
    few = spread_of(u[:3], torch.full((3, 1), 1 / 3))[0]
    covariance = few @ few.T
    plain = u[:3, 0].T.cov(correction=0)
    torch.testing.assert_close(covariance.diag(), plain.diag())
    torch.testing.assert_close(covariance[0, 1], plain[0, 1] / 2)
    wide = torch.randn(100, 1, 65)
    torch.testing.assert_close(
        spread_of(wide, torch.full((100, 1), 0.01))[0], wide[:, 0].std(0, correction=0)
    )


def test_errors_are_those_of_many_repetitions():
    """Of islands with evidences and means that vary, as many times over."""
    k, times, each = 8, 4000, 3
    log_evidence = 0.5 * torch.randn(k, times)
    means = 1 + torch.randn(k, times)
    values = means.repeat(each, 1).unsqueeze(-1)
    weights = shared_out(log_evidence, k * each).softmax(0)
    torch.testing.assert_close(weights[:k] * each, log_evidence.softmax(0))
    error = island_error(values, weights, k)[:, 0]
    found = (weights.unsqueeze(-1) * values).sum(0)[:, 0]
    assert float(((found - 1).abs() < error).double().mean()) == pytest.approx(0.68, abs=0.04)
    truth = 0.125  # log of the mean of a log-normal
    found = log_evidence.logsumexp(0) - math.log(k)
    error = evidence_error(log_evidence)
    assert float(((found - truth).abs() < error).double().mean()) == pytest.approx(0.68, abs=0.05)
    assert evidence_error(torch.tensor([[0.0], [0.0], [50.0], [0.0]])) > 10
    assert island_error(values[:each], weights[:each], 1).isinf().all()
    worth = independent(values.expand(-1, -1, 40), weights, k)
    assert (worth <= k * each).all()


def test_evidence_is_shared_out_so_that_islands_of_unequal_size_count_by_it():
    log_evidence = torch.tensor([[0.0], [1.0], [2.0]])
    log_weights = shared_out(log_evidence, 7)
    weights = log_weights.softmax(0)
    for i in range(3):
        torch.testing.assert_close(weights[i::3].sum(0), log_evidence.softmax(0)[i])
    wanted = log_evidence.logsumexp(0) - math.log(3)
    torch.testing.assert_close(log_weights.logsumexp(0) - math.log(7), wanted)


def test_chains_learn_their_step_and_spread_and_sample_the_target():
    at, columns, chains = densities(correlated), torch.arange(2), 20
    loc = torch.tensor([[1.0, -1.0, 0.5], [-2.0, 0.0, 1.0]])
    first, spread = loc + 0.3 * torch.randn(chains, 2, 3), torch.ones(2, 3)
    told = []
    run = run_chains(at, first, columns, spread, 60, 100, 4, 0.1, lambda: told.append(1))
    assert len(told) == 160
    assert run.u.shape == (chains, 100, 2, 3)
    assert ((run.acceptance > 0.6) & (run.acceptance < 0.99)).all()
    assert (run.diverged < 0.01 * 2000).all()
    assert rank_r_hat(run.u).max() < 1.02
    bulk, tail = bulk_and_tail_size(run.u)
    assert bulk.min() > 300
    assert tail.min() > 200
    apart, covariance = run.u.flatten(0, 1) - loc, 0.05 * torch.tensor(COVARIANCE)
    assert (apart.mean(0).abs() < 4.5 * (covariance.diag() / bulk).sqrt()).all()
    found = torch.einsum("sci,scj->cij", apart, apart) / len(apart)
    assert ((found - covariance).abs() < 0.008).all()


def test_chains_that_stand_still_or_apart_are_found():
    good = torch.randn(4, 200)
    assert rank_r_hat(good) < 1.02
    assert rank_r_hat(good + torch.tensor([[0.0], [0.0], [0.0], [2.0]])) > 1.2
    assert rank_r_hat(good * torch.tensor([[1.0], [1.0], [1.0], [4.0]])) > 1.1, "of another width"
    heavy = torch.distributions.Cauchy(0.0, 1.0).sample((4, 200))
    assert rank_r_hat(heavy) < 1.03, "ranks have a variance"
    still = torch.randn(4, 1).expand(4, 200)
    assert not rank_r_hat(still) < 1.05
    bulk, tail = bulk_and_tail_size(good)
    assert bulk == pytest.approx(800, rel=0.3)
    assert tail == pytest.approx(800, rel=0.4)


def test_ranks_become_quantiles_of_a_normal():
    values = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    ranks = torch.tensor([[4.0, 1.5], [1.5, 3.0]])
    wanted = Normal(0.0, 1.0).icdf((ranks - 3 / 8) / 4.25)
    torch.testing.assert_close(rank_normalised(values), wanted)


@pytest.mark.parametrize("number", [1, 3])
def test_particles_at_one_place_have_a_spread(number):
    u = torch.full((200, number, 16), 5.0)
    weights = torch.rand(200, number).softmax(0)
    weights = weights * (1 + 1e-6)  # as single precision may round it
    spread = Spreads(torch.zeros(number, dtype=torch.long))(torch.arange(number), u, weights)
    for found in (spread, spread_of(u, weights)):
        deviations = found.diagonal(dim1=-2, dim2=-1)
        assert (deviations > 1e-6).all(), "moves are never nothing"
        assert (deviations < 1e-4).all()
        assert (found - deviations.diag_embed()).abs().max() < 1e-6
