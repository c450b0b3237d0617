"""Completion of hidden pixels."""

import math

import pytest
import torch
from torch.distributions import Normal

from inference.evaluation.completion import (
    completion_metrics,
    hidden_log_likelihood,
    nearest_images,
)
from inference.posterior import query
from pyro_rnp import RNP
from tests.conftest import tiny

LEFT = (torch.arange(8) < 4).expand(8, 8)


def test_the_nearest_is_told_by_what_is_seen_alone():
    among = torch.rand(5, 1, 8, 8)
    images = torch.where(LEFT, among[[3, 1]], torch.rand(2, 1, 8, 8))
    assert torch.equal(nearest_images(images, LEFT, among), among[[3, 1]])


def test_scores_are_those_of_the_hidden_pixels(images):
    rnp = RNP(tiny()).eval()
    found = completion_metrics(
        rnp, images, LEFT, images, ("guide", "svi"), batch_size=3, num_samples=5, steps=2
    )
    assert found["nearest"]["sse"] == 0
    assert found["blank"]["sse"] == (images[..., 4:].square().sum() / 4).item()
    mean = (images - images.mean(0))[..., 4:].square().sum().item() / 4
    assert found["mean_image"]["sse"] == pytest.approx(mean, rel=1e-5)
    assert found["guide"].keys() == {"sse", "sse_error", "trusted", "seconds"}
    errors = []
    for batch in images.split(3):
        answer = query(rnp, batch, mask=LEFT, method="svi", num_samples=5, steps=2)
        errors.append((answer.mean("canvas") - batch)[..., 4:].square().sum((1, 2, 3)))
    assert found["svi"]["sse"] == pytest.approx(torch.cat(errors).mean().item(), rel=1e-5)
    other = torch.where(LEFT, images, 0)
    assert completion_metrics(rnp, other, LEFT, images, (), batch_size=3)["blank"]["sse"] == 0


def test_it_is_the_expected_pixels_that_count(images):
    rnp = RNP(tiny(likelihood="continuous_bernoulli")).eval()
    options = {"num_samples": 5, "steps": 2}
    found = completion_metrics(rnp, images, LEFT, images, ("svi",), **options)["svi"]["sse"]
    answer = query(rnp, images, mask=LEFT, method="svi", **options)
    wanted = answer.expectation(rnp.model.likelihood(answer.canvas).mean)
    wanted = (wanted - images)[..., 4:].square().sum((1, 2, 3)).mean().item()
    assert found == pytest.approx(wanted, rel=1e-5)
    assert not torch.allclose(answer.mean("canvas"), rnp.model.likelihood(answer.canvas).mean[0])


@torch.no_grad()
def test_the_likelihood_of_hidden_pixels_is_that_of_brute_force(images):
    rnp, m = RNP(tiny(program_size=2, sigma=0.4)).eval(), 40_000
    images[3, 0, 7, 7] = torch.nan  # which counts neither as hidden nor as seen
    canvas = rnp.model.run(torch.randn(m, 2)).canvas
    found = hidden_log_likelihood(
        rnp, images, LEFT, "importance", batch_size=3, num_samples=3000, progress=False
    )
    assert found.trusted.any()
    assert found.error.max() < 0.2, "an error that says something"
    for i, image in enumerate(images):
        pixels = Normal(canvas, 0.4).log_prob(image.nan_to_num()) * image.isfinite()
        logs, errors = [], []
        for log_w in (pixels.sum((1, 2, 3)), (pixels * LEFT).sum((1, 2, 3))):
            w = log_w.double().softmax(0)
            logs.append(log_w.logsumexp(0) - math.log(m))
            errors.append(float((m * w - 1).square().mean().div(m).sqrt()))
        assert max(errors) < 0.1, "brute force itself must be trustworthy"
        room = 4 * math.hypot(*errors, float(found.error[i]))
        assert abs(found.log_likelihood[i] - (logs[0] - logs[1])) < room
    scores = completion_metrics(
        rnp, images, LEFT, images, ("importance",), batch_size=3, log_likelihood=True,
        num_samples=3000, progress=False,
    )["importance"]  # fmt: skip
    assert scores["log_likelihood"] == pytest.approx(float(found.log_likelihood.mean()), rel=1e-5)
    wanted = float(found.log_likelihood.std()) / 2
    assert scores["log_likelihood_error"] == pytest.approx(wanted, rel=1e-5)
