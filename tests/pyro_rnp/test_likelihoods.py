"""Likelihoods in nats."""

import math

import pytest
import torch

from pyro_rnp import RNP
from pyro_rnp.likelihoods import KNEE, LaplaceLikelihood, NormalLikelihood, logit
from pyro_rnp.registry import LIKELIHOODS
from tests.conftest import tiny


def test_squared_error_in_nats():
    canvas, x = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    p = NormalLikelihood(tiny(sigma=0.25))(canvas)
    assert (p.batch_shape, p.event_shape) == ((3,), (1, 8, 8))
    wanted = -(x - canvas).square().sum((1, 2, 3)) / (2 * 0.25**2)
    torch.testing.assert_close(p.log_prob(x) - p.log_prob(canvas), wanted)


def test_absolute_error_in_nats():
    canvas, x = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    p = LaplaceLikelihood(tiny(sigma=0.25))(canvas)
    wanted = -(x - canvas).abs().sum((1, 2, 3)) / 0.25 - 64 * math.log(0.5)
    torch.testing.assert_close(p.log_prob(x), wanted)


@pytest.mark.parametrize("cls", [NormalLikelihood, LaplaceLikelihood])
def test_a_scale_is_learned_towards_the_error_that_is_there(cls):
    likelihood = cls(tiny(sigma=0.5), learned=True)
    canvas = torch.zeros(50, 1, 8, 8)
    x = 0.1 * torch.randn_like(canvas)
    optimiser = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        (-likelihood(canvas).log_prob(x).sum()).backward()
        optimiser.step()
    best = x.square().mean().sqrt() if cls is NormalLikelihood else x.abs().mean()
    assert likelihood.log_scale.exp().item() == pytest.approx(best.item(), rel=0.02)


@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli"])
def test_a_canvas_is_a_probability_where_it_can_be(name):
    likelihood = LIKELIHOODS.make(name, tiny())
    canvas = torch.linspace(0.01, 0.89, 64).view(1, 1, 8, 8)
    x = torch.rand(1, 1, 8, 8).round()
    p = likelihood(canvas).log_prob(x)
    wanted = (x * canvas.log() + (1 - x) * (1 - canvas).log()).sum()
    if name == "continuous_bernoulli":  # the normaliser of a density on [0, 1]
        wanted = wanted + (2 * torch.atanh(1 - 2 * canvas) / (1 - 2 * canvas)).log().sum()
    torch.testing.assert_close(p[0], wanted, rtol=1e-3, atol=1e-2)


def test_continuous_bernoulli_is_a_density_whatever_the_canvas():
    likelihood = LIKELIHOODS.make("continuous_bernoulli", tiny())
    canvas = torch.tensor([-1.0, 0.0, 0.3, 0.4999, 0.5, 0.52, 0.95, 1.5, 2.5, 4.0])
    pixels = (torch.arange(20_000.0) + 0.5) / 20_000
    p = likelihood(canvas.view(-1, 1, 1, 1)).base_dist
    mass = p.log_prob(pixels).double().exp().mean((1, 2, 3))
    torch.testing.assert_close(mass, torch.ones(10).double(), rtol=0, atol=2e-3)


def test_logits_rise_without_a_break_and_never_end():
    canvas = torch.linspace(1e-3, 6, 20_001, dtype=torch.float64, requires_grad=True)
    found = logit(canvas)
    (slope,) = torch.autograd.grad(found.sum(), canvas)
    assert (slope > 0).all()
    assert (slope[canvas > 1.5] > 9.9).all(), "a pixel with too much ink keeps its gradient"
    at = torch.tensor([KNEE - 1e-9, KNEE + 1e-9], dtype=torch.float64, requires_grad=True)
    values = logit(at)
    (slopes,) = torch.autograd.grad(values.sum(), at)
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(slopes[0], slopes[1])
    assert logit(torch.tensor([-0.5, 0.0, 100.0])).isfinite().all()


def test_only_bernoulli_asks_for_binary_images(images):
    for name in LIKELIHOODS.pieces:
        rnp = RNP(tiny(likelihood=name))
        rnp.parse(images.round())
        if name == "bernoulli":
            with pytest.raises(ValueError, match="pixels must be 0 or 1 for bernoulli"):
                rnp.parse(images)
        else:
            rnp.parse(images)


@pytest.mark.parametrize("name", LIKELIHOODS.pieces)
def test_a_canvas_of_half_precision_has_a_density_in_full(name):
    canvas = torch.rand(2, 1, 8, 8).bfloat16()
    likelihood, x = LIKELIHOODS.make(name, tiny()), torch.rand(2, 1, 8, 8).round()
    found, wanted = (likelihood(c).log_prob(x) for c in (canvas, canvas.float()))
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
