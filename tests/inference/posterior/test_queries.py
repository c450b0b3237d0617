"""Queries: every method against brute force, what conditioning must give back, what is refused."""

import json
import math
import re
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import MultivariateNormal
from pyro.infer import SVI, TraceMeanField_ELBO
from torch.distributions import Normal

from inference.posterior import query
from inference.posterior.chains import chain_size, mixing
from inference.posterior.weights import FEWEST, ImportanceWeights, importance_weights, pareto_k
from pyro_rnp import RNP
from pyro_rnp.affine import FIELDS, codomain
from pyro_rnp.registry import PRIORS
from pyro_rnp.sites import is_random, sites
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("unchecked")
STEP, PILOT, PARTICLES = 0.05, 200_000, 300_000  # of brute force
LEFT = (torch.arange(8) < 4).expand(8, 8)


@cache
def trained(**changes):
    """A tiny model that has learned to draw spots, so that its posteriors are as real ones are."""
    torch.manual_seed(3)
    pyro.clear_param_store()  # of what tests before left there
    rnp = RNP(tiny(**{"program_size": 2, "sigma": 0.2, "steps": (2, 1), **changes}))
    centres, place = 1.5 + 4 * torch.rand(256, 2, 1, 1), torch.arange(8.0)
    far = (place - centres[:, :1]).square() + (place.view(8, 1) - centres[:, 1:]).square()
    spots = (-far / 3).exp().view(256, 1, 8, 8)
    svi = SVI(rnp.model, rnp.guide, pyro.optim.Adam({"lr": 1e-2}), TraceMeanField_ELBO())
    for step in range(150):
        svi.step(spots[step % 4 :: 4])
    pyro.clear_param_store()
    return rnp.eval()


class Truth:
    """Posterior and evidence of one image, by brute force.

    Where z, of two numbers, is all that is random, it is a sum over a grid finer than the posterior
    is wide. (A grid of 0.02 instead of 0.05 moves the evidence by 0.0002 nats and means by 0.0001,
    far less than the errors of the queries that are held against it.) Else it is importance
    sampling: z comes from a normal around the posterior of a pilot run and, one in ten, from the
    prior, and all other sites from the prior.
    """

    @torch.no_grad()
    def __init__(self, rnp, image, mask, given, tolerances):
        self.rnp, self.evidence_of = rnp, (image, mask, given, tolerances)
        self.exact = not rnp.config.any_random
        if self.exact:
            axis = torch.arange(-6, 6, STEP)
            z = torch.cartesian_prod(axis, axis)
            log_cell = 2 * math.log(STEP)
            log_w = self._weigh(z, self._prior(z) + log_cell)
            self.w = log_w.softmax(0)
            self.evidence, self.evidence_error = log_w.logsumexp(0), torch.zeros(())
            widths = torch.linalg.eigvalsh(self.covariance("z")[0]).sqrt()
            assert widths.min() > 1.2 * STEP, "the grid must be finer than the posterior is wide"
            return
        pilot = torch.randn(PILOT, 2)
        self.w = self._weigh(pilot, torch.zeros(PILOT)).softmax(0)
        near = MultivariateNormal(self.mean("z")[0].float(), 2 * self.covariance("z")[0].float())
        z = torch.cat([near.sample((PARTICLES * 9 // 10,)), torch.randn(PARTICLES // 10, 2)])
        log_q = torch.logaddexp(near.log_prob(z) + math.log(0.9), self._prior(z) + math.log(0.1))
        log_w = self._weigh(z, self._prior(z) - log_q)
        self.w, n = log_w.softmax(0), len(z)
        self.evidence = log_w.logsumexp(0) - math.log(n)
        self.evidence_error = (n * self.w - 1).square().sum().sqrt() / n
        assert 1 / self.w.square().sum() > 500, "brute force itself must be trustworthy"

    def _prior(self, z):
        return Normal(0.0, 1.0).log_prob(z).sum(1)

    def _weigh(self, z, log_weights, at_once=50_000):
        """log_weights + log p(evidence | z) of each z, with all sites below drawn and kept."""
        self.values, weights = {}, []
        image, mask, given, tolerances = self.evidence_of
        rnp = self.rnp
        for some, log_p in zip(z.split(at_once), log_weights.split(at_once), strict=True):
            n, log_p = len(some), log_p.double()
            hard = {name: v.expand(n, -1) for name, v in given.items() if name not in tolerances}
            model = pyro.condition(rnp.model, data={**hard, "z": some})
            nodes = poutine.trace(model).get_trace(None, n).nodes
            if image is not None:
                pixels = Normal(nodes["canvas"]["value"], rnp.config.sigma).log_prob(image)
                log_p = log_p + (pixels * mask).sum((1, 2, 3))
            for name, value in given.items():
                if name in hard:
                    log_p = log_p + nodes[name]["fn"].log_prob(hard[name])
                else:
                    around = Normal(nodes[name]["value"], tolerances[name])
                    log_p = log_p + around.log_prob(value).sum(-1)
            weights.append(log_p)
            for name in (*sites(rnp.config), "canvas"):
                self.values.setdefault(name, []).append(nodes[name]["value"].flatten(1))
        return torch.cat(weights)

    def mean(self, name):
        """The posterior mean and its standard error."""
        x = torch.cat(self.values[name])
        mean = self.w @ x.double()
        error = (self.w.square() @ (x - mean).double().square()).sqrt()
        return mean, error * (not self.exact)

    def covariance(self, name):
        """The posterior covariance and its standard error."""
        x = torch.cat(self.values[name]).double()
        apart, d = x - self.w @ x, x.shape[1]
        covariance = torch.empty(d, d).double()
        errors = torch.empty(d, d).double()
        for i in range(d):
            products = apart[:, i : i + 1] * apart
            covariance[i] = self.w @ products
            errors[i] = (self.w.square() @ (products - covariance[i]).square()).sqrt()
        return covariance, errors * (not self.exact)


class NearTruth(torch.nn.Module):
    """A guide that is nearly right about one image: a little too broad."""

    def __init__(self, truth):
        super().__init__()
        self.loc, covariance = truth.mean("z")[0].float(), truth.covariance("z")[0].float()
        self.tril = torch.linalg.cholesky(1.5 * covariance)

    def posterior(self, images):
        loc = self.loc.expand(len(images), -1)
        return MultivariateNormal(loc, scale_tril=self.tril)


CASES = {
    "an image": ({}, True, None, ()),
    "half an image": ({}, True, LEFT, ()),
    "a part that is determined": ({}, False, None, ("a/0",)),
    "half an image and a part": ({"stochastic": "actions"}, True, LEFT, ("a/0", "z/1")),
}


@pytest.fixture(scope="module", params=CASES)
def asked(request, unchecked):
    changes, pictured, mask, names = CASES[request.param]
    rnp = trained(**changes)
    torch.manual_seed(1)
    true = rnp.sample(1).map(torch.Tensor.detach)
    image = (true.canvas + 0.05 * torch.randn_like(true.canvas)).clamp(0, 1) if pictured else None
    given = {name: true.sites()[name] for name in names}
    box, tolerance = codomain(rnp.config), 0.1
    ranges = {"z": torch.tensor(2.0), "a": box.upper_bound - box.lower_bound}
    tolerances = {n: tolerance * ranges[n[0]] for n in names if not is_random(rnp.config, n)}
    seen = torch.ones(8, 8) if mask is None else mask.float()
    truth = Truth(rnp, image, seen, given, tolerances)
    rnp = deepcopy(rnp)
    rnp.guide.top = NearTruth(truth)
    return rnp, {"images": image, "mask": mask, "given": given, "tolerance": tolerance}, truth


@pytest.mark.parametrize("method", ["guide", "importance", "svi", "smc", "hmc", "nuts"])
def test_every_method_agrees_with_brute_force(method, asked):
    rnp, known, truth = asked
    if method == "guide" and known["given"]:
        pytest.skip("the guide does not look at parts")
    if method in ("hmc", "nuts") and (known["given"] or known["mask"] is not None):
        pytest.skip("chains take longer than a test should to mix here")
    num = {"svi": 4_000, "smc": 800, "hmc": 800, "nuts": 200}.get(method, 10_000)
    options = {"num_samples": num, "warmup": 40, "chains": 8 if method == "hmc" else 4}
    how = "hmc:leaps=4" if method == "hmc" else method
    answer = query(rnp, **known, method=how, progress=False, **options)
    assert method != "smc" or answer.trusted.all()
    if not answer.trusted.all():
        assert known["given"] or method == "nuts", "a guide that does not look at parts may miss"
        assert "is unreliable: " in answer.notes[-1]
        if method in ("importance", "hmc", "nuts"):  # few weights or draws claim nothing
            return
    if method in ("importance", "svi") and known["given"] and answer.pareto_k > 0.25:
        return  # weights without a fourth moment state an error that is itself uncertain

    def agree(found, error, wanted, wanted_error, what):
        room = 5 * (error.double().square() + wanted_error.square()).sqrt() + 1e-5
        assert ((found.double() - wanted).abs() <= room).all(), what

    agree(
        answer.log_evidence,
        answer.log_evidence_error,
        truth.evidence,
        truth.evidence_error,
        "evidence",
    )
    for name in sites(rnp.config):
        mean = answer.mean(name)[0], answer.standard_error(name)[0]
        agree(*mean, *truth.mean(name), f"mean of {name}")
        assert (mean[1] < 0.5 * answer.variance(name)[0].sqrt() + 1e-4).all(), "an error that says"
        covariance = answer.covariance(name)[0], answer.covariance_error(name)[0]
        agree(*covariance, *truth.covariance(name), f"covariance of {name}")


@pytest.mark.parametrize("method", ["guide", "importance", "svi", "smc", "nuts"])
@pytest.mark.parametrize("stochastic", ["none", "both"])
def test_given_everything_it_gives_that_back(method, stochastic):
    rnp = trained(stochastic=stochastic)
    tree = rnp.sample(3)
    given = {n: v for n, v in tree.sites().items() if n in sites(rnp.config)}
    random = {n: v for n, v in given.items() if is_random(rnp.config, n)}
    for everything in ({"given": random}, {"given": given, "images": tree.canvas.clamp(0, 1)}):
        answer = query(rnp, **everything, method=method)
        for name, value in tree.sites().items():
            assert torch.equal(answer.samples[name][0], value), name
        assert answer.samples["z"].shape[0] == 1, "there is nothing to draw"
        assert answer.trusted.all()


@pytest.mark.parametrize("method", ["guide", "importance", "svi", "smc"])
@pytest.mark.parametrize("stochastic", ["none", "both"])
def test_given_nothing_it_gives_the_prior(stochastic, method):
    rnp = trained(stochastic=stochastic)
    answer = query(rnp, method=method, num_samples=2000, num_images=2, steps=50)
    assert (answer.log_evidence.abs() < 5 * answer.log_evidence_error + 1e-3).all()
    assert answer.trusted.all()
    assert method in ("svi", "smc") or (answer.effective_samples > 1999).all()
    prior = rnp.sample(4000).sites()
    for name in ("z", "a/0", "z/1"):
        error = (prior[name].var(0) / 4000 + answer.standard_error(name).square()).sqrt()
        assert ((answer.mean(name) - prior[name].mean(0)).abs() < 5 * error + 1e-6).all()
        apart = prior[name] - prior[name].mean(0)
        products = apart.unsqueeze(1) * apart.unsqueeze(2)
        error = (products.var(0) / 4000 + answer.covariance_error(name).square()).sqrt()
        assert ((answer.covariance(name) - products.mean(0)).abs() < 5 * error + 1e-6).all()
    assert "query on the prior" in answer.notes[0]


def test_a_mask_that_hides_everything_is_a_query_on_the_prior(images):
    rnp = RNP(tiny())
    answer = query(rnp, images, mask=torch.zeros(8, 8), method="guide", num_samples=5)
    assert "query on the prior" in answer.notes[0]
    without = query(rnp, num_images=4, method="guide", num_samples=5)
    assert torch.equal(answer.canvas, without.canvas)


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli"])
@pytest.mark.parametrize("prior", [p for p in PRIORS.pieces if p != "normal"])
def test_every_prior_and_guide_can_be_asked(prior, likelihood):
    guide = "flow" if likelihood == "normal" else "lowrank"
    rnp = RNP(tiny(prior=prior, guide=guide, likelihood=likelihood)).eval()
    with torch.no_grad():
        images = rnp.model.likelihood(rnp.sample(4).canvas).sample().clamp(0, 1)
    z = rnp.model.prior().sample((20_000,))
    with torch.no_grad():
        likelihood = rnp.model.likelihood(rnp.model.run(z).canvas)
        log_p = torch.stack([likelihood.log_prob(image) for image in images])
    wanted = log_p.logsumexp(1) - math.log(len(z))
    error = (len(z) * log_p.softmax(1) - 1).square().mean(1).div(len(z)).sqrt()
    assert (1 / log_p.softmax(1).square().sum(1) > 500).all(), "the truth must be one"
    weighted = query(rnp, images, method="importance", num_samples=10)
    assert weighted.log_evidence.isfinite().all()
    fitted = query(rnp, images, method="svi", num_samples=400, steps=60)
    room = 5 * (error.square() + fitted.log_evidence_error.square()).sqrt()
    assert ((fitted.log_evidence - wanted).abs() < room).all()


@pytest.mark.parametrize("method", ["svi", "importance"])
def test_what_is_hidden_does_not_matter(images, method):
    rnp, how = trained(), {"method": method, "num_samples": 20, "steps": 5}
    there = [torch.nan] if method == "svi" else [torch.nan, 0.3, 5.0, -torch.inf]
    shown = [images, *(torch.where(LEFT, images, value) for value in there)]
    if method == "importance":
        shown.append(shown[1].numpy())
    first, *others = (query(rnp, some, mask=LEFT, **how) for some in shown)
    for other in others:
        assert torch.equal(first.canvas, other.canvas)
        assert torch.equal(first.log_evidence, other.log_evidence)


@pytest.mark.parametrize("there", [5.0, torch.inf])
def test_what_is_seen_must_be_an_image(rnp, images, there):
    images[2, 0, 3, 1] = there
    assert LEFT[3, 1]
    with pytest.raises(ValueError, match="images must"):
        query(rnp, images, mask=LEFT, method="guide", num_samples=2)


@pytest.mark.parametrize(
    ("method", "lower_guide"),
    [
        ("guide", "bottom_up"),
        ("importance", "top_down"),
        ("svi", "bottom_up"),
        ("hmc", "top_down"),
    ],
)
def test_a_pixel_that_is_missing_is_hidden(method, lower_guide, images):
    rnp = RNP(tiny(stochastic="both", steps=(2,), lower_guide=lower_guide)).eval()
    seen = torch.rand_like(images) < 0.6
    seen[0] = True
    some = {"num_samples": 8, "steps": 2, "warmup": 1, "chains": 1, "method": method}
    wanted = query(rnp, images, mask=seen, **some)
    holes = images.masked_fill(~seen, torch.nan)
    half = torch.where(LEFT, holes, images)  # the mask hides the rest
    for found in (query(rnp, holes, **some), query(rnp, half, mask=seen, **some)):
        assert torch.equal(found.canvas, wanted.canvas)
        assert torch.equal(found.log_evidence, wanted.log_evidence)


def test_images_without_a_pixel_ask_for_the_prior(rnp, images):
    blind = query(rnp, torch.full_like(images, torch.nan), method="guide", num_samples=2)
    assert blind.notes[0].startswith("No pixel is seen")


def test_an_array_is_a_mask_too(rnp, images):
    how = {"method": "guide", "num_samples": 3}
    found, wanted = (query(rnp, images, mask=mask, **how) for mask in (LEFT.numpy(), LEFT))
    assert torch.equal(found.canvas, wanted.canvas)


@pytest.mark.usefixtures("brief")
def test_what_is_given_is_held():
    rnp = trained(stochastic="actions")
    tree = rnp.sample(4)
    given = {"a/0": tree[0].action, "z/1": tree[1].program}
    answer = query(rnp, given=given, tolerance=0.01, num_samples=50, steps=300)
    assert (answer.samples["a/0"] == given["a/0"]).all(), "what is random exactly"
    assert ((answer.mean("z/1") - given["z/1"]).abs() < 0.1).all(), "the rest nearly"
    (note,) = [note for note in answer.notes if "tolerance" in note]
    assert note.startswith("z/1: determined")
    assert "a/0" not in note


def test_the_guide_says_what_it_does_not_look_at(images):
    rnp = trained(stochastic="actions")
    answer = query(rnp, images, given={"a/0": rnp.sample(4)[0].action}, method="guide")
    assert any("has not looked at a/0" in note for note in answer.notes)
    with pytest.raises(ValueError, match=r"cannot hold z/1, which this model determines"):
        query(rnp, images, given={"z/1": torch.zeros(2)}, method="guide")


def test_the_chance_that_a_part_made_a_pixel(images):
    rnp = trained()
    answer = query(rnp, images, num_samples=6, steps=2, method="guide")
    for depth, parts in ((1, 2), (2, 2)):
        chances = answer.part_probabilities(depth)
        assert chances.shape == (4, parts + 1, 8, 8)
        torch.testing.assert_close(chances.sum(1), torch.ones(4, 8, 8))
        assert chances.min() >= 0
    weights = torch.zeros(6, 4)
    weights[2] = 0.75
    weights[5] = 0.25
    answer = replace(answer, weights=weights)
    ink = answer.canvas.clamp(max=1).squeeze(2)
    wanted = 0.75 * ink[2] + 0.25 * ink[5]
    torch.testing.assert_close(
        1 - answer.part_probabilities(1)[:, -1], wanted, rtol=1e-4, atol=1e-4
    )


@pytest.mark.usefixtures("brief")
def test_a_query_leaves_everything_as_it_was(images):
    rnp = deepcopy(trained()).train()
    rnp.model.prior.requires_grad_(False)
    pyro.param("mine", torch.ones(1))
    before = {name: p.clone() for name, p in rnp.named_parameters()}
    learning = [p.requires_grad for p in rnp.parameters()]
    state = torch.get_rng_state()
    query(rnp, images, num_samples=20, steps=3)
    assert torch.equal(state, torch.get_rng_state())
    assert rnp.training
    assert [p.requires_grad for p in rnp.parameters()] == learning
    assert list(pyro.get_param_store().keys()) == ["mine"]
    for name, p in rnp.named_parameters():
        assert torch.equal(p, before[name])


@pytest.mark.usefixtures("brief")
def test_the_same_seed_gives_the_same_answer_and_another_another(images):
    rnp = trained()
    found = [query(rnp, images, num_samples=5, steps=3, seed=seed).canvas for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_an_answer_that_is_not_to_be_trusted_says_so(images):
    rnp = trained()  # which has never seen what these images hold
    answer = query(rnp, images, method="importance", num_samples=50)
    poor = int((~answer.trusted).sum())
    assert poor
    assert answer.notes[-1].startswith(f"The posterior of {poor} of 4 images is unreliable: ")
    answer = query(rnp, images, method="nuts", num_samples=16, warmup=2, steps=2)
    assert not answer.trusted.all()
    assert any("r-hat" in note for note in answer.notes)


def through_a_file(answer, tmp_path):
    """What ArviZ reads of an answer that it has written."""
    arviz = pytest.importorskip("arviz")
    data = answer.to_arviz()
    if arviz.__version__[0] == "0":
        assert isinstance(data, arviz.InferenceData)
    data.to_netcdf(str(tmp_path / "answer.nc"))
    return arviz.from_netcdf(str(tmp_path / "answer.nc"))


def groups(data):
    """Names of its groups."""
    return set(data.groups()) if callable(data.groups) else set(data.children)


def at(group, site):
    """A site among the variables of ArviZ."""
    kind, _, part = site.partition("/")
    return group[{"a": "actions", "z": "programs"}[kind]].sel(part=part) if part else group[site]


def same(found, wanted):
    assert torch.equal(torch.tensor(found.values), wanted)


def test_arviz_takes_chains(images, tmp_path):
    answer = query(trained(), images, method="nuts", num_samples=12, warmup=2, steps=2, chains=3)
    data = through_a_file(answer, tmp_path)
    assert groups(data) == {"posterior", "sample_stats", "log_likelihood"}
    assert set(data.posterior) == {"z", "canvas", "actions", "programs"}
    parts = [name[2:] for name in answer.samples if name[:2] == "a/"]
    assert [*data.posterior.coords["part"].values] == parts
    assert data.posterior["actions"].dims == ("chain", "draw", "image", "part", "field")
    assert data.posterior["programs"].dims == ("chain", "draw", "image", "part", "program")
    assert data.posterior["z"].dims == ("chain", "draw", "image", "program")
    for site, samples in answer.samples.items():
        found = at(data.posterior, site)
        same(found, samples.unflatten(0, (3, 4)))
    assert data.posterior["canvas"].dims[3:] == ("channel", "y", "x")
    action = at(data.posterior, "a/1/0")
    assert [*action.coords["field"].values] == list(FIELDS)
    same(action.sel(field="rotation", image=2, chain=1), answer.samples["a/1/0"][4:8, 2, 2])
    assert "log_weight" not in data.sample_stats, "those of the fit are of other samples"
    assert data.attrs["divergences"] == answer.divergences
    assert data.attrs["notes"].splitlines() == list(answer.notes)


@pytest.mark.parametrize("method", ["guide", "importance", "svi"])
def test_arviz_is_not_told_that_weighted_samples_count_alike(method, images, tmp_path):
    rnp = trained()
    answer = query(rnp, images, method=method, mask=LEFT, num_samples=30, steps=2)
    data = through_a_file(answer, tmp_path)
    kind = "posterior" if method == "guide" else "proposal"
    assert groups(data) == {kind, "sample_stats", "log_likelihood"}
    same(at(data[kind], "z/0")[0], answer.samples["z/0"])
    stats = data.sample_stats
    assert stats["log_weight"].dims == ("chain", "draw", "image")
    same(stats["log_weight"][0], answer.log_weights)
    for name in ("effective_samples", "pareto_k", "trusted", "log_evidence", "log_evidence_error"):
        assert stats[name].dims == ("image",)
        same(stats[name], getattr(answer, name))
    assert [*data[kind].attrs["effective_samples"]] == answer.effective_samples.tolist()
    seen = Normal(answer.canvas, rnp.config.sigma).log_prob(images) * LEFT
    found = torch.tensor(data.log_likelihood["x"].values)[0]
    torch.testing.assert_close(found, seen.sum((-3, -2, -1)))


def test_arviz_takes_answers_without_pixels_or_chance(tmp_path):
    answer = query(trained(), given={"z": torch.zeros(2)}, method="svi", steps=1)
    data = through_a_file(answer, tmp_path)
    assert groups(data) == {"posterior", "sample_stats"}
    assert data.posterior.sizes["draw"] == 1
    same(data.sample_stats["effective_samples"], torch.tensor([math.inf]))


@pytest.mark.parametrize("method", ["guide", "svi"])
def test_arviz_of_version_1_takes_a_tree_of_xarray(method, images, monkeypatch):
    arviz, xarray = pytest.importorskip("arviz"), pytest.importorskip("xarray")
    answer = query(trained(), images, method=method, num_samples=5, steps=2)
    monkeypatch.setattr(arviz, "__version__", "1.3.0")
    data = answer.to_arviz()
    assert isinstance(data, xarray.DataTree)
    kind = "posterior" if method == "guide" else "proposal"
    assert groups(data) == {kind, "sample_stats", "log_likelihood"}
    for site, samples in answer.samples.items():
        same(at(data[kind], site)[0], samples)
    assert data.attrs["method"] == method
    same(data["sample_stats"]["trusted"], answer.trusted)


def test_arviz_takes_a_flat_program_without_parts(images):
    pytest.importorskip("arviz")
    answer = query(RNP(tiny(program="flat")), images, method="guide", num_samples=5)
    assert set(answer.to_arviz().posterior) == {"z", "canvas"}


def test_too_few_samples_a_chain_are_told_before_memory_is_asked_for(images, monkeypatch):
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda device: 0.0)
    with pytest.raises(ValueError, match="nuts needs 4 samples a chain: num_samples of 16 or more"):
        query(trained(), images, method="nuts", num_samples=15, chains=4)


def test_more_samples_than_memory_holds_are_refused_at_once(images, monkeypatch):
    def no(self, *_):
        raise AssertionError("nothing is drawn before")

    rnp = trained()
    answer = query(rnp, images, num_samples=7, method="importance")
    tree, u = answer.tree, 3 * answer.u.nbytes
    monkeypatch.setattr("inference.posterior.log_density.LogDensity.propose", no)
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda device: free)
    free = 2.0 * tree.nbytes + u - 1
    with pytest.raises(ValueError, match=r"num_samples of 7 for 4 images needs .* fewer num_s"):
        query(rnp, images, num_samples=7, method="svi")
    free += 1
    with pytest.raises(AssertionError):
        query(rnp, images, num_samples=7, method="svi")
    free, everything = 2.0 * tree.nbytes / 7, {"z": torch.zeros(2)}
    query(rnp, images, given=everything, num_samples=7)  # of which there is but one


@pytest.mark.parametrize("shape", [0.2, 0.5, 1.2])
def test_the_tail_of_weights_is_told(shape):
    weights = torch.distributions.Uniform(0, 1).sample((20_000,)).double() ** -shape
    assert pareto_k(weights.log()) == pytest.approx(shape, abs=0.15)


def test_a_tail_that_few_samples_do_not_show_is_unknown():
    log_weights = 3 * torch.randn(100)
    for num in (1, 2, 12, FEWEST - 1):
        assert math.isnan(pareto_k(log_weights[:num])), num
    assert math.isfinite(pareto_k(log_weights[:FEWEST]))
    for num in (2, 12, 100):
        assert pareto_k(torch.full((num,), -7.0)) == 0, "weights that are alike have no tail"
    assert math.isnan(pareto_k(torch.zeros(1))), "one alone is like no other"
    assert pareto_k(log_weights.where(torch.arange(100) < 50, -math.inf)) > 0, "some weigh nothing"


@pytest.mark.parametrize("bad", [-math.inf, math.inf, math.nan])
def test_weights_that_are_not_finite_are_said_to_be_so(bad):
    log_weights = torch.randn(30, 2)
    log_weights[:, 1] = bad
    found = importance_weights(log_weights)
    assert found.pareto_k.isfinite().tolist() == [True, False]
    assert "The posterior of 1 of 2 images is unreliable: " in found.poor()
    assert found.poor().endswith("weights that are not finite.")


def test_answers_of_few_samples_are_not_trusted_until_there_are_enough(images):
    rnp = trained()
    canvases = rnp.sample(4).canvas.clamp(0, 1)
    few = query(rnp, canvases, method="svi", num_samples=FEWEST - 1, steps=100)
    assert (few.effective_samples >= 10).any(), "not for want of effective samples"
    assert not few.trusted.any()
    assert few.notes[-1].startswith("The posterior of 4 of 4 images is unreliable: ")
    assert f"take {FEWEST} samples or more" in few.notes[-1]
    assert json.loads(json.dumps(few.to_dict(0), allow_nan=False))["pareto_k"] is None
    assert query(rnp, num_images=2, method="guide", num_samples=12).trusted.all(), "the prior's own"


@pytest.mark.parametrize("method", ["guide", "importance", "svi", "smc", "hmc", "nuts"])
def test_a_doubt_says_what_to_do(method):
    rnp = trained()
    how = {"num_samples": 16, "steps": 0, "warmup": 2, "mask": LEFT}
    answer = query(rnp, torch.rand(2, 1, 8, 8), method=method, **how)
    doubts = [note for note in answer.notes if "unreliable" in note or "diverged" in note]
    assert doubts
    for note in doubts:
        remedy = note.rpartition("; take ")[2]
        assert note.count(".") > 0
        assert "num_samples" in remedy or "smc" in remedy, note
        assert method == "smc" or "method='smc'" in remedy or method == "hmc", note


def test_a_note_names_what_is_wrong_and_nothing_else():
    fine = {"effective_samples": torch.tensor([50.0, 60.0]), "pareto_k": torch.tensor([0.1, 0.2])}

    def said(**changes):
        rest = {name: torch.zeros(2) for name in ("log_evidence", "log_evidence_error")}
        return ImportanceWeights(weights=torch.zeros(70, 2), **rest, **{**fine, **changes}).poor()

    assert said() == ""
    start = "The posterior of 1 of 2 images is unreliable: "
    few = f"{start}fewer than 10 effective samples of 70 (the least has 3.0)."
    assert said(effective_samples=torch.tensor([3.0, 60.0])) == few
    heavy = f"{start}weights with a tail of Pareto k above 0.7 (the worst has 0.90)."
    assert said(pareto_k=torch.tensor([0.1, 0.9])) == heavy


def test_chains_have_no_fewer_than_no_effective_samples_and_no_endless_many():
    values = torch.randn(4, 4, 500)  # chains, draws and numbers: Pyro's own goes from -900 to 900
    found = chain_size(values)
    assert (found > 0).all()
    assert found.max() == pytest.approx(16 * math.log10(16), rel=1e-5)
    assert chain_size(torch.ones(4, 4)).isnan()
    long = torch.randn(2, 4000)
    assert chain_size(long) == pytest.approx(8000, rel=0.2), "draws that know nothing of each other"


def test_errors_of_short_chains_are_numbers(images):
    answer = query(trained(), images, method="nuts", num_samples=16, warmup=2, steps=2)
    for name in ("z", "a/0", "canvas"):
        assert answer.standard_error(name).isfinite().all()
    assert not (answer.effective_samples < 0).any()


def test_diverging_chains_say_so():
    assert mixing({"z": torch.ones(2)}, 0, 50) == []
    assert mixing({"z": torch.ones(2)}, 3, 50)[0].startswith("3 of 50 transitions diverged")
    (note,) = mixing({"z": torch.tensor([1.0, 1.3]), "a/0": torch.ones(2)}, 0, 50)
    assert note.startswith("The posterior of 1 of 2 images is unreliable: ")


def test_an_answer_of_chains_that_diverged_is_not_to_be_trusted(images, monkeypatch):
    def few(density, fitted, num, *_):  # chains of the fit's own samples, of which some diverged
        return fitted.draw(num)[0].unsqueeze(0), diverged

    monkeypatch.setattr("inference.posterior.nuts.sample_chains", few)
    for diverged in (0, 2):
        answer = query(trained(), images, method="nuts", num_samples=400, steps=50, chains=1)
        assert answer.to_dict(0)["divergences"] == answer.divergences == diverged
        assert answer.trusted.any() == (not diverged)
    assert any("2 of 400 transitions diverged" in note for note in answer.notes)


def test_chains_of_what_is_all_given_have_no_error():
    answer = query(trained(), given={"z": torch.zeros(2)}, method="nuts", num_samples=16, steps=1)
    assert not answer.standard_error("canvas").any()
    assert answer.trusted.all()


@pytest.mark.parametrize("method", ["guide", "importance", "svi"])
def test_one_sample_has_no_error_to_state(method, images):
    answer = query(trained(), images, method=method, num_samples=1, steps=2)
    assert answer.log_evidence_error.isinf().all()
    assert answer.standard_error("z").isinf().all()
    assert answer.covariance_error("a/0").isinf().all()
    assert answer.pareto_k.isnan().all()
    assert not answer.trusted.any()
    text = json.dumps(answer.to_dict(0), allow_nan=False)
    assert json.loads(text)["log_evidence_error"] is None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"given": {"z/7": torch.zeros(2)}},
            r"no site 'z/7'; the closest is 'z/.*There are z, a/0",
        ),
        ({"given": {"z/0": torch.zeros(3)}}, r"z/0 is a program.*\(2,\) or \(N, 2\), got \(3,\)"),
        ({"given": {"a/0": torch.zeros(2)}}, r"a/0 is an action \(scale_x.*\(6,\) or \(N, 6\)"),
        ({"given": {"a/0": torch.ones(6)}}, r"a/0: scale_x must lie in \[0.233, 0.435\] \(part si"),
        ({"given": {"z/0": torch.full((2,), 3.0)}}, r"z/0: .*lie in \[-1, 1\], got 3"),
        ({"given": {"z": torch.full((2,), math.nan)}}, "z must be finite"),
        ({"given": {"z": torch.zeros(3, 2)}}, "z is given for 3 images, but there are 4"),
        ({"mask": torch.zeros(3, 3)}, r"mask must have shape \(8, 8\), \(4, 8, 8\) or .* \(3, 3\)"),
        ({"mask": torch.full((8, 8), 0.5)}, "mask must be True"),
        (
            {"mask": (torch.arange(4) > 0).view(4, 1, 1).expand(4, 8, 8)},
            "No pixel of image 0 is seen",
        ),
        ({"method": "gibbs"}, "method must be one of guide, .* smc, hmc, nuts, got 'gibbs'"),
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"method": "nuts", "num_samples": 8}, "num_samples of 16 or more"),
        ({"given": {"a/0": torch.zeros(6)}}, r"a/0: scales must be positive, got 0"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"num_images": 3}, "num_images is 3, but there are 4 images"),
    ],
)
def test_bad_input_gets_one_sentence(wrong, sentence, images):
    with pytest.raises(ValueError, match=sentence) as error:
        query(trained(), images, **wrong)
    assert "\n" not in str(error.value)
    assert re.search(r"[.]$", str(error.value))


def test_a_point_has_no_density_to_weigh_with(images):
    rnp = RNP(tiny(guide="map"))
    with pytest.raises(ValueError, match=r"map.*smc, svi, hmc or nuts"):
        query(rnp, images, method="importance")
    query(rnp, images, method="svi", steps=2, num_samples=3)


@pytest.mark.parametrize("method", ["guide", "importance", "svi", "smc", "hmc", "nuts"])
def test_a_query_is_ended_by_an_error_that_its_caller_raises(method, images):
    rnp, called = trained(), []

    def stop():
        called.append(True)
        if len(called) == 3:
            raise InterruptedError

    random, enabled = torch.get_rng_state(), torch.distributions.Distribution._validate_args
    with pytest.raises(InterruptedError):
        query(rnp, images, mask=LEFT, method=method, num_samples=16, steps=9, progress=stop)
    assert len(called) == 3
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.distributions.Distribution._validate_args == enabled
    assert not list(pyro.get_param_store())
    assert not poutine.runtime._PYRO_STACK
    assert all(p.requires_grad for p in rnp.parameters())
