"""Generated layers against plain autograd: values, gradients, and odd uses of the graph."""

import pytest
import torch

from pyro_rnp.generated import GeneratedLinear, SharedLinear


def plain(layer, g, x):
    """The same layer as one product a program, by plain autograd."""
    weight = layer.weight(g).view(len(g), layer.fan_out, layer.fan_in)
    y = torch.einsum("poi,pni->pno", weight, x)
    return y if layer.bias is None else y + layer.bias(g).unsqueeze(1)


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def layer(request):
    return GeneratedLinear(3, 4, 2, bias=request.param).double()


@pytest.fixture
def g():
    return torch.randn(5, 3, dtype=torch.float64, requires_grad=True)


def rows(n):
    return torch.randn(5, n, 4, dtype=torch.float64, requires_grad=True)


def test_several_uses_equal_plain_autograd(layer, g):
    x, y = rows(1), rows(2)
    mix = torch.randn(4, 2, dtype=torch.float64)

    def loss(f):
        first = f(x)
        again = f(torch.tanh(first @ mix.mT))  # a recurrence: the output goes back in
        return (first**2).sum() + again.sin().sum() + f(y).cos().sum()

    inputs = [g, x, y, *layer.parameters()]
    got = torch.autograd.grad(loss(layer(g)), inputs)
    wanted = torch.autograd.grad(loss(lambda v: plain(layer, g, v)), inputs)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradcheck(layer, g):
    def f(g, x, y):
        apply = layer(g)
        return apply(x), apply(y)

    assert torch.autograd.gradcheck(f, (g, rows(1), rows(3)))


def test_a_backward_pass_can_be_repeated(layer, g):
    f, x = layer(g), rows(1)
    loss = f(x).square().sum() + f(2 * x).sum()
    first = torch.autograd.grad(loss, g, retain_graph=True)
    second = torch.autograd.grad(loss, g)
    torch.testing.assert_close(first, second)


def test_a_backward_pass_to_the_inputs_alone_leaves_nothing_behind(layer, g):
    f, x = layer(g), rows(1)
    loss = f(x).square().sum()
    torch.autograd.grad(loss, x, retain_graph=True)  # never reaches the weight
    got = torch.autograd.grad(loss, g)
    wanted = torch.autograd.grad(plain(layer, g, x).square().sum(), g)
    torch.testing.assert_close(got, wanted)


def test_an_unused_layer_has_no_gradient(layer, g):
    layer(g)
    x = rows(1)
    (grad,) = torch.autograd.grad(x.sum() + 0 * g.sum(), [g])
    assert grad.eq(0).all()


def test_a_second_derivative_is_refused_and_not_wrong(layer, g):
    loss = layer(g)(rows(1)).square().sum()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(loss, g, create_graph=True)


def test_without_gradients_the_values_are_the_same(layer, g):
    x = rows(2)
    with torch.no_grad():
        torch.testing.assert_close(layer(g)(x), plain(layer, g, x))


def test_programs_start_alike_with_the_variance_of_an_ordinary_layer():
    layer = GeneratedLinear(64, 200, 50, spread=1.0)
    g = torch.randn(40, 64)
    weight = layer.weight(g)
    common = weight.mean(0)
    # 10,000 weights: the relative standard error of a variance is sqrt(2 / 10,000) = 0.014.
    assert common.var().item() == pytest.approx(1 / 200 * (1 + 1 / 40), rel=0.06)
    assert (weight - common).var().item() == pytest.approx(1 / 200, rel=0.06)
    assert layer.bias(g).mean().abs() < 0.05


def test_a_shared_layer_has_the_same_contract():
    layer = SharedLinear(3, 4, 2)
    x = torch.randn(5, 2, 4)
    torch.testing.assert_close(layer(torch.randn(5, 3))(x), x @ layer.weight.mT + layer.bias)
