"""Objectives against what is known exactly: a linear-Gaussian model of the same classes."""

import json
import math
from contextlib import suppress

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from inference.data import ImageSet
from inference.evaluation import bounds
from inference.evaluation.bounds import importance_weighted_bound
from inference.evaluation.metrics import evaluate
from inference.objectives import OBJECTIVES, check, loss
from pyro_rnp import RNP
from pyro_rnp.affine import glimpse
from tests.by_hand import ByHand, drawn, stirred
from tests.conftest import tiny
from tests.linear import Z, elbo, evidence, exact

N = 3


@pytest.fixture
def toy():
    """A model in float64 whose guide is the exact posterior, and images of it."""
    rnp = exact()
    return rnp, rnp.model.likelihood(rnp.sample(N).canvas.double()).sample()


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with pyro.validation_enabled(False):  # images with noise lie beyond [0, 1]
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", OBJECTIVES.pieces)
def test_with_the_exact_posterior_every_bound_is_the_evidence(name, toy):
    rnp, images = toy
    text = f"{name}:nats=0.0" if name == "FreeBits_ELBO" else name
    found = -loss(OBJECTIVES.make(text), rnp, images)
    wanted = evidence(rnp, images).sum()
    if name in ("TraceMeanField_ELBO", "FreeBits_ELBO"):  # log p(x | z) is still that of a sample
        draws = [-loss(OBJECTIVES.make(text), rnp, images).item() for _ in range(400)]
        error = torch.tensor(draws).std() / 20
        assert abs(sum(draws) / 400 - wanted.item()) < 4 * error
    else:
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES.pieces)
def test_validation_warns_of_a_site_that_the_guide_leaves_out(name):
    def model():
        with pyro.plate("images", N, dim=-1):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=torch.zeros(N))

    def guide():
        with pyro.plate("images", N, dim=-1):
            pyro.sample("a", dist.Normal(0.0, 1.0))

    def run():
        with suppress(KeyError):  # the closed form needs the guide's distribution of b
            OBJECTIVES.make(name).differentiable_loss(model, guide)

    with pyro.validation_enabled(), pytest.warns(UserWarning, match="model but not guide"):
        run()


def off(rnp):
    """Make the guide a wrong one: too wide, and elsewhere."""
    with torch.no_grad():
        rnp.guide.top.encoder.a.mul_(0.8)
        rnp.guide.top.encoder.rest[:Z].add_(0.3)


def gradients(value, rnp):
    parameters = [rnp.model.recursion.weight, *rnp.guide.top.encoder.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)])


@pytest.mark.parametrize("name", OBJECTIVES.pieces)
@pytest.mark.parametrize("stochastic", ["none", "both"])
def test_a_loss_and_its_gradient_wait_for_no_device(monkeypatch, name, stochastic):
    # These tensors have no numbers to wait for: to read one is an error. They say that they are on
    # the processor, where missing pixels may be looked for.
    monkeypatch.setattr("pyro_rnp.missing.may_look", lambda images: False)
    with FakeTensorMode(), pyro.validation_enabled(False):
        rnp = RNP(tiny(stochastic=stochastic, max_shear=0.31))  # a box that no other test is given
        loss(OBJECTIVES.make(name), rnp, torch.rand(4, 1, 8, 8)).backward()
    assert all(p.grad is not None for p in rnp.parameters())


@pytest.mark.parametrize("guide", ["exact", "off"])
@pytest.mark.parametrize("name", ["Trace_ELBO", "TraceMeanField_ELBO", "FreeBits_ELBO:nats=0.0"])
def test_its_gradient_is_the_analytic_one(name, guide, toy):
    rnp, images = toy
    if guide == "off":
        off(rnp)
    wanted = gradients(elbo(rnp, images).sum(), rnp)
    if guide == "exact":
        weight = rnp.model.recursion.weight
        (truth,) = torch.autograd.grad(evidence(rnp, images).sum(), weight)
        torch.testing.assert_close(wanted[: weight.numel()], truth.flatten())
    many, objective = images.repeat(200, 1, 1, 1), OBJECTIVES.make(name)
    draws = [gradients(-loss(objective, rnp, many) / 200, rnp) for _ in range(60)]
    error = torch.stack(draws).std(0) / math.sqrt(60)
    apart = (torch.stack(draws).mean(0) - wanted).abs()
    assert (apart < 5 * error + 1e-9).all()
    assert (error < 0.03 * wanted.abs().max()).all()


def test_renyi_s_value_and_gradient_are_pyro_s(toy):
    rnp, images = toy
    off(rnp)
    how = {"alpha": 0.5, "num_particles": 4}
    ours = OBJECTIVES.make("RenyiELBO:alpha=0.5,num_particles=4")
    theirs = pyro.infer.RenyiELBO(**how, vectorize_particles=True, max_plate_nesting=1)
    found = []
    for objective in (ours, theirs):
        rnp.zero_grad()
        pyro.set_rng_seed(2)
        value = objective.loss_and_grads(rnp.model, rnp.guide, images)
        weight, a = rnp.model.recursion.weight.grad, rnp.guide.top.encoder.a.grad
        found.append((torch.tensor(value), weight.clone(), a.clone()))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_importance_weighted_bound_rises_to_the_evidence(toy):
    rnp, images = toy
    off(rnp)
    wanted = evidence(rnp, images).detach()
    repeated = images.repeat(200, 1, 1, 1)
    means, errors = [], []
    for k in (1, 10, 100, 1000):
        found = importance_weighted_bound(rnp, repeated, k, at_once=20_000).view(200, N) - wanted
        means.append(found.mean().item())
        errors.append(found.mean(1).std().item() / math.sqrt(200))
    assert means[0] < -0.2
    for (low, e), (high, f) in zip(
        zip(means, errors, strict=True), list(zip(means, errors, strict=True))[1:], strict=False
    ):
        assert low < high + 4 * math.hypot(e, f)
    assert abs(means[-1]) < 4 * errors[-1] + 1e-3


def test_it_does_not_depend_on_the_chunks_in_expectation_and_evaluation_reports_it(toy):
    rnp, images = toy  # with the exact posterior every weight is the evidence
    wanted = evidence(rnp, images).detach()
    for at_once in (1, 7, 1000):
        torch.testing.assert_close(importance_weighted_bound(rnp, images, 20, at_once), wanted)
    shown = images.clamp(0, 1)
    scores = evaluate(rnp, ImageSet(shown, torch.zeros(N, dtype=torch.long)), particles=20)
    wanted = evidence(rnp, shown).detach()
    assert scores["iw_bound"] == pytest.approx(wanted.mean().item())
    assert scores["iw_bound_error"] == pytest.approx(wanted.std().item() / math.sqrt(N))


def test_a_bound_that_is_interrupted_goes_on_from_what_it_kept(toy, tmp_path, monkeypatch):
    rnp, images = toy
    wanted = evidence(rnp, images).detach()
    keep, calls, plain = tmp_path / "bounds.json", [], bounds._log_weights

    def interrupted(rnp, images, particles):
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(rnp, images, particles)

    monkeypatch.setattr(bounds, "_log_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        importance_weighted_bound(rnp, images, 20, 20, keep)
    assert len(json.loads(keep.read_text())) == 2
    found = importance_weighted_bound(rnp, images, 20, 20, keep)
    torch.testing.assert_close(found, wanted)
    assert torch.equal(calls[3], images[2:3]), "those that are there are not made again"
    importance_weighted_bound(rnp, images, 20, 20, keep)
    assert len(calls) == 1 + N


@pytest.mark.parametrize("likelihood", ["bernoulli", "laplace", "continuous_bernoulli"])
def test_the_bound_is_above_the_elbo_for_every_likelihood(likelihood):
    rnp = RNP(tiny(likelihood=likelihood, stochastic="both"))
    data = ImageSet(torch.rand(40, 1, 8, 8).round(), torch.zeros(40, dtype=torch.long))
    scores = evaluate(rnp, data, particles=50)
    assert scores["iw_bound"] > scores["elbo"]


def test_a_point_has_no_bound():
    data = ImageSet(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long))
    scores = evaluate(RNP(tiny(guide="map")), data, particles=5)
    assert not {"kl", "elbo", "iw_bound"} & scores.keys()
    assert scores["sse"] == scores["sse_mean"]


@pytest.mark.parametrize("name", ["Trace_ELBO", "TraceMeanField_ELBO"])
def test_the_kl_weight_weighs_the_kl_alone(name, toy):
    rnp, images = toy

    def weighed(weight):
        pyro.set_rng_seed(3)
        return loss(OBJECTIVES.make(name), rnp, images, weight).item()

    pyro.set_rng_seed(3)
    z = rnp.guide(images)
    q, p = rnp.guide.posterior(images), rnp.model.prior()
    kl = (q.log_prob(z) - p.log_prob(z)).sum()
    if name == "TraceMeanField_ELBO":
        kl = dist.kl.kl_divergence(q, dist.MultivariateNormal(p.mean, torch.eye(Z))).sum()
    assert weighed(3.0) - weighed(1.0) == pytest.approx(2 * kl.item(), rel=1e-6)


FREE = 0.6  # nats


def bound_by_hand(name, terms, weight, particles):
    """What an objective maximises, summed over the batch, from terms of particles * N images."""
    ratio = sum(terms.p[site] - terms.q[site] for site in terms.p)
    rest = terms.pixels.sum(1) + terms.part
    if name == "RenyiELBO":
        weights = (rest + weight * ratio).view(particles, N)
        return ((0.7 * weights).exp().mean(0).log() / 0.7).sum()
    if name == "Trace_ELBO":
        return (rest + weight * ratio).sum() / particles
    kl = terms.kl.values()
    if name == "FreeBits_ELBO":
        kl = [each.mean().clamp(min=FREE) for each in kl]
        return rest.sum() - weight * N * sum(kl)
    return (rest - weight * sum(kl)).sum() / particles


@pytest.mark.parametrize(
    ("stochastic", "lower_guide", "feedback", "learn_scales"),
    [
        ("both", "bottom_up", "canvas", True),
        ("actions,both", "top_down", "decoding", True),
        ("programs,both", "bottom_up:units=7", "decoding", "predicted"),
    ],
)
@pytest.mark.parametrize(
    ("name", "options", "particles"),
    [
        ("Trace_ELBO", "", 1),
        ("Trace_ELBO", ":num_particles=3", 3),
        ("TraceMeanField_ELBO", "", 1),
        ("TraceMeanField_ELBO", ":num_particles=3", 3),
        ("FreeBits_ELBO", f":nats={FREE}", 1),
        ("RenyiELBO", ":alpha=0.3,num_particles=3", 3),
    ],
)
def test_with_random_levels_the_loss_and_its_gradient_are_those_of_the_formula(
    name, options, particles, stochastic, lower_guide, feedback, learn_scales
):
    rnp = stirred(
        stochastic=stochastic,
        lower_guide=lower_guide,
        feedback=feedback,
        learn_scales=learn_scales,
        part_weight=0.7,
    )
    images, parameters = torch.rand(N, 1, 8, 8), list(rnp.parameters())
    repeated = images.repeat(particles, 1, 1, 1)
    for weight in (1.0, 0.4):
        pyro.set_rng_seed(3)
        values = drawn(rnp.guide, images, particles, together=name != "FreeBits_ELBO")
        terms = ByHand(rnp, values, repeated)
        error = sum(
            (part.decoding - glimpse(repeated, part.action.detach(), 5)).square().flatten(1).sum(1)
            for part in terms.tree
        )
        terms.part = -0.7 * (error / 2) / (2 * rnp.config.sigma**2)  # the mean over two parts
        below = [kl.mean() for site, kl in terms.kl.items() if site != "z"]
        assert 1e-2 < min(below) < FREE < max(below), "none is zero, and some are free"
        wanted = -bound_by_hand(name, terms, weight, particles)
        truth = torch.autograd.grad(wanted, parameters, allow_unused=True)
        pyro.set_rng_seed(3)
        found = loss(OBJECTIVES.make(name + options), rnp, images, weight)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
        gradients = torch.autograd.grad(found, parameters, allow_unused=True)
        for own, other in zip(gradients, truth, strict=True):
            assert (own is None) == (other is None)
            if own is not None:
                torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("piece", [{"guide": "flow"}, {"prior": "mixture"}])
def test_a_kl_that_has_no_formula_is_that_of_the_sample(piece):
    rnp = stirred(stochastic="none", **piece).eval().requires_grad_(False)
    images = torch.rand(N, 1, 8, 8)
    torch.manual_seed(5)
    z = rnp.guide(images)
    q, p = rnp.guide.posterior(images), rnp.model.prior()
    kl = q.log_prob(z) - p.log_prob(z)
    pixels = dist.Normal(rnp.model.recursion(z).canvas, rnp.config.sigma).log_prob(images)
    torch.manual_seed(5)
    found = loss(OBJECTIVES.make("TraceMeanField_ELBO"), rnp, images, 0.4)
    torch.testing.assert_close(found, 0.4 * kl.sum() - pixels.sum())
    scores = evaluate(rnp, ImageSet(images, torch.zeros(N, dtype=torch.long)), seed=5)
    assert scores["kl"] == pytest.approx(kl.mean().item(), rel=1e-8)
    assert scores["elbo"] == pytest.approx((pixels.sum() / N - kl.mean()).item(), rel=1e-8)


@pytest.mark.parametrize("lower_guide", ["bottom_up", "top_down"])
def test_with_random_levels_scores_are_those_of_the_formula(lower_guide):
    rnp = stirred(lower_guide=lower_guide).eval().requires_grad_(False)
    images = torch.rand(N, 1, 8, 8)
    scores = evaluate(rnp, ImageSet(images, torch.zeros(N, dtype=torch.long)), seed=5)
    torch.manual_seed(5)
    terms = ByHand(rnp, drawn(rnp.guide, images, together=True), images)
    kl, error = sum(terms.kl.values()), (terms.tree.canvas - images).square().sum((1, 2, 3))
    assert all(each.mean() > 1e-2 for each in terms.kl.values())
    elbo = terms.pixels.sum(1) - kl
    for name, each in {"kl": kl, "elbo": elbo, "sse": error}.items():
        assert scores[name] == pytest.approx(each.mean().item(), rel=1e-10), name
        if name != "kl":
            wanted = ((each - each.mean()).square().sum() / (N - 1) / N).sqrt().item()
            assert scores[f"{name}_error"] == pytest.approx(wanted, rel=1e-10), name
    levels = {f"kl_{kind}_{depth}": 0.0 for kind in "az" for depth in (1, 2)}
    for name, each in terms.kl.items():
        level = "kl_z" if name == "z" else f"kl_{name[0]}_{name.count('/')}"
        levels[level] = levels.get(level, 0.0) + each.mean().item()
    assert {name: scores[name] for name in scores if name.startswith("kl_")} == pytest.approx(
        levels
    )


@pytest.mark.parametrize("lower_guide", ["bottom_up", "top_down"])
def test_with_random_levels_the_importance_weighted_bound_is_that_of_the_formula(lower_guide):
    rnp = stirred(lower_guide=lower_guide).eval().requires_grad_(False)
    images = torch.rand(N, 1, 8, 8)
    torch.manual_seed(5)
    found = importance_weighted_bound(rnp, images, 4)
    torch.manual_seed(5)
    terms = ByHand(rnp, drawn(rnp.guide, images, 4, True), images.repeat(4, 1, 1, 1))
    weights = terms.pixels.sum(1) + sum(terms.p[site] - terms.q[site] for site in terms.p)
    wanted = weights.view(4, N).exp().mean(0).log()
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_free_bits_are_free(toy):
    rnp, images = toy
    q = rnp.guide.posterior(images)
    kl = dist.kl.kl_divergence(q, dist.MultivariateNormal(torch.zeros(Z), torch.eye(Z))).mean()

    def draw(nats):
        pyro.set_rng_seed(3)
        return loss(OBJECTIVES.make(f"FreeBits_ELBO:nats={nats}"), rnp, images)

    plain = draw(0.0)
    assert draw(kl.item() - 0.1) == plain
    dear = draw(kl.item() + 2.0)
    assert (dear - plain).item() == pytest.approx(2 * N)
    (gradient,) = torch.autograd.grad(dear, rnp.guide.top.encoder.rest)
    (with_kl,) = torch.autograd.grad(draw(0.0), rnp.guide.top.encoder.rest)
    assert not torch.allclose(gradient, with_kl)


def test_renyi_lies_between_the_elbo_and_the_evidence(toy):
    rnp, images = toy
    with torch.no_grad():
        rnp.guide.top.encoder.rest[:Z].add_(1.0)
    many = images.repeat(500, 1, 1, 1)

    def bound(text):
        return -loss(OBJECTIVES.make(text), rnp, many).item() / len(many)

    bounds = [bound("RenyiELBO:alpha=0.99"), bound("RenyiELBO:alpha=0.5"), bound("RenyiELBO")]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(bound("Trace_ELBO"), abs=0.1)
    assert bounds[-1] < evidence(rnp, images).mean().item() + 0.05
    for bad in ("RenyiELBO:alpha=1.0", "RenyiELBO:num_particles=1"):
        with pytest.raises(ValueError, match="an alpha other than 1 and two or more particles"):
            OBJECTIVES.make(bad)


def test_what_does_not_fit_is_refused_in_one_sentence(images):
    images = images.double()
    rnp = RNP(tiny(stochastic="actions")).double()
    check(OBJECTIVES.make("TraceMeanField_ELBO"), rnp, images)
    order = rnp.guide.forward

    class Backwards(nn.Module):
        def forward(self, images):
            with pyro.poutine.block():
                values = pyro.poutine.trace(order).get_trace(images)
            sites = [n for n, s in values.nodes.items() if s["type"] == "sample" and n != "images"]
            with pyro.plate("images", len(images), dim=-1):
                for name in reversed(sites):
                    pyro.sample(name, dist.Normal(values.nodes[name]["value"], 1.0).to_event(1))

    rnp.guide = Backwards()
    check(OBJECTIVES.make("Trace_ELBO"), rnp, images)
    with pytest.raises(ValueError, match=r"a guide that draws in the model's order \(z, a/0"):
        check(OBJECTIVES.make("TraceMeanField_ELBO"), rnp, images)

    class Half(nn.Module):
        def forward(self, images):
            with pyro.plate("images", len(images), dim=-1):
                pyro.sample("z", dist.Normal(torch.zeros(3), 1).to_event(1))

    rnp.guide = Half()
    with pytest.raises(ValueError, match="do not draw the same sites; only one has a/0"):
        check(OBJECTIVES.make("Trace_ELBO"), rnp, images)


def test_a_point_and_a_prior_that_could_follow_it_are_refused_together(images):
    for prior in ("mixture", "vamp", "flow"):
        rnp = RNP(tiny(guide="map", prior=prior)).double()
        with pytest.raises(ValueError, match="needs a prior that is not learned"):
            check(OBJECTIVES.make("Trace_ELBO"), rnp, images.double())
    check(OBJECTIVES.make("Trace_ELBO"), RNP(tiny(guide="map")).double(), images.double())
