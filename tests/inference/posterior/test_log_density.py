"""The density that queries weigh with, against formulas written down site by site."""

import math
from functools import partial

import pytest
import torch

from inference.isolation import frozen
from inference.posterior import adaptation, densities, hmc, log_density, query, variational
from inference.posterior.evidence import read_evidence
from inference.posterior.log_density import LogDensity
from inference.posterior.tempering import Schedule
from pyro_rnp import RNP, ParseTree
from tests.by_hand import ByHand, FromPrior, log_normal, stirred
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("double", "unchecked")
S, N, TOLERANCE = 3, 2, 0.05
LEFT = (torch.arange(8) < 4).expand(8, 8)
CASES = [
    ("both", ()),
    ("both", ("z",)),
    ("both", ("a/0",)),
    ("both", ("a/1", "z/1", "z/0/1")),
    ("actions,both", ("a/0", "z/0", "a/1/0")),
    ("programs", ("a/1", "z/1")),
]


def is_random(config, name):
    return name == "z" or config.random(name[0], name.count("/"))


def held_softly(config, given, sites):
    """Log-density of what is given of determined sites, around where the model has them."""
    c, total = config, torch.zeros(S * N)
    scale = c.max_scale - c.min_scale
    turn = [2 * c.max_rotation, 2 * c.max_shear, 2 * c.max_translation, 2 * c.max_translation]
    ranges = {"z": torch.tensor(2.0), "a": torch.tensor([scale, scale, *turn])}
    for name, value in given.items():
        if not is_random(c, name):
            around = TOLERANCE * ranges[name[0]].expand_as(sites[name])
            total = total + log_normal(value.repeat(S, 1), sites[name], around)
    return total


@pytest.mark.parametrize(
    ("lower_guide", "learn_scales"), [("bottom_up", "predicted"), ("top_down", True)]
)
@pytest.mark.parametrize(("stochastic", "names"), CASES)
@torch.no_grad()
def test_weights_are_those_of_the_formula(
    stochastic, names, lower_guide, learn_scales, monkeypatch
):
    changes = {"lower_guide": lower_guide, "learn_scales": learn_scales}
    rnp = stirred(stochastic=stochastic, **changes).eval()
    images, looked = torch.rand(2, N, 1, 8, 8)
    seen = torch.rand(8, 8) < 0.6
    sites = rnp.sample(N).sites()
    given = {name: sites[name] for name in names}
    monkeypatch.setattr(LogDensity, "fill_hidden", lambda _: looked)
    options = {"given": given, "mask": seen, "method": "importance", "tolerance": TOLERANCE}
    answer = query(rnp, images, num_samples=S, **options)
    assert answer.log_weights.std(0).min() > 1e-3, "they differ"
    sites = {name: value.flatten(0, 1) for name, value in answer.samples.items()}
    hard = {name: value for name, value in given.items() if is_random(rnp.config, name)}
    for name, value in hard.items():
        assert torch.equal(sites[name], value.repeat(S, 1)), name
    repeated = [each.repeat(S, 1, 1, 1) for each in (images, looked)]
    terms = ByHand(rnp, sites, *repeated)
    soft = held_softly(rnp.config, given, sites)
    wanted = (terms.pixels * seen.flatten()).sum(1) + soft + sum(terms.p.values())
    wanted = wanted - sum(q for name, q in terms.q.items() if name not in hard)
    torch.testing.assert_close(answer.log_weights, wanted.view(S, N), rtol=1e-10, atol=1e-8)

    density = LogDensity(rnp, read_evidence(rnp, images, given, seen, None, TOLERANCE))
    u, log_q, log_p = density.propose(S)
    tree = density.log_joint(u.flatten(0, 1))[1]
    sites = {name: value for name, value in tree.sites().items() if name != "canvas"}
    terms = ByHand(rnp, sites, *repeated)
    assert density.sizes.keys() == terms.p.keys() - hard.keys()
    pixels = (terms.pixels * seen.flatten()).sum(1) + held_softly(rnp.config, given, sites)
    wanted_p = pixels + sum(terms.p[name] for name in hard)
    wanted_q = torch.zeros(S * N)
    for name, own in density.by_site(u).items():
        torch.testing.assert_close(own.flatten(0, 1), terms.u[name], rtol=1e-8, atol=1e-8)
        standard = log_normal(terms.u[name], torch.tensor(0.0), torch.tensor(1.0))
        wanted_p = wanted_p + standard
        wanted_q = wanted_q + terms.q[name] - terms.p[name] + standard
    torch.testing.assert_close(log_p, wanted_p.view(S, N), rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(log_q, wanted_q.view(S, N), rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(density.visit(u), log_p, rtol=1e-10, atol=1e-8)
    same = ParseTree.join(list(density.trees(u)))
    torch.testing.assert_close(same.canvas, tree.canvas, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize(("stochastic", "names"), CASES)
@torch.no_grad()
def test_without_an_image_weights_are_the_density_of_what_is_given(stochastic, names):
    rnp = stirred(stochastic=stochastic, learn_scales="predicted").eval()
    sites = rnp.sample(N).sites()
    given = {name: sites[name] for name in names}
    options = {"given": given, "method": "importance", "tolerance": TOLERANCE}
    answer = query(rnp, num_samples=S, num_images=N, **options)
    sites = {name: value.flatten(0, 1) for name, value in answer.samples.items()}
    terms = ByHand(rnp, sites, torch.zeros(S * N, 1, 8, 8))
    wanted = held_softly(rnp.config, given, sites)
    wanted = wanted + sum(terms.p[name] for name in names if name in terms.p)
    torch.testing.assert_close(answer.log_weights, wanted.view(S, N), rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("names", [("a/0",), ("z/0",), ("a/0", "z/0/0")])
@torch.no_grad()
def test_importance_of_a_random_part_is_brute_force(names):
    changes = {"steps": (1, 1), "program_size": 1, "program_scale": 0.5, "action_scale": 0.5}
    rnp = stirred(0.1, **changes).eval()
    rnp.guide.top.encoder[-1].bias[1:] += 0.7  # broad enough for light tails
    sites, image = rnp.sample(1).sites(), torch.rand(1, 1, 8, 8)
    given = {name: sites[name] for name in names}
    answer = query(rnp, image, given=given, method="importance", num_samples=5000)
    m = 20_000
    prior = FromPrior(rnp, {name: value.expand(m, -1) for name, value in given.items()})
    prior.values["z"] = torch.randn(m, 1)
    rnp.model.recursion(prior.values["z"], prior)
    terms = ByHand(rnp, prior.values, image.expand(m, -1, -1, -1))
    log_weights = terms.pixels.sum(1) + sum(terms.p[name] for name in names)
    weights = log_weights.softmax(0)
    assert 1 / weights.square().sum() > 1000, "brute force itself must be trustworthy"
    wanted = log_weights.logsumexp(0) - math.log(m)
    error = (m * weights - 1).square().mean().div(m).sqrt()
    assert (answer.log_evidence - wanted).abs() < 5 * answer.log_evidence_error.hypot(error)
    assert answer.log_evidence_error < 0.1, "an error that says"
    for name, values in prior.values.items():
        mean = weights @ values
        error = (weights.square() @ (values - mean).square()).sqrt()
        room = 5 * answer.standard_error(name)[0].hypot(error) + 1e-9
        assert ((answer.mean(name)[0] - mean).abs() < room).all(), name


@torch.no_grad()
def test_hidden_pixels_are_filled_in_by_what_the_guide_said_best():
    rnp = stirred(stochastic="none", sigma=0.2).eval()
    images, seen = torch.rand(6, 1, 8, 8), torch.rand(6, 1, 8, 8) < 0.5
    seen[5] = True
    density = LogDensity(rnp, read_evidence(rnp, images, {}, seen, None, 0.1))
    asked = []
    rnp.guide.register_forward_hook(lambda _, inputs, z: asked.append((inputs[0].clone(), z)))
    found = density.fill_hidden(8)
    assert len(asked) == 8
    fits, shown = [], torch.where(seen, images, 0.0)
    for given, z in asked:  # from blank on; then what is expected of what was said before
        torch.testing.assert_close(given, shown)
        canvas = rnp.model.recursion(z).canvas
        shown = torch.where(seen, images, canvas.clamp(0, 1))
        far = ((images - canvas) ** 2 * seen).sum((1, 2, 3)) / (2 * 0.2**2)
        fits.append(-far - z.square().sum(1) / 2)
    best = torch.stack(fits).argmax(0)
    assert len(best.unique()) > 1, "of some images an early round is best, of others a later one"
    for i, round in enumerate(best):
        assert torch.equal(found[i], asked[round][0][i])


METHODS = ["guide", "importance", "importance:rounds=2", "svi", "hmc:leaps=1"]
METHODS.append("smc:islands=2,particles=2,sweeps=1,leaps=1,temperatures=2")


@pytest.mark.parametrize("method", METHODS)
def test_of_many_images_a_few_run_at_a_time_with_and_without_gradients(method, monkeypatch):
    monkeypatch.setattr(log_density, "AT_ONCE", 6)
    monkeypatch.setattr(adaptation, "AT_ONCE", 6)
    for each in (densities, variational):
        monkeypatch.setattr(each, "WITH_GRADIENTS", 4)
    short = partial(Schedule, sweeps=1, leaps=1, temperatures=2)
    monkeypatch.setattr(hmc, "Schedule", short)
    monkeypatch.setattr(hmc, "PILOT", 4)
    rnp = RNP(tiny(masked_guide="full", sigma=1.0)).eval()
    images = torch.rand(9, 1, 8, 8)
    rows: dict[bool, set[int]] = {True: set(), False: set()}

    def count(_, inputs, *rest):
        rows[torch.is_grad_enabled()].add(len(inputs[0]))

    hooks = [each.register_forward_hook(count) for each in (rnp.model, rnp.guide)]
    hooks.append(rnp.guide.masked.top.encoder.register_forward_hook(count))
    how = {"num_samples": 8, "steps": 2, "warmup": 2, "chains": 2, "mask": LEFT}
    found = query(rnp, images, method=method, **how)
    assert found.weights.shape == (8, 9)
    assert max(rows[False]) <= 6
    assert max(rows[True], default=0) <= 4
    assert bool(rows[True]) == (method.partition(":")[0] in ("svi", "smc", "hmc"))
    for hook in hooks:
        hook.remove()
    density = LogDensity(rnp, found.evidence)
    u, _, log_p = density.propose(8, 1)
    monkeypatch.undo()  # all at once, in what follows
    canvas = found._density.log_joint(found.u.flatten(0, 1))[1].canvas.view(8, 9, 1, 8, 8)
    same = torch.testing.assert_close
    same(found.canvas, canvas)
    same(density.visit(u), log_p)
    assert density.nbytes == LogDensity(rnp, found.evidence).nbytes


def test_each_image_keeps_its_own_answer_where_they_are_fitted_in_groups(monkeypatch):
    rnp = RNP(tiny(sigma=0.02)).eval()
    with frozen(rnp, 0):
        images = rnp.sample(3).canvas.clamp(0, 1).repeat(3, 1, 1, 1)
    density = LogDensity(rnp, read_evidence(rnp, images, {}, LEFT, None, 0.1))
    monkeypatch.setattr(variational, "WITH_GRADIENTS", 4)
    with frozen(rnp, 0):
        fitted = variational.fit_normal(density, 30)
        own, of_others = (density.visit(fitted.loc.roll(k, 0).unsqueeze(0))[0] for k in (0, 1))
    assert fitted.loc.shape == (9, density.size)
    assert (own - of_others).mean() > 2
    assert (fitted.below.flatten(1).abs().amax(1) > 0).all(), "which start at 0"
