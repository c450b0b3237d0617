"""Completion of hidden pixels."""

import pytest
import torch

from inference.evaluation.completion import completion_metrics, nearest_images
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
    answer = query(rnp, images, mask=LEFT, **options)
    wanted = answer.expectation(rnp.model.likelihood(answer.canvas).mean)
    wanted = (wanted - images)[..., 4:].square().sum((1, 2, 3)).mean().item()
    assert found == pytest.approx(wanted, rel=1e-5)
    assert not torch.allclose(answer.mean("canvas"), rnp.model.likelihood(answer.canvas).mean[0])
