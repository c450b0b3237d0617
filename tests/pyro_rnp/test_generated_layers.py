"""Generated layers against plain autograd: values, gradients, and odd uses of the graph."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from pyro_rnp.generated_layers import GeneratedLayers, SharedLayers

SHAPES = [(4, 2), (2, 4), (2, 2)]
"""By output, by input, and square; two units each."""


def plain(layers, g):
    """The same layers as one product a program, by plain autograd."""
    g = torch.cat([torch.ones_like(g[:, :1]), g], 1)
    made = []
    for theta in layers.thetas():
        weight = torch.einsum("pr,roi->poi", g, theta)
        made.append(lambda x, bias=None, w=weight: torch.einsum("poi,pni->pno", w, x) + (bias or 0))
    return made


@pytest.fixture(params=[3, 1], ids=["set", "single"])
def layers(request):
    return GeneratedLayers(3, 2, SHAPES[: request.param]).double()


@pytest.fixture
def g():
    return torch.randn(5, 3, dtype=torch.float64, requires_grad=True)


def rows(n, width=4):
    return torch.randn(5, n, width, dtype=torch.float64, requires_grad=True)


def loss_of(made, x, y, mix):
    first = made[0](x, None)
    again = made[0](torch.tanh(first @ mix), None)  # a recurrence: the output goes back in
    total = (first**2).sum() + again.sin().sum() + made[0](y, None).cos().sum()
    if len(made) > 1:
        total = total + made[1](again, None).square().sum()  # the last is never used
    return total


@pytest.mark.parametrize("recompute", [False, True])
def test_several_uses_equal_plain_autograd(layers, g, recompute):
    x, y = rows(1), rows(2)
    mix = torch.randn(2, 4, dtype=torch.float64)
    inputs = [g, x, y, layers.basis]
    got = torch.autograd.grad(loss_of(layers(g, recompute), x, y, mix), inputs)
    wanted = torch.autograd.grad(loss_of(plain(layers, g), x, y, mix), inputs)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradcheck_with_a_bias_and_second_derivatives(layers, g):
    def f(g, basis, x, bias):
        layers.basis.data = basis.data
        made = layers(g)
        return made[0](x, bias).tanh() + made[0](2 * x, None)

    bias = rows(1, 2)
    assert torch.autograd.gradcheck(f, (g, layers.basis, rows(1), bias))
    assert torch.autograd.gradgradcheck(f, (g, layers.basis, rows(1), bias))


def test_second_derivatives_of_weights_that_are_not_kept_are_refused(layers, g):
    loss = layers(g, recompute=True)[0](rows(1), None).square().sum()
    with pytest.raises(RuntimeError, match="recompute_levels=0"):
        torch.autograd.grad(loss, g, create_graph=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is")  # which torch uses for a jvp
@pytest.mark.parametrize("recompute", [False, True])
def test_transforms_of_functions_equal_plain_autograd(layers, g, recompute):
    x, y = rows(1), rows(2)
    mix = torch.randn(2, 4, dtype=torch.float64)

    def ours(g, x):
        return loss_of(layers(g, recompute), x, y, mix)

    def theirs(g, x):
        return loss_of(plain(layers, g), x, y, mix)

    along = (torch.randn_like(g), torch.randn_like(x))
    for transform in (
        lambda f: torch.func.grad(f, (0, 1))(g, x),
        lambda f: torch.func.jvp(f, (g, x), along),
        lambda f: torch.func.hessian(f)(g, x),
        lambda f: torch.func.vmap(f, (None, 0))(g, torch.stack([x, 2 * x])),
    ):
        torch.testing.assert_close(transform(ours), transform(theirs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_checkpoint_may_hold_the_layers_or_their_uses_alone(layers, g, recompute, inside):
    x, y = rows(1), rows(2)
    mix = torch.randn(2, 4, dtype=torch.float64)
    inputs = [g, x, y, layers.basis]
    made = layers(g, recompute)

    def run(x):
        return loss_of(layers(g, recompute) if inside else made, x, y, mix)

    got = made[0](3 * x, None).sum() + checkpoint(run, x, use_reentrant=False)
    wanted = plain(layers, g)[0](3 * x).sum() + loss_of(plain(layers, g), x, y, mix)
    for a, b in zip(*(torch.autograd.grad(v, inputs) for v in (got, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_backward_pass_can_be_repeated(layers, g, recompute):
    f, x = layers(g, recompute)[0], rows(1)
    loss = f(x, None).square().sum() + f(2 * x, None).sum()
    first = torch.autograd.grad(loss, g, retain_graph=True)
    second = torch.autograd.grad(loss, g)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_backward_pass_to_the_inputs_alone_leaves_nothing_behind(layers, g, recompute):
    f, x = layers(g, recompute)[0], rows(1)
    loss = f(x, None).square().sum()
    torch.autograd.grad(loss, x, retain_graph=True)  # never reaches the weights
    got = torch.autograd.grad(loss, g)
    wanted = torch.autograd.grad(plain(layers, g)[0](x).square().sum(), g)
    torch.testing.assert_close(got, wanted)


def test_unused_layers_have_no_gradient(layers, g):
    layers(g)
    x = rows(1)
    (grad,) = torch.autograd.grad(x.sum() + 0 * g.sum(), [g])
    assert grad.eq(0).all()


def test_without_gradients_the_values_are_the_same(layers, g):
    x = rows(2)
    with torch.no_grad():
        torch.testing.assert_close(layers(g)[0](x, None), plain(layers, g)[0](x))


def saved_bytes(run):
    """What a forward pass keeps for the backward pass, storage by storage."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


def test_recomputed_weights_are_not_kept():
    layers, g, x = GeneratedLayers(3, 20, [(20, 30)]), torch.randn(50, 3), torch.randn(50, 1, 20)
    kept, not_kept = (
        saved_bytes(lambda r=recompute: layers(g, r)[0](x, None)) for recompute in (False, True)
    )
    assert kept - not_kept == 50 * 20 * 30 * 4


def test_programs_start_alike_with_the_variance_of_ordinary_layers():
    layers = GeneratedLayers(64, 50, [(200, 50), (50, 80)], spread=1.0)
    g = torch.cat([torch.ones(40, 1), torch.randn(40, 64)], 1)
    for theta, fan_in in zip(layers.thetas(), (200, 50), strict=True):
        weight = torch.einsum("pr,roi->poi", g, theta)
        common = weight.mean(0)
        # 4,000 weights or more: a variance's relative standard error is sqrt(2 / 4,000) = 0.022.
        assert common.var().item() == pytest.approx(1 / fan_in * (1 + 1 / 40), rel=0.09)
        assert (weight - common).var().item() == pytest.approx(1 / fan_in, rel=0.09)


def test_a_layer_without_the_common_side_is_refused():
    with pytest.raises(ValueError, match="no side of 2 units"):
        GeneratedLayers(3, 2, [(2, 3), (4, 5)])


def test_shared_layers_have_the_same_contract():
    layers = SharedLayers(3, 2, [(4, 2)])
    x, bias = torch.randn(5, 2, 4), torch.randn(2)
    ((theta,),) = layers.thetas()
    torch.testing.assert_close(layers(torch.randn(5, 3))[0](x, bias), x @ theta.mT + bias)


def test_weights_that_are_written_again_have_the_precision_that_they_had():
    torch.manual_seed(0)
    layers, found = GeneratedLayers(3, 2, SHAPES), []
    g, x = torch.randn(5, 3, requires_grad=True), torch.randn(5, 1, 4, requires_grad=True)
    for recompute in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):  # and none around the backward pass
            made = layers(2 * g @ torch.eye(3), recompute)
            total = made[0](x, None).tanh().square().sum()
        found.append(torch.autograd.grad(total, [g, x, layers.basis]))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
