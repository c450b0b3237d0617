"""Means, errors and trust of weighted samples, against their formulas."""

from dataclasses import replace

import pytest
import torch
from pyro.ops.stats import effective_sample_size

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
