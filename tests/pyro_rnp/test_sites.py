"""Random programs and actions below the top, and their guides."""

import copy
import math
import pickle
import warnings
from contextlib import contextmanager
from dataclasses import replace

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, Predictive
from torch.distributions import Normal

from inference.objectives import OBJECTIVES, loss
from inference.traces import latent_sites, trace_both
from pyro_rnp import RNP
from pyro_rnp.affine import bounded, codomain
from pyro_rnp.contract import DensitiesOnly
from pyro_rnp.sites import SettledNormal, centre, distribution
from tests.conftest import tiny

BELOW = ["a/0", "z/0", "a/0/0", "z/0/0", "a/0/1", "z/0/1",
         "a/1", "z/1", "a/1/0", "z/1/0", "a/1/1", "z/1/1"]  # fmt: skip


def drawn(trace):
    return [
        n for n, s in trace.nodes.items()
        if s["type"] == "sample" and not s["is_observed"] and n != "images"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stochastic", "kinds"),
    [
        ("none", {}),
        ("programs", {"z": (1, 2)}),
        ("actions", {"a": (1, 2)}),
        ("both", {"z": (1, 2), "a": (1, 2)}),
        ("actions,programs", {"a": (1,), "z": (2,)}),
        ("none,both", {"a": (2,), "z": (2,)}),
    ],
)
def test_what_is_asked_for_is_drawn_and_the_rest_is_not(stochastic, kinds, images):
    rnp = RNP(tiny(stochastic=stochastic)).eval()
    model = poutine.trace(rnp.model).get_trace(images)
    wanted = [n for n in BELOW if n.count("/") in kinds.get(n[0], ())]
    assert drawn(model) == ["z", *wanted]
    assert set(BELOW) <= set(model.nodes), "the others have the same names"
    assert drawn(poutine.trace(rnp.guide).get_trace(images)) == ["z", *wanted]


def test_sites_lie_around_what_the_step_predicts():
    rnp = RNP(tiny(stochastic="both", program_scale=0.2, action_scale=0.3)).eval()
    z = torch.randn(1, 3)
    conditioned = pyro.condition(rnp.model, {"z": z})
    draws = Predictive(conditioned, num_samples=4000, parallel=True)(None, 1)
    raw = rnp.model.recursion.hypernets[0](z)
    h_state, _, action = raw.step(raw.initial)
    z_0, a_0 = draws["z/0"].flatten(0, 1), draws["a/0"].flatten(0, 1)
    for got, mean, scale in (
        (z_0, h_state, 0.2),
        (rnp_inverse(a_0, rnp.config), action, 0.3),
    ):
        error = scale / math.sqrt(4000)
        assert ((got.mean(0) - mean[0]).abs() < 5 * error).all()
        assert ((got.std(0) / scale - 1).abs() < 5 / math.sqrt(8000)).all()


def rnp_inverse(action, c):
    """Unbounded numbers of an action, from the formula of `bounded` solved by hand."""
    share = (action[:, :2] - c.min_scale) / (c.max_scale - c.min_scale)
    most = torch.tensor([c.max_rotation, c.max_shear, c.max_translation, c.max_translation])
    return torch.cat([(share / (1 - share)).log(), (action[:, 2:] / most).atanh()], 1)


def test_a_random_action_is_used_where_it_was_drawn(images):
    rnp = RNP(tiny(stochastic="actions")).eval()
    trace = poutine.trace(rnp.model).get_trace(images)
    tree = trace.nodes["_RETURN"]["value"]
    for path in ((0,), (1,), (1, 0)):
        name = "/".join(["a", *map(str, path)])
        node = dict(tree.walk())[path]
        assert torch.equal(trace.nodes[name]["value"], node.action)


def test_the_density_of_an_action_is_that_of_its_numbers_and_the_map():
    config = tiny()
    loc, scale = torch.randn(5, 6, dtype=torch.float64), torch.rand(5, 6, dtype=torch.float64) + 0.1
    p = distribution("a", loc, scale, config)
    raw = torch.randn(5, 6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda r: bounded(r, config).sum(0), raw)
    slope = torch.stack([jacobian[i, :, i] for i in range(6)], 1)
    wanted = (Normal(loc, scale).log_prob(raw) - slope.log()).sum(-1)
    torch.testing.assert_close(p.log_prob(bounded(raw, config)), wanted)
    torch.testing.assert_close(centre(p), bounded(loc, config))
    assert p.support.check(p.sample((100,))).all()
    outside = bounded(raw, config)
    outside[:, 0] = config.max_scale + 0.01
    assert not p.support.check(outside).any()


@pytest.mark.parametrize("default", [torch.float64, torch.float32])
def test_bounds_of_actions_have_the_precision_of_the_numbers_not_of_an_earlier_default(default):
    config = tiny(max_shear=0.3)  # of which nothing is kept from another test
    torch.set_default_dtype(default)
    try:
        box = {d: codomain(config, torch.empty(0, dtype=d)) for d in (torch.float64, torch.float32)}
        standard = codomain(config)
    finally:
        torch.set_default_dtype(torch.float32)
    assert standard.lower_bound.dtype == default
    for dtype, found in box.items():
        into = torch.distributions.biject_to(found)
        assert into(torch.zeros(6, dtype=dtype)).dtype == dtype


def test_scales_are_learned_or_fixed_by_level(images):
    learned = RNP(tiny(stochastic="both,actions"))
    names = {n for n, _ in learned.model.scales.named_parameters()}
    assert names == {"z1", "a1", "a2"}
    assert learned.model.scales("a", (1, 0), torch.zeros(6)).item() == pytest.approx(0.1)
    fixed = RNP(tiny(stochastic="both", learn_scales=False, program_scale=0.7))
    assert not list(fixed.model.scales.parameters())
    assert fixed.model.scales("z", (1,), torch.zeros(3)).item() == pytest.approx(0.7)


def test_predicted_scales_start_as_those_of_their_level_and_differ_by_number_and_step(images):
    rnp = RNP(tiny(stochastic="both", learn_scales="predicted", program_scale=0.7))
    said = torch.randn(4, 3)
    start = rnp.model.scales("z", (0, 1), said)
    assert torch.allclose(start, torch.full((4, 3), 0.7))
    adam = torch.optim.Adam(rnp.parameters(), 0.05)
    for _ in range(3):
        adam.zero_grad()
        loss(OBJECTIVES.make("TraceMeanField_ELBO"), rnp, images, 1.0).backward()
        adam.step()
    first, second = (rnp.model.scales("z", (0, t), said) for t in range(2))
    assert first.std(0).min() > 1e-4, "by the prediction"
    assert (first[:, 0] - first[:, 1]).abs().min() > 1e-4, "by the number"
    assert (first - second).abs().max() > 1e-4, "by the step"


@pytest.mark.parametrize("lower_guide", ["top_down", "bottom_up"])
def test_a_lower_guide_starts_as_what_the_model_predicts(lower_guide, images):
    rnp = RNP(tiny(stochastic="both", lower_guide=lower_guide)).eval()
    guide = poutine.trace(rnp.guide).get_trace(images)
    model = poutine.trace(poutine.replay(rnp.model, trace=guide)).get_trace(images)
    for name in BELOW:
        value = guide.nodes[name]["value"]
        q, p = guide.nodes[name]["fn"], model.nodes[name]["fn"]
        torch.testing.assert_close(q.log_prob(value), p.log_prob(value), rtol=1e-4, atol=1e-4)


def stirred(lower_guide, **changes):
    rnp = RNP(tiny(**{"stochastic": "both", "lower_guide": lower_guide, **changes})).eval()
    with torch.no_grad():
        for p in rnp.guide.lower.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return rnp


@pytest.mark.parametrize("lower_guide", ["top_down", "bottom_up"])
def test_what_a_lower_guide_says_depends_on_the_image(lower_guide, images):
    rnp = stirred(lower_guide)
    z = rnp.guide.posterior(images).mean
    first = rnp.guide.below(z, images, lambda _, d: centre(d))
    other = rnp.guide.below(z, images.flip(0), lambda _, d: centre(d))
    assert not torch.allclose(first[1].action, other[1].action)
    assert not torch.allclose(first[1][0].program, other[1][0].program)


def test_bottom_up_looks_at_the_place_and_not_beyond_it():
    rnp = stirred("bottom_up")
    z, images = torch.randn(1, 3), torch.zeros(1, 1, 8, 8)
    before = rnp.guide.below(z, images, lambda _, d: centre(d))
    a = before[0].action[0]
    rows, columns = torch.meshgrid(*[(2 * torch.arange(8.0) + 1) / 8 - 1] * 2, indexing="ij")
    far = (columns - a[4]).abs() + (rows - a[5]).abs()
    poked = images.clone()
    poked[0, 0].view(-1)[far.argmax()] = 1.0
    after = rnp.guide.below(z, poked, lambda _, d: centre(d))
    assert torch.equal(before[0].action, after[0].action)
    poked.zero_()[0, 0].view(-1)[far.argmin()] = 1.0
    after = rnp.guide.below(z, poked, lambda _, d: centre(d))
    assert not torch.equal(before[0].action, after[0].action)


@pytest.mark.parametrize("guide", ["diagonal", "flow", "lowrank", "full"])
@pytest.mark.parametrize("lower_guide", ["top_down", "bottom_up"])
def test_vectorised_particles_draw_below_too(lower_guide, guide, images):
    """Particles side by side are, in expectation, particles one by one, of each image."""
    rnp = stirred(lower_guide, guide=guide).eval()
    with torch.no_grad():
        rnp.guide.top.encoder[-1].weight[:3] *= 50  # which at the start hardly looks at them

    def draw(images, particles):
        with torch.no_grad():
            guided, model = trace_both(rnp.model, rnp.guide, images, particles=particles)
        assert list(latent_sites(guided)) == list(latent_sites(model))
        values = [model.nodes[name]["value"].flatten(-1) for name in ("z", "a/0", "z/1/0")]
        return torch.cat([*values, model.nodes["canvas"]["value"].flatten(-3)], -1)

    together = draw(images, 1000)
    apart = draw(images.repeat(1000, 1, 1, 1), None).view_as(together)
    assert together.shape == (1000, 4, 3 + 6 + 3 + 64)
    error = ((together.var(0) + apart.var(0)) / 1000).sqrt()
    assert ((together.mean(0) - apart.mean(0)).abs() < 6 * error + 1e-6).all()
    between = apart.mean(0).std(0)[:3]
    assert (error[:, :3] < 0.5 * between).any(), "images differ by more than the error"


def test_a_model_under_a_plate_of_which_some_are_looked_at(images):
    rnp = RNP(tiny()).eval()

    def model():
        with pyro.plate("copies", 10, subsample_size=2, dim=-2):
            return rnp.model(images)

    nodes = poutine.trace(model).get_trace().nodes
    assert nodes["canvas"]["value"].shape == (2, 4, 1, 8, 8)


def test_parsing_at_a_sample_draws_below_and_parsing_at_the_centre_does_not(images):
    rnp = stirred("bottom_up")
    assert torch.equal(rnp.parse(images)[0].action, rnp.parse(images)[0].action)
    assert not torch.equal(rnp.parse(images, True)[0].action, rnp.parse(images, True)[0].action)


@pytest.mark.parametrize("objective", ["Trace_ELBO", "TraceMeanField_ELBO"])
@pytest.mark.parametrize("whole", [True, False])
def test_settled_images_have_the_loss_of_a_model_that_determines_all(objective, whole, images):
    rnp = stirred("bottom_up", feedback="decoding", learn_scales="predicted").double().train()
    plain = RNP(replace(rnp.config, stochastic="none", learn_scales=True), "plain").double()
    plain.load_state_dict({k: v for k, v in rnp.state_dict().items() if k in plain.state_dict()})
    rnp.guide.settled_share, objective = 1.0, OBJECTIVES.make(objective)
    shared, found = dict(plain.named_parameters()), []
    for each in (rnp, plain):
        torch.manual_seed(0)
        if whole:
            each_loss = loss(objective, each, images.double())
        else:
            each_loss = objective.differentiable_loss(each.model, each.guide, images.double())
        own = {k: p for k, p in each.named_parameters() if k in shared}
        found.append((each_loss, *torch.autograd.grad(each_loss, list(own.values()))))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_samples_lie_at_the_mean_where_a_normal_is_settled():
    settled = torch.tensor([True, False])
    normal = SettledNormal(torch.zeros(2), torch.ones(2), settled)
    for samples in (normal.sample((5,)), normal.rsample((5,)), normal.to_event(1).sample((5,))):
        assert samples.shape == (5, 2)
        assert torch.equal(samples == 0, settled.expand(5, 2))
    assert normal.expand((3, 2)).sample().shape == (3, 2)
    wanted = Normal(torch.zeros(2), torch.ones(2)).log_prob(torch.ones(2))
    assert torch.equal(normal.log_prob(torch.ones(2)), wanted)


def test_a_share_of_images_settles_in_training_alone():
    rnp, images = stirred("bottom_up").train(), torch.rand(1000, 1, 8, 8)

    def settled():
        nodes = poutine.trace(rnp.guide).get_trace(images).nodes
        programs = {n: nodes[n] for n in ("z/0", "z/1/0")}
        at_centre = [(s["value"] == s["fn"].mean).all(-1) for s in programs.values()]
        assert torch.equal(*at_centre), "an image settles as a whole"
        return float(at_centre[0].float().mean())

    assert settled() == 0
    rnp.guide.settled_share = 0.3
    assert settled() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 1000))
    assert RNP(rnp.config, "other").guide.settled_share is None
    state = torch.get_rng_state()
    rnp.parse(images)
    assert torch.equal(torch.get_rng_state(), state), "a parse settles none"
    rnp.eval()
    assert settled() == 0


def test_nuts_takes_random_levels_as_they_are(images):
    rnp = RNP(tiny(stochastic="both", steps=(1,))).eval()
    mcmc = MCMC(NUTS(rnp.model), num_samples=2, warmup_steps=2, disable_progbar=True)
    mcmc.run(images)
    draws = mcmc.get_samples()
    assert draws["a/0"].shape == (2, 4, 6)
    low, high = rnp.config.min_scale, rnp.config.max_scale
    assert ((draws["a/0"][..., :2] >= low) & (draws["a/0"][..., :2] <= high)).all()


@contextmanager
def no_sharing(rnp):
    """Runs of the guide are not handed over to the model."""
    rnp.model.hand_over = lambda *_: None
    yield
    del rnp.model.hand_over


def runs(rnp):
    """The list that grows by one with each run of the recursion."""
    found = []
    rnp.model.recursion.register_forward_hook(lambda *_: found.append(1))
    return found


@pytest.mark.parametrize("objective", ["Trace_ELBO", "RenyiELBO:num_particles=3", "FreeBits_ELBO"])
@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
@pytest.mark.parametrize("stochastic", ["both", "none,programs"])
def test_model_and_guide_share_a_run_and_nothing_else_changes(
    objective, feedback, stochastic, images
):
    rnp = stirred("bottom_up", feedback=feedback, stochastic=stochastic)
    ran, objective = runs(rnp), OBJECTIVES.make(objective)
    parameters = list(rnp.parameters())
    for whole in (
        lambda: loss(objective, rnp, images),
        lambda: objective.differentiable_loss(rnp.model, rnp.guide, images),
    ):
        ran.clear()
        torch.manual_seed(0)
        with no_sharing(rnp):
            apart = whole()
        wanted = torch.autograd.grad(apart, parameters, allow_unused=True)
        assert len(ran) == 2
        torch.manual_seed(0)
        shared = whole()
        found = torch.autograd.grad(shared, parameters, allow_unused=True)
        assert len(ran) == 3, "the model takes the guide's run over"
        torch.testing.assert_close(shared, apart)
        for mine, theirs in zip(found, wanted, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_svi_of_pyro_runs_the_recursion_once_a_step(images):
    rnp = stirred("bottom_up")
    ran, adam = runs(rnp), pyro.optim.Adam({"lr": 1e-3})
    svi = pyro.infer.SVI(rnp.model, rnp.guide, adam, pyro.infer.Trace_ELBO())
    for step in range(3):
        svi.step(images)
        assert len(ran) == step + 1


def test_one_run_of_the_guide_is_kept_and_no_copy_takes_it_along(images, tmp_path):
    rnp = stirred("bottom_up")
    values = [poutine.trace(rnp.guide).get_trace(images).nodes["z"]["value"] for _ in range(3)]
    assert rnp.model._handed[0] is values[-1]
    torch.save(values[-1].detach(), tmp_path / "z.pt")
    torch.save(values[-1], tmp_path / "whole.pt")
    assert (tmp_path / "whole.pt").stat().st_size < 2 * (tmp_path / "z.pt").stat().st_size
    for again in (copy.deepcopy(rnp), pickle.loads(pickle.dumps(rnp))):
        assert again.model._handed is None
    rnp.model(images)
    assert rnp.model._handed[0] is values[-1], "another program was drawn"


def test_a_run_of_other_weights_is_not_taken_over(images):
    rnp = stirred("bottom_up")
    ran = runs(rnp)
    for change in (
        lambda p: p.add_(0.1),
        lambda p: setattr(p, "data", p + 0.1),
        lambda p: p.requires_grad_(False),
    ):
        guide = poutine.trace(rnp.guide).get_trace(images)
        with torch.no_grad():
            change(rnp.model.recursion.hypernets[0].vectors.bias)
        ran.clear()
        poutine.trace(poutine.replay(rnp.model, trace=guide)).get_trace(images)
        assert len(ran) == 1
    with torch.no_grad():
        guide = poutine.trace(rnp.guide).get_trace(images)
    ran.clear()
    model = poutine.trace(poutine.replay(rnp.model, trace=guide)).get_trace(images)
    assert len(ran) == 1, "a run without gradients is none with gradients"
    assert model.nodes["canvas"]["value"].requires_grad


def test_what_has_no_density_is_left_out_of_a_trace_of_densities(images):
    rnp = RNP(tiny(stochastic="none,programs")).eval()
    whole = poutine.trace(rnp.model).get_trace(images)
    with DensitiesOnly():
        few = poutine.trace(poutine.replay(rnp.model, trace=whole)).get_trace(images)
    assert list(latent_sites(few)) == list(latent_sites(whole))
    assert {"canvas", "a/0"} <= whole.nodes.keys()
    assert not {"canvas", "a/0"} & few.nodes.keys()
    assert not [name for name, site in few.nodes.items() if site["type"] == "param"]
    torch.testing.assert_close(few.log_prob_sum(), whole.log_prob_sum())


@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
@pytest.mark.parametrize("name", ["z", "a/0", "z/0", "z/1", "a/1/0", "z/1/1"])
def test_an_intervention_on_the_model_ends_the_sharing(name, feedback, images):
    rnp = stirred("bottom_up", feedback=feedback, stochastic="actions,both")
    ran = runs(rnp)
    with no_sharing(rnp):
        guide = poutine.trace(rnp.guide).get_trace(images)
    value = poutine.trace(rnp.model).get_trace(images).nodes[name]["value"]
    model = poutine.do(poutine.replay(rnp.model, trace=guide), {name: value})
    torch.manual_seed(0)
    wanted = poutine.trace(model).get_trace(images)
    again = poutine.replay(rnp.guide, trace=guide)
    poutine.trace(again).get_trace(images)
    ran.clear()
    torch.manual_seed(0)
    found = poutine.trace(model).get_trace(images)
    assert len(ran) == 1, "what follows from the intervention is run"
    assert list(found.nodes) == list(wanted.nodes)
    for site in (*BELOW, "canvas"):
        torch.testing.assert_close(found.nodes[site]["value"], wanted.nodes[site]["value"])
    torch.testing.assert_close(found.log_prob_sum(), wanted.log_prob_sum())


def test_equal_numbers_that_carry_no_gradient_do_not_pass_for_the_guide_s(images):
    rnp = stirred("bottom_up")
    ran, guide = runs(rnp), poutine.trace(rnp.guide).get_trace(images)
    same = {name: guide.nodes[name]["value"].detach() for name in ("z", "a/1")}
    for values, wanted in ((same, 1), ({}, 0)):
        poutine.trace(poutine.replay(rnp.guide, trace=guide)).get_trace(images)
        ran.clear()
        model = pyro.condition(poutine.replay(rnp.model, trace=guide), values)
        poutine.trace(model).get_trace(images)
        assert len(ran) == wanted
        ran.clear()
        poutine.trace(poutine.replay(rnp.model, trace=guide)).get_trace(images)
        assert len(ran) == 1 - wanted, "a run is handed over once"


@pytest.mark.parametrize("handler", [poutine.do, pyro.condition])
def test_a_model_whose_sites_are_set_runs_once(handler, images):
    rnp = RNP(tiny()).eval()
    ran, action = runs(rnp), torch.tensor([0.3, 0.3, 0.0, 0.0, -0.5, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a condition on what the model determines
        poutine.trace(handler(rnp.model, {"a/0": action.expand(4, -1)})).get_trace(images)
    assert len(ran) == 1


def test_sites_that_are_set_count_where_only_densities_do(images):
    rnp = RNP(tiny(stochastic="both", feedback="decoding")).eval()
    for value in (0.3, 0.4):
        action = torch.tensor([value, value, 0.0, 0.0, -0.5, 0.5]).expand(4, -1)
        with DensitiesOnly(together=True):
            set_ = poutine.trace(poutine.do(rnp.model, {"a/0/1": action})).get_trace(images)
        assert {"a/0/0", "a/1/1"} <= set_.nodes.keys()


def test_siblings_of_three_levels_drawn_together_have_the_densities_of_single_ones(images):
    rnp = RNP(tiny(stochastic="both", steps=(2, 2, 2), feedback="decoding")).double().eval()
    with DensitiesOnly(together=True):
        joint = poutine.trace(rnp.model).get_trace(images.double())
    names, values = [name for name in joint.nodes if name[:2] in ("a/", "z/")], {}
    assert {"z/0", "z/*/1", "a/*/*/0"} <= set(names)
    for name in names:
        value, stars = joint.nodes[name]["value"], name.count("*")
        each = [value] if not stars else value.unbind(-2)
        for i, one in enumerate(each):
            # siblings side by side: the step above counts more than the one above that
            above = [i // 2**k % 2 for k in range(stars)]
            path = name
            for step in above:
                path = path.replace("*", str(step), 1)
            values[path] = one
    values["z"] = joint.nodes["z"]["value"]
    single = poutine.trace(pyro.condition(rnp.model, values)).get_trace(images.double())
    torch.testing.assert_close(single.log_prob_sum(), joint.log_prob_sum())
