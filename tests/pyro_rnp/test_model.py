"""The model and the guide as Pyro programs."""

import math
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Importance,
    Predictive,
    Trace_ELBO,
    TraceMeanField_ELBO,
)

from inference import objectives
from pyro_rnp import RNP, RNPConfig
from pyro_rnp.affine import glimpse
from pyro_rnp.model import part_term
from tests.conftest import tiny
from tests.reference import affine, look

LATENT = {"z"}
DETERMINISTIC = {
    "canvas", "z/0", "z/1", "z/0/0", "z/0/1", "z/1/0", "z/1/1",
    "a/0", "a/1", "a/0/0", "a/0/1", "a/1/0", "a/1/1",
}  # fmt: skip
ESTIMATORS = [Trace_ELBO, TraceMeanField_ELBO]


def analytic_kl(posterior):
    """KL(N(loc, diag scale^2) || N(0, I)) in nats, (N,)."""
    loc, scale = posterior.base_dist.loc, posterior.base_dist.scale
    return 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(-1)


def test_the_sites_have_the_documented_names_and_shapes(rnp, images):
    model = poutine.trace(rnp.model).get_trace(images)
    model.compute_log_prob()
    nodes = {n: s for n, s in model.nodes.items() if s["type"] == "sample"}
    assert set(nodes) == {"images", "x"} | LATENT | DETERMINISTIC
    for name, site in nodes.items():
        if name != "images":
            assert site["fn"].batch_shape == (4,), name
            assert [f.name for f in site["cond_indep_stack"]] == ["images"], name
            assert bool(site["infer"].get("_deterministic")) == (name in DETERMINISTIC), name
    assert model.nodes["x"]["fn"].event_shape == model.nodes["canvas"]["value"].shape[1:]
    guide = poutine.trace(rnp.guide).get_trace(images)
    assert {n for n, s in guide.nodes.items() if s["type"] == "sample"} == {"images"} | LATENT


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_svi_learns(estimator, feedback, images):
    rnp = RNP(tiny(feedback=feedback))
    svi = SVI(rnp.model, rnp.guide, pyro.optim.Adam({"lr": 2e-2}), estimator())
    losses = [svi.step(images) for _ in range(40)]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-5:]) < sum(losses[:5]) - 20


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
@pytest.mark.parametrize("pixel_layers", ["generated", "shared"])
@pytest.mark.parametrize("steps", [(3,), (2, 2), (2, 2, 2)])
def test_every_parameter_gets_a_finite_gradient(estimator, feedback, pixel_layers, steps, images):
    rnp = RNP(tiny(feedback=feedback, pixel_layers=pixel_layers, steps=steps))
    with torch.no_grad():  # the encoder's residual branches start at zero
        for p in rnp.guide.parameters():
            p.add_(0.1 * torch.randn_like(p))
    elbo = estimator()(rnp.model, rnp.guide)  # a torch module
    assert {id(p) for p in elbo.parameters()} == {id(p) for p in rnp.parameters()}
    elbo(images).backward()
    for name, p in rnp.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


def test_both_estimators_agree_and_the_kl_is_the_analytic_one(rnp, images):
    n, many = 50, images.repeat(25, 1, 1, 1)
    losses = {
        e: torch.tensor([e().loss(rnp.model, rnp.guide, many) / 100 for _ in range(n)])
        for e in ESTIMATORS
    }
    mean = {e: x.mean() for e, x in losses.items()}
    error = sum(x.var() / n for x in losses.values()).sqrt()
    assert (mean[Trace_ELBO] - mean[TraceMeanField_ELBO]).abs() < 4 * error
    assert error < 0.05, "the comparison would see a KL that is off by a fraction of a nat"

    posterior = rnp.guide.posterior(images)
    pyro.set_rng_seed(1)
    loss = TraceMeanField_ELBO().loss(rnp.model, rnp.guide, images)
    pyro.set_rng_seed(1)
    z = rnp.guide(images)
    likelihood = dist.Normal(rnp.model.recursion(z).canvas, 0.5).log_prob(images).sum()
    wanted = analytic_kl(posterior).sum().item()
    assert loss + likelihood.item() == pytest.approx(wanted, abs=1e-3)


def test_the_part_term_stands_in_training_alone(images):
    rnp = RNP(tiny(steps=(2, 2, 2), part_weight=1.7))
    pyro.set_rng_seed(2)
    trace = poutine.trace(rnp.model).get_trace(images)
    trace.compute_log_prob()
    tree = trace.nodes["_RETURN"]["value"]
    wanted = torch.zeros(4)
    for part in tree:  # parts are held against the image, parts of parts against a part's glimpse
        target = glimpse(images, part.action, 5)
        wanted += (part.decoding - target).square().sum((1, 2, 3)) / 2
    deep = part_term(tree, images) - wanted
    assert (deep > 0).all()
    got = trace.nodes["part_term"]["log_prob"]
    torch.testing.assert_close(got, -1.7 * (wanted + deep) / (2 * 0.5**2))
    rnp.eval()
    assert "part_term" not in poutine.trace(rnp.model).get_trace(images).nodes
    rnp.train()
    assert "part_term" not in poutine.trace(rnp.model).get_trace(None, 4).nodes


def test_the_part_term_is_the_glimpse_error_at_two_levels(rnp, images):
    tree = rnp.parse(images)
    wanted = sum((p.decoding - glimpse(images, p.action, 5)).square().sum((1, 2, 3)) for p in tree)
    torch.testing.assert_close(part_term(tree, images), wanted / 2)
    assert part_term(RNP(tiny(steps=(3,))).parse(images), images).eq(0).all()


@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_the_part_term_of_three_levels_is_the_literal_one(feedback):
    rnp = RNP(tiny(steps=(2, 3, 2), feedback=feedback, channels=2)).double()
    with torch.no_grad():
        for p in rnp.parameters():
            p.add_(0.2 * torch.randn_like(p))
        tree = rnp.model.recursion(torch.randn(2, 3, dtype=torch.float64))
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    wanted = torch.zeros(2, dtype=torch.float64)
    for i, depth in product(range(2), (1, 2)):
        errors = []
        for path in product(*map(range, (2, 3)[:depth])):
            node, there = tree, torch.eye(3, dtype=torch.float64)
            for step in path:
                node = node[step]
                there = there @ affine(node.action[i])
            errors.append((node.decoding[i] - look(images[i], there, 5)).square().sum())
        wanted[i] += sum(errors) / len(errors)
    torch.testing.assert_close(part_term(tree, images), wanted, rtol=1e-10, atol=1e-10)


def test_no_gradient_goes_through_the_part_term_s_target(rnp, images):
    images = images.clone().requires_grad_()
    part_term(rnp.parse(images.detach(), grad=True), images).sum().backward()
    assert images.grad is None
    tree = rnp.parse(images.detach(), grad=True)
    moved = [p.action for p in tree]
    grads = torch.autograd.grad(part_term(tree, images.detach()).sum(), moved, allow_unused=True)
    last = grads[-1]  # the last step's action feeds no further decoding
    assert last is None or last.eq(0).all()


def test_vectorised_particles_equal_a_loop_in_expectation(rnp, images):
    def losses(vectorize, n, particles):
        elbo = Trace_ELBO(
            num_particles=particles, vectorize_particles=vectorize, max_plate_nesting=1
        )
        return torch.tensor([elbo.loss(rnp.model, rnp.guide, images) for _ in range(n)])

    together, apart = losses(True, 30, 10), losses(False, 80, 1)
    error = (together.var() / 30 + apart.var() / 80).sqrt()
    assert (together.mean() - apart.mean()).abs() < 4 * error


def test_samples_of_the_model_and_of_predictive(rnp):
    tree = rnp.sample(5)
    assert tree.canvas.shape == (5, 1, 8, 8)
    draws = Predictive(rnp.model, num_samples=7)(None, 3)
    assert draws["x"].shape == (7, 3, 1, 8, 8)
    assert draws["a/1/0"].shape == (7, 3, 6)
    noise = (draws["x"] - draws["canvas"]).flatten()
    assert noise.std().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * len(noise)))
    vectorised = Predictive(rnp.model, num_samples=7, parallel=True)(None, 3)
    assert vectorised["z/1"].shape == (7, 3, 3)
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        rnp.sample(0)


def test_samples_keep_nothing_for_gradients(rnp):
    tree = rnp.sample(3)
    rnp.model.run(rnp.model.prior().sample((3,))).canvas.sum().backward()  # where one wants some
    assert all(not value.requires_grad for value in tree.sites().values())


def test_many_samples_are_run_in_parts_and_are_the_same(rnp, monkeypatch):
    runs, run = [], rnp.model.run
    monkeypatch.setattr(rnp.model, "run", lambda z: runs.append(len(z)) or run(z))
    torch.manual_seed(0)
    found = rnp.sample(2100)
    assert runs == [1000, 1000, 100]
    torch.manual_seed(0)
    torch.testing.assert_close(found.canvas, run(rnp.model.prior().sample((2100,))).canvas)


def test_conditioning_and_intervention_by_name(rnp, images):
    z = torch.randn(4, 3)
    tree = pyro.condition(rnp.model, {"z": z})(images)
    torch.testing.assert_close(tree.canvas, rnp.model.recursion(z).canvas)
    action = tree[1].action.clone()
    action[:, 4] += 0.2
    moved = poutine.trace(pyro.condition(pyro.do(rnp.model, {"a/1": action}), {"z": z})).get_trace(
        images
    )
    after = moved.nodes["_RETURN"]["value"]
    torch.testing.assert_close(after[1].action, action)
    torch.testing.assert_close(after[0].canvas, tree[0].canvas)
    assert not torch.allclose(after.canvas, tree.canvas)


def test_an_intervention_may_be_one_value_for_all_images(rnp, images):
    pose = torch.tensor([0.3, 0.4, 0.1, 0.0, 0.2, -0.2])
    tree = pyro.do(rnp.model, {"a/0": pose})(images)
    torch.testing.assert_close(tree[0].action, pose.expand(4, 6))
    blank = pyro.do(rnp.model, {"canvas": torch.zeros(1, 8, 8)})(images)
    assert blank.canvas.shape == (4, 1, 8, 8)
    assert blank.canvas.eq(0).all()


def test_importance_sampling_and_nuts_run_as_they_are(rnp, images):
    posterior = Importance(rnp.model, rnp.guide, num_samples=20).run(images)
    assert posterior.get_log_normalizer().isfinite()
    mcmc = MCMC(NUTS(rnp.model), num_samples=3, warmup_steps=3, disable_progbar=True)
    mcmc.run(images)
    assert mcmc.get_samples()["z"].shape == (3, 4, 3)


def test_parse_at_the_mean_and_at_a_sample(rnp, images):
    assert torch.equal(rnp.parse(images).canvas, rnp.parse(images).canvas)
    assert torch.equal(rnp.parse(images).program, rnp.guide.posterior(images).mean)
    draws = rnp.parse(images.repeat(2000, 1, 1, 1), sample=True).program.view(2000, 4, 3)
    scale = rnp.guide.posterior(images).base_dist.scale
    error = scale / math.sqrt(2000)
    assert ((draws.mean(0) - rnp.parse(images).program).abs() < 5 * error).all()
    assert ((draws.std(0) / scale - 1).abs() < 5 / math.sqrt(2 * 2000)).all()


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (torch.rand(8, 8), r"shape \(N, 1, 8, 8\), got \(8, 8\)"),
        (torch.rand(2, 1, 9, 8), r"shape \(N, 1, 8, 8\), got \(2, 1, 9, 8\)"),
        (torch.rand(2, 3, 8, 8), r"shape \(N, 1, 8, 8\), got \(2, 3, 8, 8\)"),
        (torch.rand(0, 1, 8, 8), "got an empty batch"),
        (torch.full((2, 1, 8, 8), float("nan")), "all of image 0 are missing"),
        (torch.full((2, 1, 8, 8), torch.inf), "must be finite"),
        (torch.full((2, 1, 8, 8), 255.0), "values from 255 to 255"),
        (-torch.ones(2, 1, 8, 8), "values from -1 to -1"),
        (torch.ones(2, 1, 8, 8, dtype=torch.int16), "got torch.int16"),
    ],
)
def test_bad_images_get_one_sentence(rnp, bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        rnp.parse(bad)
    if "values" not in sentence:  # a sample of the model may leave [0, 1]
        for program in (rnp.model, rnp.guide):
            with pytest.raises(ValueError, match=sentence):
                program(bad)


def test_half_precision_keeps_geometry_and_densities_in_full(images):
    rnp = RNP(tiny())
    elbo = TraceMeanField_ELBO()(rnp.model, rnp.guide)
    pyro.set_rng_seed(1)
    full = elbo(images)
    pyro.set_rng_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = elbo(images)
        tree = rnp.parse(images)
    half.backward()
    assert half.dtype == tree.canvas.dtype == tree[0].action.dtype == torch.float32
    assert tree[0].program.dtype == torch.bfloat16
    assert half.item() == pytest.approx(full.item(), rel=0.02)
    assert all(p.grad.isfinite().all() for p in rnp.parameters())


def test_the_default_is_the_paper_s():
    assert RNP().config == RNPConfig.preset("mnist")


@pytest.mark.gpu
def test_a_step_on_cuda_equals_one_on_the_cpu(rnp, images):
    z = torch.randn(4, 3)
    on_cpu = rnp.model.recursion(z).canvas
    on_gpu = rnp.cuda().model.recursion(z.cuda()).canvas
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-4)
    loss = Trace_ELBO()(rnp.model.train(), rnp.guide.train())(images.cuda())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in rnp.parameters())


@pytest.mark.gpu
def test_a_step_on_cuda_does_not_wait_for_the_device(rnp, images):
    rnp.cuda().train()
    images = images.cuda()
    objective = objectives.OBJECTIVES.make("TraceMeanField_ELBO")
    optimiser = torch.optim.Adam(rnp.parameters(), fused=True)

    def step():
        loss = objectives.loss(objective, rnp, images)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(rnp.parameters(), 10.0)
        optimiser.found_inf = (~(norm.isfinite() & loss.detach().isfinite())).float()
        optimiser.step()
        optimiser.zero_grad()

    with pyro.validation_enabled(False):
        step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_trees_carry_gradients_only_where_they_are_asked_for(rnp, images):
    z = torch.randn(4, 3)
    for run in (
        lambda **grad: rnp.parse(images, **grad),
        lambda **grad: rnp.parse(images, sample=True, **grad),
        lambda **grad: rnp.sample(4, **grad),
        lambda **grad: rnp.decode(z, **grad),
        lambda **grad: rnp.interpolate(z[0], z[1], 4, **grad),
    ):
        tree = run()
        assert not any(value.requires_grad for value in tree.sites().values())
        assert tree.canvas.numpy().shape == (4, 1, 8, 8)
        assert run(grad=True).canvas.requires_grad
        with torch.no_grad():
            assert not run(grad=True).canvas.requires_grad
    assert not rnp.encode(images).mean.requires_grad
    assert rnp.encode(images, grad=True).mean.requires_grad


def test_decoding_runs_programs(rnp, images):
    tree = rnp.parse(images)
    for z in (tree.program, tree.program.numpy(), tree.program.double()):
        again = rnp.decode(z)
        for name, value in tree.sites().items():
            torch.testing.assert_close(again.sites()[name], value, msg=name)
    assert torch.equal(rnp.encode(images).mean, tree.program)
    random = RNP(tiny(stochastic="both"))
    a, b = random.decode(tree.program), random.decode(tree.program)
    assert torch.equal(a.canvas, b.canvas)
    drawn = random.decode(tree.program, sample=True)
    assert not torch.equal(drawn[0].action, a[0].action)
    for wrong in (torch.zeros(3), torch.zeros(2, 4), torch.zeros(0, 3), torch.zeros(1, 2, 3)):
        with pytest.raises(ValueError, match=r"z must have shape \(N, 3\), got"):
            rnp.decode(wrong)
    with pytest.raises(ValueError, match="z must be finite"):
        rnp.decode(torch.full((1, 3), torch.nan))


def test_interpolation_goes_from_one_program_to_the_other_in_equal_steps(rnp):
    a, b = torch.randn(2, 5, 3)
    tree = rnp.interpolate(a, b.numpy(), 4)
    assert tree.canvas.shape == (20, 1, 8, 8)
    lines = tree.program.view(5, 4, 3)
    torch.testing.assert_close(lines[:, 0], a)
    torch.testing.assert_close(lines[:, 3], b)
    torch.testing.assert_close(lines.diff(dim=1), ((b - a) / 3).unsqueeze(1).expand(5, 3, 3))
    torch.testing.assert_close(tree.split(4)[2].canvas, rnp.decode(lines[2]).canvas)
    assert torch.equal(rnp.interpolate(a[0], b, 4).program[::4], a[:1].expand(5, 3))
    with pytest.raises(ValueError, match="steps must be at least 2"):
        rnp.interpolate(a, b, 1)
    with pytest.raises(ValueError, match="a holds 5 programs and b 4"):
        rnp.interpolate(a, b[:4])
    with pytest.raises(ValueError, match=r"b must have shape \(3,\) or \(N, 3\), got \(4,\)"):
        rnp.interpolate(a[0], torch.zeros(4))
