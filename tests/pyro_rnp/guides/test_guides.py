"""Posteriors: what each guide of the top has to be."""

import pyro
import pyro.distributions as dist
import pyro.infer.autoguide
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.distributions import kl_divergence

from inference.data import ImageSet
from inference.evaluation.metrics import evaluate
from pyro_rnp import RNP
from pyro_rnp.guides import DiagonalNormal, FlowGuide, Guide
from pyro_rnp.registry import GUIDES
from pyro_rnp.sites import centre
from tests.conftest import tiny
from tests.linear import SIGMA, Linear


def test_the_posterior_is_a_proper_diagonal_normal(images):
    guide = DiagonalNormal(tiny())
    posterior = guide.posterior(images)
    assert (posterior.batch_shape, posterior.event_shape) == ((4,), (3,))
    assert (posterior.base_dist.scale > 0).all()
    loc = guide.encoder(images)[:, :3]
    torch.testing.assert_close(posterior.mean, loc)


def test_the_scale_stays_positive_when_the_encoder_says_almost_nothing(images):
    guide = DiagonalNormal(tiny())
    with torch.no_grad():
        guide.encoder[-1].bias[3:] = -1e4
    assert (guide.posterior(images).base_dist.scale > 0).all()


@pytest.mark.parametrize("name", GUIDES.pieces)
def test_what_every_posterior_has(name, images):
    guide = RNP(tiny(guide=name)).guide
    posterior = guide.posterior(images)
    assert (posterior.batch_shape, posterior.event_shape) == ((4,), (3,))
    draws = posterior.rsample((5,))
    assert draws.requires_grad
    assert posterior.log_prob(draws[0]).shape == (4,)
    assert centre(posterior).shape == (4, 3)


@pytest.mark.parametrize("name", ["full", "lowrank"])
def test_the_kl_of_a_full_normal_is_the_mean_of_its_samples(name, images):
    posterior = Guide(tiny(guide=name)).posterior(images)
    p = dist.Normal(torch.tensor([0.5, 0.0, -1.0]), torch.tensor([1.0, 2.0, 0.5])).to_event(1)
    z = posterior.sample((20_000,))
    draws = posterior.log_prob(z) - p.log_prob(z)
    error = draws.std(0) / len(draws) ** 0.5
    assert ((kl_divergence(posterior, p) - draws.mean(0)).abs() < 4 * error).all()
    with pytest.raises(NotImplementedError):
        kl_divergence(posterior, dist.Laplace(torch.zeros(3), 1.0).to_event(1))


def test_a_flow_starts_as_the_normal_below_and_then_leaves_it(images):
    guide = FlowGuide(tiny())
    q = guide.posterior(images)
    z = q.sample()
    turned_twice = q.base_dist.log_prob(z[:, [2, 1, 0]] if len(guide.couplings) % 2 else z)
    torch.testing.assert_close(q.log_prob(z), turned_twice)
    assert torch.equal(guide.posterior(images).base_dist.mean, q.base_dist.mean)
    for p in guide.couplings.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    drew, fresh = guide.posterior(images), guide.posterior(images)
    z = drew.rsample()  # which its couplings remember
    torch.testing.assert_close(drew.log_prob(z), fresh.log_prob(z))
    box = torch.cartesian_prod(*[torch.linspace(-9, 9, 61)] * 3)
    mass = fresh.log_prob(box.unsqueeze(1).expand(-1, 4, -1)).exp().sum(0) * 0.3**3
    torch.testing.assert_close(mass, torch.ones(4), rtol=0, atol=0.02)


@pytest.mark.parametrize("piece", [{"guide": "flow"}, {"prior": "flow"}])
def test_densities_of_a_flow_are_in_full_precision(piece, images):
    rnp = RNP(tiny(**piece))
    with torch.no_grad():
        for p in rnp.parameters():
            p.add_(0.1 * torch.randn_like(p))
        q = rnp.guide.posterior(images) if "guide" in piece else rnp.model.prior()
        z = torch.randn(4, 3)
        wanted = q.log_prob(z)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = q.log_prob(z + 0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)


def test_refinement_raises_the_bound_of_each_image_and_more_steps_more():
    torch.manual_seed(0)
    rnp = RNP(tiny(guide="refined:steps=0", sigma=0.1))
    with torch.no_grad():
        for p in rnp.parameters():
            p.add_(0.2 * torch.randn_like(p))
    images = rnp.model.run(torch.randn(64, 3)).canvas.clamp(0, 1).detach()
    data = ImageSet(images, torch.zeros(64, dtype=torch.long))
    found = []
    for steps in (0, 5, 20):
        other = RNP(tiny(guide=f"refined:steps={steps}", sigma=0.1))
        other.load_state_dict(rnp.state_dict())
        found.append(evaluate(other, data)["elbo"])
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.2


class Said(nn.Module):
    """The encoder's place: what it says of each image is a parameter."""

    def __init__(self, n):
        super().__init__()
        self.raw = nn.Parameter(torch.randn(n, 6))

    def forward(self, images):
        return self.raw


def test_refinement_is_the_natural_gradient_and_the_encoder_learns_as_if_it_were_constant():
    rate, images = 0.3, torch.rand(6, 1, 4, 4).double()
    rnp = RNP(tiny(image_size=4, guide=f"refined:steps=2,rate={rate}", sigma=SIGMA)).double()
    rnp.model.recursion, rnp.guide.top.encoder = Linear(rnp.config).double(), Said(6).double()
    w, raw = rnp.model.recursion.weight.detach(), rnp.guide.top.encoder.raw
    at, before = raw[:, :3].detach(), raw[:, 3:].detach().exp().log1p() + 1e-4
    scale, steps = before.clone(), []
    for noise in rnp.guide.top.noise:
        z = at + scale * noise
        slope = (images.flatten(1) - z @ w.T) @ w / SIGMA**2 - z  # of log p(x, z)
        steps += [scale.square() * slope, (scale * noise * slope + 1) / 2]
        at, scale = (
            at + rate * steps[-2].clamp(-1, 1),
            scale * (rate * steps[-1].clamp(-1, 1)).exp(),
        )
    assert all(0 < (step.abs() > 1).sum() < step.numel() for step in steps), "some are cut"
    found = rnp.guide.posterior(images).base_dist
    torch.testing.assert_close(found.loc, at)
    torch.testing.assert_close(found.scale, scale)
    a, b = torch.randn(2, 6, 3).double()
    (gradient,) = torch.autograd.grad((a * found.loc + b * found.scale).sum(), raw)
    slope = raw[:, 3:].detach().sigmoid()  # of softplus
    torch.testing.assert_close(gradient, torch.cat([a, b * scale / before * slope], 1))


def test_refinement_leaves_gradients_to_the_encoder_alone(images):
    rnp = RNP(tiny(guide="refined"))
    rnp.guide.posterior(images).rsample().sum().backward()
    assert all(p.grad is None for p in rnp.model.parameters())
    assert any(p.grad is not None for p in rnp.guide.parameters())


def test_a_flow_needs_two_dimensions():
    for field in ("guide", "prior"):
        with pytest.raises(ValueError, match="program_size of at least 2"):
            RNP(tiny(program_size=1, **{field: "flow"}))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("auto", "stochastic"),
    [
        ("AutoNormal", "both"),
        ("AutoDelta", "none"),
        ("AutoMultivariateNormal", "actions"),
        ("AutoLowRankMultivariateNormal", "none"),
    ],
)
def test_pyro_s_autoguides_fit_single_images(auto, stochastic, images):
    rnp = RNP(tiny(stochastic=stochastic)).eval().requires_grad_(False)
    guide = getattr(pyro.infer.autoguide, auto)(rnp.model)
    svi = SVI(rnp.model, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
    before = {k: v.clone() for k, v in rnp.state_dict().items()}

    def loss():  # of the same draws each time, before the fit and after
        pyro.set_rng_seed(1)
        return sum(svi.evaluate_loss(images[:1]) for _ in range(40))

    first = loss()
    for _ in range(100):
        svi.step(images[:1])
    assert loss() < first
    assert all(torch.equal(v, before[k]) for k, v in rnp.state_dict().items())
