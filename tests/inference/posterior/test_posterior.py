"""Means, errors and trust of weighted samples, against their formulas."""

import pickle
import tempfile
from copy import deepcopy
from dataclasses import replace

import pyro
import pytest
import torch
from pyro.ops.stats import effective_sample_size

from inference.posterior import posterior as module
from inference.posterior import query
from inference.posterior.weights import importance_weights
from pyro_rnp import RNP
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("double")

S, N = 200, 3


def test_the_evidence_and_its_error_are_those_of_the_mean_weight():
    log_weights = torch.randn(S, N) - 40
    found, w = importance_weights(log_weights), (log_weights + 40).exp()
    mean = w.sum(0) / S
    deviation = ((w - mean).square().sum(0) / (S - 1)).sqrt()
    torch.testing.assert_close(found.weights, w / w.sum(0))
    torch.testing.assert_close(found.log_evidence, mean.log() - 40)
    torch.testing.assert_close(found.log_evidence_error, deviation / S**0.5 / mean)
    torch.testing.assert_close(found.effective_samples, w.sum(0) ** 2 / w.square().sum(0))


@pytest.mark.parametrize("method", ["importance", "guide"])
def test_moments_and_their_errors_are_those_of_the_formulas(method):
    answer = query(RNP(tiny()), torch.rand(N, 1, 8, 8), method=method, num_samples=S)
    log_weights = 2 * torch.randn(S, N)
    raw = log_weights.exp() / log_weights.exp().sum(0)
    w = raw if method == "importance" else torch.full((S, N), 1 / S)
    answer = replace(answer, weights=w, log_weights=log_weights)
    samples = answer.samples["z"]
    for n in range(N):
        x = samples[:, n]
        mean = sum(w[s, n] * x[s] for s in range(S))
        squares = sum(w[s, n] * (x[s] - mean) ** 2 for s in range(S))
        error = sum((w[s, n] * (x[s] - mean)) ** 2 for s in range(S)).sqrt()
        outer = torch.stack([torch.outer(row - mean, row - mean) for row in x])
        covariance = sum(w[s, n] * outer[s] for s in range(S))
        spread = sum((w[s, n] * (outer[s] - covariance)) ** 2 for s in range(S)).sqrt()
        if method == "guide":  # and how far the weights would move it
            moved = sum(raw[s, n] * x[s] for s in range(S))
            error = (error**2 + (moved - mean) ** 2).sqrt()
            about = torch.stack([torch.outer(row - moved, row - moved) for row in x])
            other = sum(raw[s, n] * about[s] for s in range(S))
            spread = (spread**2 + (other - covariance) ** 2).sqrt()
        torch.testing.assert_close(answer.mean("z")[n], mean)
        torch.testing.assert_close(answer.variance("z")[n], squares)
        torch.testing.assert_close(answer.standard_error("z")[n], error)
        torch.testing.assert_close(answer.covariance("z")[n], covariance)
        torch.testing.assert_close(answer.covariance_error("z")[n], spread)


def test_chains_are_judged_by_the_number_that_mixes_worst(monkeypatch):
    rnp, chains, each = RNP(tiny(stochastic="actions,none")), 4, 50
    u = torch.randn(chains, each, N, 3 + 2 * 6)
    u[..., 1] += 0.5 * torch.arange(float(chains)).view(-1, 1, 1)  # of z
    u[..., 7] += 0.05 * torch.arange(float(each)).view(-1, 1)  # of a/0
    monkeypatch.setattr("inference.posterior.nuts.sample_chains", lambda *_: (u, 0))
    images = torch.rand(N, 1, 8, 8)
    answer = query(rnp, images, method="nuts", num_samples=chains * each, steps=0, chains=chains)
    halves = u.view(2 * chains, each // 2, N, -1)
    within, between = halves.var(1).mean(0), halves.mean(1).var(0)
    r_hat = (1 - 2 / each + between / within).sqrt()
    for name, (first, last) in {"z": (0, 3), "a/0": (3, 9), "a/1": (9, 15)}.items():
        torch.testing.assert_close(answer.r_hat[name], r_hat[:, first:last].amax(1))
    size = torch.stack([effective_sample_size(u[..., i], 0, 1) for i in range(15)])
    torch.testing.assert_close(answer.effective_samples, size.amin(0))
    assert min(answer.r_hat[name].min() for name in ("z", "a/0")) > 1.05
    assert not answer.trusted.any()


METHODS = ("mean", "variance", "standard_error", "covariance")


@pytest.mark.parametrize("method", ["importance", "guide"])
def test_of_more_trees_than_are_kept_a_few_images_run_at_a_time(method, monkeypatch):
    rnp, images = RNP(tiny(stochastic="actions")), torch.rand(5, 1, 8, 8)
    options = {"mask": torch.arange(8) < 5, "method": method, "num_samples": 20}
    options["mask"] = options["mask"].expand(8, 8)
    whole, pieces = query(rnp, images, **options), query(rnp, images, **options)
    two = 2 * 20 * whole.tree.nbytes // 100
    monkeypatch.setattr(module, "KEPT", two)
    monkeypatch.setattr("inference.posterior.log_density.AT_ONCE", 15)
    largest = 0
    log_joint = module.LogDensity.log_joint

    def run(self, u):
        nonlocal largest
        log_p, tree = log_joint(self, u)
        largest = max(largest, tree.nbytes)
        return log_p, tree

    monkeypatch.setattr(module.LogDensity, "log_joint", run)
    same = torch.testing.assert_close
    for name in ("z", "a/1", "canvas"):
        for statistic in METHODS:
            same(getattr(pieces, statistic)(name), getattr(whole, statistic)(name))
        same(pieces.samples[name], whole.samples[name])
        same(pieces.resample(3, name), whole.resample(3, name))
    same(pieces.covariance_error("a/1"), whole.covariance_error("a/1"))
    for depth in (1, 2):
        same(pieces.part_probabilities(depth), whole.part_probabilities(depth))
    same(pieces.log_likelihood, whole.log_likelihood)
    for i in range(5):
        for name, moments in pieces.to_dict(i)["sites"].items():
            for kind, value in moments.items():
                same(torch.tensor(value), torch.tensor(whole.to_dict(i)["sites"][name][kind]))
    assert "tree" not in vars(pieces)
    assert 0 < largest < two
    same(pieces[1:4].mean("canvas"), whole.mean("canvas")[1:4])
    same(pieces[1:4].r_hat, {})
    same(pieces.tree.canvas, whole.tree.canvas)


def test_trees_and_sites_that_memory_does_not_hold_are_refused(images, monkeypatch):
    answer = query(RNP(tiny()), images, method="importance", num_samples=50)
    size = answer._nbytes
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda _: 2 * size - 1)
    with pytest.raises(
        ValueError, match=r"The trees of 50 samples of 4 images need .* sample\(k\)"
    ):
        _ = answer.tree
    monkeypatch.setattr(module, "KEPT", size - 1)
    assert answer.mean("canvas").shape == (4, 1, 8, 8)
    needed = 50 * images.nbytes
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda _: needed)
    assert answer.samples["canvas"].nbytes == needed
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda _: needed - 1)
    with pytest.raises(ValueError, match="canvas of 50 samples of 4 images needs"):
        answer.samples["canvas"]
    with pytest.raises(KeyError, match="There is no site 'z/7'; there are canvas, z, a/0"):
        answer.samples["z/7"]


class Stored(torch.nn.Module):
    """A prior with a parameter of its own in Pyro's store."""

    def forward(self):
        loc = pyro.param("stored.loc", torch.zeros(3))
        return pyro.distributions.Normal(loc, 1.0).to_event(1)


def test_a_posterior_speaks_for_the_weights_that_it_was_asked_with(images):
    rnp = RNP(tiny(), prior=Stored())
    pyro.param("stored.loc", torch.ones(3))
    options = {"method": "importance", "num_samples": 20}
    before, later = query(rnp, images, **options), query(rnp, images, **options)
    wanted, likelihood = before.tree.canvas, before.log_likelihood
    with tempfile.NamedTemporaryFile() as file:
        svi = pyro.infer.SVI(
            rnp.model, rnp.guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()
        )
        for _ in range(3):
            svi.step(images)
        pyro.get_param_store().save(file.name)
        pyro.get_param_store().load(file.name)
    assert not torch.allclose(query(rnp, images, **options).tree.canvas, wanted)
    assert pyro.param("stored.loc").ne(1).all()
    store = dict(pyro.get_param_store().named_parameters())
    assert torch.equal(later.tree.canvas, wanted)
    assert torch.equal(later.log_likelihood, likelihood)
    assert dict(pyro.get_param_store().named_parameters()).keys() == store.keys()
    pyro.clear_param_store()
    again = pickle.loads(pickle.dumps(query(rnp, images, **options)))
    assert torch.equal(again.tree.canvas, deepcopy(again).tree.canvas)
