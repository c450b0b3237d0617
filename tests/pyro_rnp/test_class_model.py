"""Images of one class: what they share, against Gaussians whose evidence is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam

from inference.config import TrainConfig
from inference.objectives import OBJECTIVES, check, loss
from pyro_rnp import RNP
from pyro_rnp.class_model import SameClass, class_term, type_prior
from tests.conftest import tiny
from tests.linear import PIXELS, SIGMA, Z, with_types


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with pyro.validation_enabled(False):  # images with noise lie beyond [0, 1]
        yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def toy():
    return with_types().requires_grad_(False)


def programs(prior, each):
    """The covariance of a class's programs, all numbers of the first image first."""
    shared = prior.axes.T @ prior.share.diag() @ prior.axes
    return torch.eye(each * Z) + (torch.ones(each, each) - torch.eye(each)).kron(shared)


def test_types_and_tokens_make_the_programs(toy):
    prior = toy.model.prior
    z, type = torch.randn(5, 4, Z), torch.randn(5, Z)
    together = prior.types().log_prob(type) + prior.of_type(type.unsqueeze(1)).log_prob(z).sum(1)
    found = together - prior.type_given(z).log_prob(type)
    wanted = dist.MultivariateNormal(torch.zeros(4 * Z), programs(prior, 4))
    torch.testing.assert_close(found, wanted.log_prob(z.flatten(1)))
    pair = dist.MultivariateNormal(torch.zeros(2 * Z), programs(prior, 2))
    found = prior().log_prob(z[:, 0]) + prior.like(z[:, 0]).log_prob(z[:, 1])
    torch.testing.assert_close(found, pair.log_prob(z[:, :2].flatten(1)))


def test_its_weights_are_those_of_the_evidence_of_all_images_of_a_class(toy):
    each, k = 3, 40_000
    same, w = SameClass(toy, each), toy.model.recursion.weight
    images = 0.3 * torch.randn(each, 1, 4, 4)
    repeated = images.repeat(k, 1, 1, 1)
    guide = poutine.trace(same.guide).get_trace(repeated)
    model = poutine.trace(poutine.replay(same.model, trace=guide)).get_trace(repeated)
    assert guide.nodes["type"]["value"].shape == (k, Z)
    for trace in (guide, model):
        trace.compute_log_prob()

    def total(trace):
        names = [name for name in ("type", "z", "x") if name in trace.nodes]
        return sum(trace.nodes[name]["log_prob"].view(k, -1).sum(1) for name in names)

    weights = total(model) - total(guide)
    wide = torch.eye(each).kron(w)
    covariance = wide @ programs(toy.model.prior, each) @ wide.T
    covariance = covariance + SIGMA**2 * torch.eye(each * PIXELS)
    wanted = dist.MultivariateNormal(torch.zeros(each * PIXELS), covariance)
    wanted = wanted.log_prob(images.flatten())
    found = weights.logsumexp(0) - math.log(k)
    error = (k * weights.softmax(0) - 1).square().mean().div(k).sqrt()
    assert error < 0.05
    assert (found - wanted).abs() < 4 * error
    bound = -loss(Trace_ELBO(), toy, repeated, images_per_class=each) / k
    assert bound < wanted + 4 * weights.std() / math.sqrt(k)
    assert (bound - weights.mean()).abs() < 6 * weights.std() / math.sqrt(k)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_kl_weight_weighs_types_and_programs_alike(toy, weight):
    images = torch.rand(2 * 3, 1, 4, 4)
    torch.manual_seed(4)
    z = toy.guide(images)
    pixels = dist.Normal(z @ toy.model.recursion.weight.T, SIGMA).log_prob(images.flatten(1)).sum()
    together = dist.MultivariateNormal(torch.zeros(3 * Z), programs(toy.model.prior, 3))
    kl = toy.guide.posterior(images).log_prob(z).sum() - together.log_prob(z.view(2, -1)).sum()
    torch.manual_seed(4)
    found = loss(OBJECTIVES.make("Trace_ELBO"), toy, images, weight, images_per_class=3)
    torch.testing.assert_close(found, weight * kl - pixels)


def test_it_learns_in_which_numbers_a_class_is_alike(toy):
    toy.model.prior.requires_grad_(True)
    with torch.no_grad():
        toy.model.prior.logit.zero_()
        toy.model.prior.turn.zero_()
    z = torch.randn(200, 4, Z)
    z[..., 0] = z[:, :1, 0]
    images = toy.model.likelihood(toy.model.recursion(z.flatten(0, 1)).canvas).sample()
    same = SameClass(toy, 4)
    svi = SVI(same.model, same.guide, Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(60):
        svi.step(images)
    prior = type_prior(toy)
    shared = prior.axes.T @ prior.share.diag() @ prior.axes
    assert shared[0, 0] > 0.6
    assert shared[1:, 1:].diagonal().max() < 0.4


def test_the_class_term_is_how_probably_one_is_like_its_own(toy):
    prior, z = toy.model.prior, torch.randn(6, Z)
    found = class_term(prior, z, each=3)
    chance = torch.stack([prior.like(known).log_prob(z) for known in z], 1).exp()
    for i in range(6):
        own = [j for j in range(6) if j // 3 == i // 3 and j != i]
        others = [j for j in range(6) if j != i]
        wanted = (chance[i, own].sum() / chance[i, others].sum()).log()
        torch.testing.assert_close(found[i], wanted)


def test_the_class_term_of_the_means_is_a_factor_of_training_alone(toy):
    rnp = RNP(tiny(prior="types:contrast=7.0", part_weight=0.0)).double()
    images = torch.rand(4, 1, 8, 8)

    def traced(rnp=rnp, images=images):
        return poutine.trace(SameClass(rnp, 2).guide).get_trace(images).nodes

    term = class_term(rnp.model.prior, rnp.guide.posterior(images).mean, 2)
    torch.testing.assert_close(traced()["class_term"]["fn"].log_factor, -7 * term.view(2, 2).sum(1))
    torch.manual_seed(0)
    with_it = loss(Trace_ELBO(), rnp, images, images_per_class=2)
    rnp.model.prior.contrast = 0.0
    torch.manual_seed(0)
    torch.testing.assert_close(
        with_it + 7 * term.sum(), loss(Trace_ELBO(), rnp, images, images_per_class=2)
    )
    rnp.model.prior.contrast = 7.0
    rnp.eval()
    assert "class_term" not in traced()
    assert "class_term" not in traced(toy.train(), torch.rand(4, 1, 4, 4))


def test_some_images_of_a_class_are_decoded_and_stand_for_all():
    rnp = RNP(tiny(prior="types:contrast=7.0,decoded=2")).double()
    images = torch.rand(2 * 3, 1, 8, 8, dtype=torch.float64)
    shown = images.view(2, 3, 1, 8, 8)[:, :2].flatten(0, 1)
    assert SameClass(rnp, 3).guide(images).shape == (4, 3)
    assert SameClass(rnp, 3).model(images).canvas.shape == shown.shape

    def found(images, each):
        torch.manual_seed(0)
        return loss(Trace_ELBO(), rnp, images, images_per_class=each)

    term = class_term(rnp.model.prior, rnp.guide.posterior(images).mean, 3).sum()
    together = found(images, 3)
    rnp.model.prior.contrast = 0.0
    torch.testing.assert_close(together, 3 / 2 * found(shown, 2) - 7 * term)
    with pytest.raises(ValueError, match="decodes 2 images of each class, and a batch has 1"):
        SameClass(rnp, 1).model(images)
    rnp.model.prior.decoded = 4
    with pytest.raises(ValueError, match=r"or more images of each class\.$"):
        check(Trace_ELBO(), rnp, images, images_per_class=3)
    assert SameClass(rnp.eval(), 3).model(images).canvas.shape == images.shape


def test_contrast_tells_classes_apart(toy):
    torch.manual_seed(1)
    images = torch.rand(8, 1, 8, 8).repeat_interleave(4, 0)
    images = (images + 0.3 * torch.randn_like(images)).clamp(0, 1)
    found = []
    for contrast in (0.0, 30.0):
        pyro.clear_param_store()
        torch.manual_seed(0)
        rnp = RNP(tiny(prior=f"types:contrast={contrast}")).double()
        same = SameClass(rnp, 4)
        svi = SVI(same.model, same.guide, Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(40):
            svi.step(images)
        z = rnp.eval().guide.posterior(images).mean
        found.append(class_term(rnp.model.prior, z, 4).mean())
    assert found[1] > found[0] + 0.5


def test_images_that_follow_each_other_make_a_class():
    rnp = RNP(tiny(prior="types"))
    images = torch.rand(6, 1, 8, 8)
    tree = SameClass(rnp, 3).model(images)
    assert tree.canvas.shape == images.shape
    nodes = poutine.trace(SameClass(rnp, 3).model).get_trace(images).nodes
    torch.testing.assert_close(nodes["z"]["fn"].loc, nodes["type"]["value"].repeat_interleave(3, 0))


def test_what_does_not_go_together_is_refused(images):
    plain, classes = RNP(tiny()), RNP(tiny(prior="types"))
    images = images.double()
    with pytest.raises(ValueError, match="prior normal does not know"):
        check(Trace_ELBO(), plain, images, images_per_class=2)
    with pytest.raises(ValueError, match="give --images_per_class 2 or more"):
        check(Trace_ELBO(), classes, images)
    for name in set(OBJECTIVES.pieces) - {"Trace_ELBO"}:
        with pytest.raises(ValueError, match="--images_per_class needs --elbo Trace_ELBO"):
            check(OBJECTIVES.make(name), classes, images, images_per_class=2)
    check(Trace_ELBO(), classes, images, images_per_class=2)


def test_with_classes_the_objective_is_one_that_can_be_unless_another_is_asked_for():
    model = tiny(prior="types")
    assert TrainConfig(images_per_class=2, model=model).objective == "Trace_ELBO"
    assert TrainConfig(images_per_class=2, elbo="RenyiELBO", model=model).objective == "RenyiELBO"
    assert TrainConfig(model=model).objective == "TraceMeanField_ELBO"


def test_what_classes_share_is_computed_in_full_precision(toy):
    prior = toy.model.prior.float()
    a, b = torch.randn(4, Z, dtype=torch.float32), torch.randn(3, Z, dtype=torch.float32)

    def computed():
        several = prior.type_given(a.view(2, 2, Z))
        return [
            prior.log_like(a, b), prior.like(b).log_prob(a[:3]), prior.of_type(b).log_prob(a[:3]),
            several.mean, several.stddev,
        ]  # fmt: skip

    wanted = computed()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = computed()
    for x, y in zip(found, wanted, strict=True):
        assert torch.equal(x, y)
