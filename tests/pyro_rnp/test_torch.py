"""The model under torch's other ways to run it: traces, transforms, checkpoints, compilation."""

import pyro
import pytest
import torch
from pyro.infer import (
    MCMC,
    NUTS,
    JitTrace_ELBO,
    JitTraceMeanField_ELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils.checkpoint import checkpoint

from pyro_rnp import RNP, load, save
from pyro_rnp.checkpoint import WEIGHTS, load_weights
from pyro_rnp.generated_layers import GeneratedLayers
from tests.conftest import tiny

pytestmark = [
    pytest.mark.usefixtures("double", "unchecked"),
    pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated"),
]

JIT = {JitTrace_ELBO: Trace_ELBO, JitTraceMeanField_ELBO: TraceMeanField_ELBO}


def stirred(**changes):
    """A model in float64 away from its start, of 6x6 images."""
    config = tiny(**{"image_size": 6, "patch_size": 4, "encoder_blocks": 1, **changes})
    rnp = RNP(config).double()
    with torch.no_grad():
        for p in rnp.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return rnp


@pytest.fixture
def images():
    return torch.rand(3, 1, 6, 6, dtype=torch.float64)


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-9, atol=1e-9, msg=name)


def gradients(elbo, rnp, images, seed=0):
    """The loss and the gradient of each parameter, under its name without a compiler's marks."""
    rnp.zero_grad()
    if seed is not None:
        pyro.set_rng_seed(seed)
    loss = elbo.loss_and_grads(rnp.model, rnp.guide, images)
    found = {n: p.grad for n, p in rnp.named_parameters() if p.grad is not None}
    found = {n.replace("_orig_mod.", ""): g.clone() for n, g in found.items()}
    return found | {"loss": torch.tensor(loss)}


@pytest.mark.parametrize(
    ("recompute_levels", "changes"),
    [
        (0, {"steps": (2, 1)}),
        (2, {"steps": (2, 1)}),
        (0, {"steps": (1, 1), "stochastic": "both"}),
    ],
    ids=["none", "recomputed", "both"],
)
@pytest.mark.parametrize("jit", JIT)
def test_a_jit_estimator_has_the_gradients_of_the_ordinary_one(
    jit, recompute_levels, changes, images
):
    rnp = stirred(part_weight=1.7, **changes).train()
    rnp.model.recursion.recompute_levels = recompute_levels
    runs = []
    rnp.guide.register_forward_hook(lambda *_: runs.append(1))
    traced, ordinary = jit(ignore_jit_warnings=True), JIT[jit]()
    for batch in (images, torch.rand_like(images)):
        runs.clear()
        found = gradients(traced, rnp, batch)
        pyro.set_rng_seed(0)
        for _ in list(runs):  # to record the programs it ran them, before it ran the record
            ordinary.loss(rnp.model, rnp.guide, batch)
        equal(found, gradients(ordinary, rnp, batch, seed=None))
        with torch.no_grad():
            for p in rnp.parameters():
                p.add_(0.01 * torch.randn_like(p))


def test_the_part_term_counts_in_what_is_compared(images):
    rnp = stirred(part_weight=1.7)
    with_it = gradients(Trace_ELBO(), rnp, images)
    without = gradients(Trace_ELBO(), rnp.eval(), images)
    assert abs(with_it["loss"] - without["loss"]) > 1


def test_gradient_steps_in_a_trace_are_refused(images):
    rnp = stirred(guide="refined")
    with pytest.raises(NotImplementedError, match="use an ELBO without Jit"):
        gradients(JitTrace_ELBO(ignore_jit_warnings=True), rnp, images)


def test_nuts_runs_as_a_trace(images):
    # Pyro's compiled potential holds parameters as constants, which must take no gradient.
    rnp = stirred(steps=(2,)).eval().requires_grad_(False)
    found = []
    for jit in (False, True):
        pyro.set_rng_seed(0)
        kernel = NUTS(rnp.model, jit_compile=jit, ignore_jit_warnings=True)
        mcmc = MCMC(kernel, num_samples=3, warmup_steps=2, disable_progbar=True)
        mcmc.run(images)
        found.append(mcmc.get_samples()["z"])
    torch.testing.assert_close(*found)


@pytest.fixture(params=[0, 2], ids=["kept", "recomputed"])
def recursion(request):
    made = stirred().model.recursion
    made.recompute_levels = request.param
    return made


def total(recursion, z, parameters=None):
    """A number of all that a run from programs z draws."""
    parameters = {} if parameters is None else parameters
    return functional_call(recursion, parameters, (z,)).canvas.sin().sum()


def by_autograd(recursion, z):
    """The gradient of `total` with respect to z and each parameter."""
    z, parameters = z.clone().requires_grad_(), dict(recursion.named_parameters())
    found = torch.autograd.grad(recursion(z).canvas.sin().sum(), [z, *parameters.values()])
    return dict(zip(["z", *parameters], found, strict=True))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradients_through_a_checkpoint(recursion, use_reentrant):
    z = torch.randn(4, 3)
    wanted = by_autograd(recursion, z)
    z.requires_grad_()
    parameters = dict(recursion.named_parameters())
    once = checkpoint(lambda z: total(recursion, z), z, use_reentrant=use_reentrant)
    (once + z.sum()).backward()
    found = {name: p.grad for name, p in parameters.items()}
    equal({"z": z.grad - 1, **found}, wanted)


def test_gradients_by_functional_transforms(recursion):
    z, parameters = torch.randn(4, 3), dict(recursion.named_parameters())
    wanted = by_autograd(recursion, z)
    by_z, by_parameters = grad(lambda z, p: total(recursion, z, p), (0, 1))(z, parameters)
    equal({"z": by_z, **by_parameters}, wanted)

    alone = vmap(grad(lambda z, p: total(recursion, z.unsqueeze(0), p), (0, 1)), (0, None))
    by_z, by_parameters = alone(z, parameters)  # a gradient for each program
    equal({"z": by_z, **{name: g.sum(0) for name, g in by_parameters.items()}}, wanted)

    jacobian = jacrev(lambda z: recursion(z).canvas.flatten())(z)
    outer = recursion(z).canvas.flatten().cos()
    equal({"z": torch.einsum("i,inz->nz", outer, jacobian)}, {"z": wanted["z"]})


def test_many_gradients_at_once(recursion):
    z = torch.randn(4, 3, requires_grad=True)
    parameters = dict(recursion.named_parameters())
    drawn = recursion(z).canvas.flatten()
    inputs, each = [z, *parameters.values()], torch.eye(len(drawn))
    rows = torch.autograd.grad(drawn, inputs, each, is_grads_batched=True)
    found = [torch.einsum("i,i...->...", drawn.detach().cos(), row) for row in rows]
    wanted = by_autograd(recursion, z.detach())
    equal(dict(zip(["z", *parameters], found, strict=True)), wanted)


def test_many_images_under_vmap_are_a_batch(recursion):
    z = torch.randn(4, 3)
    alone = vmap(lambda z: recursion(z.unsqueeze(0)).canvas.squeeze(0))(z)
    torch.testing.assert_close(alone, recursion(z).canvas)


def compiled(rnp, backend="eager"):
    """The same model, whose recursion and encoder are compiled."""
    rnp.model.recursion = torch.compile(rnp.model.recursion, backend=backend)
    rnp.guide.top.encoder = torch.compile(rnp.guide.top.encoder, backend=backend)
    return rnp


def test_a_compiled_model_is_saved_as_any_other(tmp_path, images):
    rnp = stirred().eval()
    save(rnp, tmp_path / "plain")
    canvas = rnp.parse(images).canvas
    save(compiled(rnp), tmp_path / "compiled")
    written = [(tmp_path / run / WEIGHTS).read_bytes() for run in ("plain", "compiled")]
    assert written[0] == written[1]
    torch.testing.assert_close(load(tmp_path / "compiled").parse(images).canvas, canvas)
    other = compiled(RNP(rnp.config))
    load_weights(other, tmp_path / "plain" / WEIGHTS)
    for name, value in rnp.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_wholly_compiled_model_is_saved_as_any_other(tmp_path):
    rnp = stirred()
    save(torch.compile(rnp, backend="eager"), tmp_path)
    assert load(tmp_path).state_dict().keys() == rnp.state_dict().keys()


def test_the_recursion_behind_a_compiler_is_set_through_it():
    recursion = compiled(stirred(steps=(2, 2, 2))).model.recursion
    recursion.levels, recursion.recompute_levels = 2, 1
    inside = recursion._orig_mod
    assert (inside.levels, inside.recompute_levels) == (2, 1)
    assert recursion.renderer is inside.renderer
    with torch.no_grad():
        assert recursion.run_level(torch.randn(4, 3), 2).canvas.shape == (4, 1, 4, 4)


def test_compiled_layers_learn_the_same():
    layers = GeneratedLayers(3, 2, [(2, 2), (2, 4)])
    g, x = torch.randn(5, 3, requires_grad=True), torch.randn(5, 1, 2, requires_grad=True)

    def run(g, x):
        first, second = layers(g, recompute=True)
        return second(first(first(x, None).tanh(), x), None).square().sum()

    found = []
    for function in (run, torch.compile(run, backend="aot_eager", fullgraph=True)):
        found.append(torch.autograd.grad(function(g, x), [g, x, layers.basis]))
    torch.testing.assert_close(*found)
