"""Missing pixels are NaN: networks read 0 there, and densities count what is seen alone."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import nn

from inference.evaluation.bounds import importance_weighted_bound
from inference.objectives import OBJECTIVES, loss
from inference.traces import trace_both
from pyro_rnp import RNP
from pyro_rnp.affine import glimpse, matrix
from pyro_rnp.class_model import SameClass
from pyro_rnp.missing import Target, split
from pyro_rnp.model import part_term
from tests.by_hand import log_normal, stirred
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def images():
    return torch.rand(4, 1, 8, 8)


@pytest.fixture
def seen():
    """The first image is whole, the others lack a half, single pixels, and all but one pixel."""
    seen = torch.ones(4, 1, 8, 8, dtype=torch.bool)
    seen[1, :, :, 4:] = False
    seen[2] = torch.rand(1, 8, 8) < 0.5
    seen[3] = False
    seen[3, 0, 4, 4] = True
    return seen


def without(images, seen):
    return images.masked_fill(~seen, torch.nan)


def zeros(images, seen):
    return images.masked_fill(~seen, 0.0)


def test_whole_images_are_left_as_they_are(images, seen):
    assert split(images)[0] is images
    assert split(images)[1] is None
    pixels, mask = split(without(images, seen))
    assert torch.equal(mask, seen)
    assert torch.equal(pixels, zeros(images, seen))


LIKELIHOODS = {
    "normal": lambda x, canvas: log_normal(x.view(-1, 1), canvas.view(-1, 1), torch.tensor(0.5)),
    "laplace": lambda x, canvas: -(x - canvas).abs() / 0.5,  # and log(2 * 0.5) is 0
    "bernoulli": lambda x, canvas: torch.where(x == 1, canvas.log(), (1 - canvas).log()),
}


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_likelihood_is_the_sum_over_seen_pixels(likelihood, images, seen):
    rnp, images = RNP(tiny(likelihood=likelihood, sigma=0.5)), images.round()
    canvas = torch.rand(4, 1, 8, 8) * 0.8 + 0.05
    each = LIKELIHOODS[likelihood](images, canvas).view(4, 64)
    model = pyro.do(rnp.model, {"canvas": canvas})
    site = poutine.trace(model).get_trace(without(images, seen)).nodes["x"]
    wanted = torch.zeros(4)
    for image, pixel in seen.view(4, 64).nonzero().tolist():
        wanted[image] += each[image, pixel]
    torch.testing.assert_close(site["fn"].log_prob(site["value"]), wanted)
    assert site["fn"].mean.shape == images.shape


def test_a_whole_image_beside_others_counts_as_alone(images, seen):
    rnp = stirred(part_weight=1.0).train()
    z = torch.randn(4, 3)
    values = poutine.trace(pyro.condition(rnp.model, {"z": z})).get_trace(images)
    held = {n: v["value"] for n, v in values.nodes.items() if v["type"] == "sample" and n != "x"}
    held = {n: v for n, v in held.items() if n[0] in "az"}

    def log_p(images):
        trace = poutine.trace(pyro.condition(rnp.model, held)).get_trace(images)
        trace.compute_log_prob()
        return {n: trace.nodes[n]["log_prob"] for n in ("x", "part_term")}

    whole, mixed = log_p(images), log_p(without(images, seen))
    for name in whole:
        torch.testing.assert_close(mixed[name][0], whole[name][0])
        assert not torch.isclose(mixed[name][1:], whole[name][1:]).any()


@pytest.mark.parametrize("guide", ["diagonal", "flow", "map", "refined"])
@pytest.mark.parametrize("lower_guide", ["top_down", "bottom_up"])
def test_what_is_missing_has_no_say(guide, lower_guide, images, seen):
    """Whatever an image would show where a pixel is missing, which NaN cannot carry."""
    rnp = stirred(guide=guide, lower_guide=lower_guide).eval()
    tree = rnp.parse(without(images, seen))
    assert tree.canvas.isfinite().all()
    alone = [rnp.parse(image[None]) for image in without(images, seen)]
    torch.testing.assert_close(tree.canvas, torch.cat([one.canvas for one in alone]))
    torch.testing.assert_close(tree.canvas[0], rnp.parse(images).canvas[0])


def test_the_encoder_reads_zeros(images, seen):
    rnp = RNP(tiny())
    found, wanted = rnp.encode(without(images, seen)), rnp.encode(zeros(images, seen))
    assert torch.equal(found.mean, wanted.mean)
    assert torch.equal(found.variance, wanted.variance)


def test_the_refined_guide_climbs_the_bound_of_what_is_seen(images, seen):
    rnp = stirred(guide="refined:steps=1,rate=0.1", stochastic="none")
    start = rnp.guide.top.proposal(zeros(images, seen)).base_dist
    loc, scale = start.loc.detach().requires_grad_(), start.scale.detach()
    z = loc + scale * rnp.guide.top.noise[0].to(loc)
    left = ((rnp.model.recursion(z).canvas - images) * seen).square().sum()
    bound = -left / (2 * rnp.config.sigma**2) - z.square().sum() / 2
    (gradient,) = torch.autograd.grad(bound, loc)
    wanted = loc + 0.1 * (scale**2 * gradient).clamp(-1, 1)
    torch.testing.assert_close(rnp.encode(without(images, seen)).mean, wanted.detach())


def test_the_part_term_counts_what_is_seen_alone(images, seen):
    rnp = stirred(stochastic="none")
    tree = rnp.parse(images)
    wanted = torch.zeros(4)
    for part in tree:
        at = glimpse(zeros(images, seen), part.action, 5)
        missing = glimpse((~seen).double(), part.action, 5)
        wanted += ((1 - missing) * part.decoding - at).square().sum((1, 2, 3)) / 2
    found = part_term(tree, without(images, seen))
    torch.testing.assert_close(found, wanted)
    none = images.clone()
    none[:, :, 1:, 1:] = torch.nan  # where these parts are there is nothing
    inside = tree.map(lambda t: t)
    for part in inside:
        part.action[:, :2], part.action[:, 2:] = 0.25, 0.0
    assert part_term(inside, none).eq(0).all()


@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_a_glimpse_is_zero_where_nothing_is_seen(feedback, images):
    rnp = stirred(lower_guide="bottom_up", feedback=feedback, max_translation=0.1)
    shown = []
    original = type(rnp.guide.lower).forward

    def spy(self, kind, path, predicted, scale, glimpsed, features):
        shown.append(glimpsed)
        return original(self, kind, path, predicted, scale, glimpsed, features)

    rnp.guide.lower.forward = spy.__get__(rnp.guide.lower)
    with pyro.validation_enabled(False):
        rnp.guide(torch.full_like(images, torch.nan))
    assert len(shown) == (12 if feedback == "canvas" else 8)
    assert all(glimpsed.abs().max() < 1e-14 for glimpsed in shown)


def test_a_target_is_what_is_left_of_what_is_seen(images, seen):
    canvas, patch, action = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 5, 5), torch.rand(4, 6)
    action[:, :2] = 0.4
    left = Target.of(without(images, seen)).minus(canvas)
    torch.testing.assert_close(left.pixels, (images - canvas) * seen)
    below = left.seen_at(matrix(action), 5)
    torch.testing.assert_close(below.pixels, glimpse((images - canvas) * seen, action, 5))
    torch.testing.assert_close(below.missing, glimpse((~seen).double(), action, 5))
    again = below.minus(patch)
    torch.testing.assert_close(again.pixels, below.pixels - (1 - below.missing) * patch)
    whole = Target.of(images).minus(canvas)
    assert whole.missing is None
    assert torch.equal(whole.pixels, images - canvas)
    joined = Target.join([below, again])
    assert torch.equal(joined.pixels, torch.cat([below.pixels, again.pixels]))
    assert joined.missing.shape == joined.pixels.shape


CHANGES = [
    {"stochastic": "both", "lower_guide": "bottom_up"},
    {"stochastic": "both", "lower_guide": "top_down", "feedback": "decoding"},
    {"prior": "vamp:components=3", "guide": "refined:steps=1"},
    {"program": "flat", "likelihood": "continuous_bernoulli"},
]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("name", OBJECTIVES.pieces)
def test_every_objective_has_finite_gradients(name, changes, images, seen):
    rnp = RNP(tiny(part_weight=1.0, **changes)).double().train()
    objective = OBJECTIVES.make(name)
    loss(objective, rnp, without(images, seen)).backward()
    gradients = [p.grad for p in rnp.parameters() if p.grad is not None]
    assert len(gradients) > 5
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", ["Trace_ELBO", "TraceMeanField_ELBO", "RenyiELBO"])
def test_an_objective_drops_what_is_missing(name, images, seen):
    """A loss with holes is the loss of images of zeros, but for the log-density of the zeros."""
    rnp = RNP(tiny()).double().eval()
    losses, lacking = [], torch.zeros(())
    for shown in (without(images, seen), zeros(images, seen)):
        torch.manual_seed(0)
        losses.append(loss(OBJECTIVES.make(name), rnp, shown))
    if name == "RenyiELBO":
        assert losses[0] < losses[1]
        return
    torch.manual_seed(0)
    canvas = trace_both(rnp.model, rnp.guide, zeros(images, seen)).model.nodes["canvas"]["value"]
    each = (canvas**2) / (2 * rnp.config.sigma**2) + math.log(
        rnp.config.sigma * math.sqrt(2 * math.pi)
    )
    lacking = each[~seen].sum()
    torch.testing.assert_close(losses[1] - losses[0], lacking)


def test_the_importance_weighted_bound_is_of_what_is_seen(images, seen):
    rnp = stirred().eval()
    torch.manual_seed(0)
    found = importance_weighted_bound(rnp, without(images, seen), 3)
    torch.manual_seed(0)
    traces = trace_both(rnp.model, rnp.guide, without(images, seen), particles=3)
    canvas = traces.model.nodes["canvas"]["value"]
    pixels, sigma = images.expand_as(canvas).reshape(-1, 1), torch.tensor(rnp.config.sigma)
    each = log_normal(pixels, canvas.reshape(-1, 1), sigma)
    log_p = (each.view(canvas.shape) * seen).sum((-3, -2, -1))
    for name, site in traces.guide.nodes.items():
        if site["type"] == "sample" and name not in ("images", "particles"):
            p = traces.model.nodes[name]["fn"].log_prob(site["value"])
            log_p = log_p + p - site["fn"].log_prob(site["value"])
    torch.testing.assert_close(found, log_p.logsumexp(0) - math.log(3))


def test_images_of_classes_may_lack_pixels(images, seen):
    rnp = RNP(tiny(prior="types:contrast=1.0")).double().train()
    program = SameClass(rnp, 2)
    step = SVI(program.model, program.guide, pyro.optim.Adam({}), Trace_ELBO())
    assert math.isfinite(step.step(without(images, seen)))
    assert all(p.isfinite().all() for p in rnp.parameters())


def test_new_images_of_the_posterior_are_whole(images, seen):
    rnp = RNP(tiny()).double().eval()
    model = poutine.uncondition(rnp.model)
    drawn = Predictive(model, guide=rnp.guide, num_samples=2)(without(images, seen))["x"]
    assert drawn.shape == (2, 4, 1, 8, 8)
    assert drawn.isfinite().all()


class Mixed(nn.Module):
    """Pixels that are bright together."""

    def forward(self, canvas):
        some = dist.Normal(torch.stack([canvas, 1 - canvas], -4), 0.5).to_event(3)
        weights = dist.Categorical(logits=torch.zeros(*canvas.shape[:-3], 2))
        return dist.MixtureSameFamily(weights, some)


def test_pixels_that_depend_on_each_other_cannot_be_left_out(images, seen):
    rnp = RNP(tiny(), "mixed", likelihood=Mixed()).double()
    assert math.isfinite(Trace_ELBO().loss(rnp.model, rnp.guide, images))
    with pytest.raises(ValueError, match="need a likelihood with independent pixels"):
        rnp.model(without(images, seen))
