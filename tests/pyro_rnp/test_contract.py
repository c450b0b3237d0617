"""What Pyro may do with model, guide and their pieces, and one sentence where it may not."""

import math
import pickle
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro import poutine
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.nn import PyroModule, PyroSample
from torch import nn

from inference.data import ImageSet
from inference.evaluation.bounds import importance_weighted_bound
from inference.evaluation.metrics import evaluate
from inference.objectives import OBJECTIVES, check, loss
from inference.posterior import query
from inference.traces import latent_sites
from inference.training.diagnostics import problems
from pyro_rnp import RNP
from pyro_rnp.encoder import Encoder
from tests.conftest import tiny

ACTION = torch.tensor([0.3, 0.3, 0.1, 0.0, -0.4, 0.4])


def svi_of(model, guide):
    return SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())


def labelled(images):
    return ImageSet(images, torch.zeros(len(images), dtype=torch.long))


class GlobalMean(nn.Module):
    """z ~ Normal(mu, 1) with one mu for all images."""

    def forward(self):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        return dist.Normal(mu, 1.0).to_event(1)


class WithGlobalMean(nn.Module):
    """A guide's posterior, and that of mu."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.loc = inner, nn.Parameter(torch.full((3,), 0.5))

    def posterior(self, images):
        pyro.sample("mu", dist.Normal(self.loc, 0.1).to_event(1))
        return self.inner.posterior(images)


def test_a_latent_of_the_prior_is_one_for_all_images(rnp, images):
    rnp.model.prior = GlobalMean()
    trace = poutine.trace(rnp.model).get_trace(images)
    trace.compute_log_prob()
    mu = trace.nodes["mu"]
    assert mu["value"].shape == (3,)
    assert mu["log_prob"].shape == ()
    alone = -(mu["value"] / 2).square().sum() / 2 - 3 * math.log(2 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(mu["log_prob"], alone)
    assert trace.nodes["z"]["value"].shape == (4, 3)
    rnp.guide.top = WithGlobalMean(rnp.guide.top)
    svi = svi_of(rnp.model, rnp.guide)
    assert all(math.isfinite(svi.step(images)) for _ in range(3))
    assert (rnp.guide.top.loc != 0.5).all()


def test_its_kl_counts_once_in_a_loss_and_once_in_all_scores(rnp, images):
    rnp.model.prior, rnp.guide.top = GlobalMean(), WithGlobalMean(rnp.guide.top)
    pyro.set_rng_seed(3)
    trace = poutine.trace(rnp.guide).get_trace(images)
    model = poutine.trace(poutine.replay(rnp.model, trace)).get_trace(images)
    q, p = dist.Normal(rnp.guide.top.loc, 0.1), dist.Normal(torch.zeros(3), 2.0)
    closed = dist.kl.kl_divergence(q, p).sum()
    z = dist.kl.kl_divergence(trace.nodes["z"]["fn"], model.nodes["z"]["fn"]).sum()
    data = model.nodes["x"]["fn"].log_prob(images).sum()
    pyro.set_rng_seed(3)
    found = loss(OBJECTIVES.make("TraceMeanField_ELBO"), rnp.eval(), images)
    torch.testing.assert_close(found, closed + z - data)
    many = evaluate(rnp, labelled(images), batch_size=2)["kl"]
    # The two batches draw mu and z anew; the KL of mu is the same for all.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = []
        for some in images.split(2):
            guided = poutine.trace(rnp.guide).get_trace(some)
            other = poutine.trace(poutine.replay(rnp.model, guided)).get_trace(some)
            parts.append(dist.kl.kl_divergence(guided.nodes["z"]["fn"], other.nodes["z"]["fn"]))
            rnp.parse(some)  # it draws mu too
    # Each batch counts the whole KL of mu, shared out over all images.
    assert many == pytest.approx(float((torch.cat(parts).mean() + closed / 4).detach()), rel=1e-5)


def test_its_kl_has_its_free_nats_too(rnp, images):
    rnp.model.prior, rnp.guide.top = GlobalMean(), WithGlobalMean(rnp.guide.top)
    found = []
    for objective in ("FreeBits_ELBO:nats=0", "TraceMeanField_ELBO"):
        pyro.set_rng_seed(0)
        found.append(loss(OBJECTIVES.make(objective), rnp, images))
    torch.testing.assert_close(*found)


def test_questions_about_one_image_refuse_a_latent_of_all(rnp, images):
    rnp.model.prior, rnp.guide.top = GlobalMean(), WithGlobalMean(rnp.guide.top)
    for ask in (lambda: query(rnp, images), lambda: importance_weighted_bound(rnp, images, 2)):
        with pytest.raises(ValueError, match="'mu' is drawn once for all images"):
            ask()


def test_a_random_weight_inside_of_the_plate_is_refused(rnp, images):
    class Scaled(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = PyroSample(dist.LogNormal(0.0, 1.0))

        def forward(self, canvas):
            return dist.Normal(canvas, self.scale).to_event(3)

    rnp.model.likelihood = Scaled()
    with pytest.raises(ValueError, match=r"'scale' stands inside of the plate of images") as error:
        svi_of(rnp.model, rnp.guide).step(images)
    assert len(str(error.value)) < 600, "no parameters are listed"


@pytest.mark.parametrize("name", ["x_scale", "z_scale", "a", "canvas.scale", "z/0_scale"])
def test_a_latent_that_is_named_like_a_site_of_the_model_is_a_stranger(name, rnp, images):
    def noise(canvas):
        scale = pyro.sample(name, dist.LogNormal(0.0, 1.0)).view(-1, 1, 1, 1)
        return dist.Normal(canvas, scale).to_event(3)

    rnp.model.likelihood.forward = noise
    with pytest.raises(ValueError, match=rf"'{name}' stands inside of the plate of images"):
        rnp.model(images)


def test_handlers_that_make_sites_of_sites_are_no_strangers(rnp, images):
    reparam = {"z": pyro.infer.reparam.LocScaleReparam(0.0)}
    trace = poutine.trace(poutine.reparam(rnp.model, config=reparam)).get_trace(images)
    assert "z_decentered" in trace.nodes
    pyro.do(rnp.model, {"a/0": ACTION, "z": torch.zeros(3)})(images)  # a/0__CF and z__CF


@pytest.mark.parametrize("name", ["a/0", "z/1/0", "canvas"])
def test_conditioning_on_what_the_model_determines_warns_once(name, rnp, images):
    value = rnp.parse(images).sites()[name].detach()
    model = pyro.condition(rnp.model, {name: value})
    with pytest.warns(UserWarning, match=rf"determines {name}.*query\(rnp, given=\{{'{name}'"):
        model(images)
    model(images)  # warnings are errors here
    other = RNP(tiny(), name="other")
    other.model(images)
    pyro.do(other.model, {name: value})(images)
    pyro.condition(other.model, {"z": torch.zeros(4, 3)})(images)


def test_model_and_guide_are_conditioned_together(images):
    rnp = RNP(tiny(stochastic="actions"))
    for data in (
        {"a/0": ACTION},
        {"a/0": ACTION.expand(4, 6), "a/1/0": ACTION},
        {"z": torch.zeros(3)},
        {"z": torch.ones(4, 3), "a/1": ACTION},
    ):
        model, guide = rnp.condition(data)
        guided = poutine.trace(guide).get_trace(images)
        made = poutine.trace(poutine.replay(model, guided)).get_trace(images)
        assert (
            latent_sites(guided).keys()
            == latent_sites(made).keys()
            == ({"z", "a/0", "a/1", "a/0/0", "a/0/1", "a/1/0", "a/1/1"} - data.keys())
        )
        made.compute_log_prob()
        for name, value in data.items():
            assert made.nodes[name]["is_observed"]
            assert made.nodes[name]["log_prob"].shape == (4,)
            node = made.nodes["_RETURN"]["value"].sites()[name]
            torch.testing.assert_close(node, value.expand_as(node))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            svi = svi_of(model, guide)
            assert all(math.isfinite(svi.step(images)) for _ in range(2))
        pyro.clear_param_store()


def test_its_evidence_is_that_of_a_query(images):
    rnp = RNP(tiny(stochastic="actions", sigma=2.0, action_scale=1.0)).eval()
    action = rnp.parse(images[:1]).sites()["a/1"][0].detach()
    model, guide = rnp.condition({"a/1": action})
    many = pyro.plate("particles", 2000, dim=-2)
    guided = poutine.trace(many(guide)).get_trace(images[:1])
    made = poutine.trace(poutine.replay(many(model), guided)).get_trace(images[:1])
    for trace in (guided, made):
        trace.compute_log_prob(lambda name, _: name not in ("images", "particles"))
    scores = [
        sum(site["log_prob"] for site in trace.nodes.values() if "log_prob" in site)
        for trace in (made, guided)
    ]
    evidence = (scores[0] - scores[1]).detach().logsumexp(0)[0] - math.log(2000)
    answer = query(
        rnp, images[:1], given={"a/1": action}, method="importance", num_samples=2000, seed=1
    )
    # Both are estimates; the query's own standard error stands for either.
    error = float(answer.log_evidence_error[0]) * 2**0.5
    assert float(answer.effective_samples[0]) > 50
    assert float(evidence - answer.log_evidence[0]) == pytest.approx(0, abs=4 * error)


def test_values_to_condition_on_are_of_any_precision_and_of_the_site_s_shape(images):
    rnp = RNP(tiny(stochastic="actions"))
    for value in (ACTION.double(), ACTION.numpy(), ACTION.tolist()):
        assert math.isfinite(svi_of(*rnp.condition({"a/0": value})).step(images))
    for name, value in {
        "a/0": torch.ones(3),
        "z": torch.ones(6),
        "a/1": torch.ones(1, 4, 6),
    }.items():
        with pytest.raises(ValueError, match=rf"{name} must have shape \([36],\) or \(N, [36]\)"):
            rnp.condition({name: value})


def test_what_is_determined_or_unknown_cannot_be_conditioned_on(images):
    rnp = RNP(tiny(stochastic="actions"))
    with pytest.raises(ValueError, match=r"determines z/0.*query\(rnp, given=\{'z/0'"):
        rnp.condition({"z/0": torch.zeros(3)})
    with pytest.raises(ValueError, match="no site 'a/7'"):
        rnp.condition({"a/7": ACTION})


class ZukoPrior(nn.Module):
    def __init__(self):
        super().__init__()
        self.flow = zuko.flows.MAF(3, transforms=2, hidden_features=(8,))

    def forward(self):
        return ZukoToPyro(self.flow())


class ZukoGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder(tiny(), 5)
        self.flow = zuko.flows.MAF(3, 5, transforms=2, hidden_features=(8,))

    def posterior(self, images):
        return ZukoToPyro(self.flow(self.encoder(images)))


class MixtureGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder(tiny(), 2 * 3 + 2)

    def posterior(self, images):
        loc, logits = self.encoder(images).split([6, 2], -1)
        each = dist.Normal(loc.unflatten(-1, (2, 3)), 0.3).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), each)


def with_pieces(prior=None, guide=None):
    rnp = RNP(tiny())
    if prior is not None:
        rnp.model.prior = prior()
    if guide is not None:
        rnp.guide.top = guide()
    return rnp


@pytest.mark.parametrize(
    "pieces", [(ZukoPrior, None), (None, ZukoGuide), (ZukoPrior, ZukoGuide), (None, MixtureGuide)]
)
def test_what_pyro_can_draw_and_score_serves_everywhere(pieces, images):
    rnp = with_pieces(*pieces)
    assert math.isfinite(svi_of(rnp.model, rnp.guide).step(images))
    if pieces[1] is not MixtureGuide:
        check(OBJECTIVES.make("TraceMeanField_ELBO"), rnp, images)
        assert loss(OBJECTIVES.make("TraceMeanField_ELBO"), rnp, images).isfinite()
    scores = evaluate(rnp, labelled(images), particles=3)
    assert all(math.isfinite(scores[name]) for name in ("sse", "sse_mean", "kl", "iw_bound"))
    problems(rnp, images)
    assert rnp.sample(3).canvas.shape == (3, 1, 8, 8)
    assert torch.equal(rnp.parse(images).canvas, rnp.parse(images).canvas)
    assert rnp.parse(images, sample=True).canvas.shape == (4, 1, 8, 8)
    for method in ("guide", "importance", "svi", "nuts"):
        answer = query(rnp, images[:1], method=method, num_samples=4, steps=2, warmup=1, chains=1)
        assert answer.log_evidence.isfinite().all()


def test_a_posterior_without_a_mean_has_a_centre_near_that_of_its_samples(images):
    rnp = with_pieces(guide=ZukoGuide)
    state = torch.get_rng_state()
    centre = rnp.parse(images).program
    assert torch.equal(torch.get_rng_state(), state)
    draws = rnp.guide.posterior(images)((4000,)).detach()
    apart = (centre - draws.mean(0)) / draws.std(0) * math.sqrt(64)  # of 64 samples
    assert apart.abs().max() < 4
    assert apart.abs().max() > 0.01


def test_a_guide_that_cannot_be_trained_is_refused_before_training(images):
    with pytest.raises(ValueError, match="guide's z has no reparametrised samples"):
        check(OBJECTIVES.make("Trace_ELBO"), with_pieces(guide=MixtureGuide), images)


class Broken(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, *_):
        return self.made

    posterior = forward


@pytest.mark.parametrize(
    ("kind", "made", "sentence"),
    [
        ("prior", dist.Normal(torch.zeros(3), 1.0), r"prior .* event shape \(3,\) .* got \(\) w"),
        ("prior", dist.Normal(torch.zeros(4), 1.0).to_event(1), r"shape \(3,\) .* got \(4,\)"),
        ("prior", torch.zeros(3), r"distribution of pyro.distributions.*got torch.Tensor"),
        ("prior", torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), 1), 1),
         r"which has __call__; got torch.distributions"),
        ("prior", dist.Normal(torch.zeros(4, 3), 1.0).to_event(1), r"batch shape \(4,\); "),
        ("likelihood", dist.Normal(torch.zeros(1, 1, 8, 8), 1.0),
         r"likelihood .* event shape \(1, 8, 8\) .* got \(\) with .* \(1, 1, 8, 8\); .to_event"),
        ("guide", dist.Normal(torch.zeros(4, 3), 1.0), r"guide .* event shape \(3,\) .* got \(\)"),
        ("guide", dist.Normal(torch.zeros(3), 1.0).to_event(1), r"batch shape \(4,\), got "),
        ("likelihood", torch.zeros(1, 1, 8, 8), r"distribution.*got torch.Tensor"),
        ("guide", torch.zeros(4, 3), r"distribution of pyro.distributions.*got torch.Tensor"),
    ],
)  # fmt: skip
def test_pieces_that_break_their_contract_are_named_in_one_sentence(kind, made, sentence, images):
    rnp = RNP(tiny())
    if kind == "guide":
        rnp.guide.top = Broken(made)
    else:
        setattr(rnp.model, kind, Broken(made))
    with pytest.raises(ValueError, match=sentence) as error:
        svi_of(rnp.model, rnp.guide).step(images)
    assert len(str(error.value)) < 600, "no parameters are listed"
    with pytest.raises(ValueError, match=sentence):
        rnp.sample(2) if kind == "prior" else rnp.parse(images)


@pytest.mark.parametrize("how", ["setattr", "register_module", "add_module", "_modules"])
def test_a_piece_that_replaces_another_has_to_keep_its_contract_too(images, how):
    rnp = RNP(tiny())
    rnp.parse(images)
    broken = Broken(dist.Normal(torch.zeros(3), 1.0))
    if how == "setattr":
        rnp.model.prior = broken
    elif how == "_modules":
        rnp.model._modules["prior"] = broken
    else:
        getattr(rnp.model, how)("prior", broken)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"prior .* event shape \(3,\) .* got \(\) w"):
            rnp.sample(2)


def test_pieces_are_checked_once(images):
    rnp = RNP(tiny())
    rnp.parse(images)
    calls = []
    hook = rnp.model.prior.register_forward_hook(lambda *_: calls.append(1))
    rnp.parse(images)
    assert not calls
    hook.remove()
    copied = pickle.loads(pickle.dumps(rnp))
    assert torch.equal(copied.parse(images).canvas, rnp.parse(images).canvas)


def test_a_check_of_pieces_draws_nothing_that_counts(images):
    rnp = RNP(tiny())
    rnp.model.prior = GlobalMean()
    pyro.set_rng_seed(1)
    first = rnp.model(images).program
    pyro.set_rng_seed(1)
    assert torch.equal(rnp.model(images).program, first)


def test_labels_and_missing_images_are_told_in_one_sentence(rnp, images):
    labels = torch.arange(4)
    with pytest.raises(ValueError, match=r"a tensor of shape \(4,\).*and no labels"):
        svi_of(rnp.model, rnp.guide).step(images, labels)
    with pytest.raises(ValueError, match="num_images is 3, but there are 4 images"):
        rnp.model(images, 3)
    with pytest.raises(ValueError, match=r"guide needs images.*Predictive\(rnp.model"):
        Predictive(rnp.model, guide=rnp.guide, num_samples=2)(None, 4)
    for wrong in (0, -1, 2.0, True, "4"):
        with pytest.raises(ValueError, match="num_images must be a positive number"):
            rnp.model(None, wrong)
    assert rnp.model(images, 4).canvas.shape == images.shape


def test_predictive_with_the_guide_draws_new_images(rnp, images):
    draws = Predictive(poutine.uncondition(rnp.model), guide=rnp.guide, num_samples=5)(images)
    assert draws["x"].shape == (5, 4, 1, 8, 8)
    assert not torch.equal(draws["x"][0], images)
    noise = (draws["x"] - draws["canvas"]).flatten()
    assert noise.std().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * len(noise)))
