"""The activation against torch's, its derivatives and what it runs under."""

import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch.func import grad, vmap

from pyro_rnp.activations import ELU, elu


def numbers(dtype=torch.float64):
    ends = [-1e4, -100.0, -20.0, -1e-3, -1e-9, -0.0, 0.0, 1e-9, 1e-3, 20.0, 1e4]
    return torch.cat([torch.tensor(ends, dtype=dtype), torch.linspace(-9, 9, 1001, dtype=dtype)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_equals_torch_s_to_rounding(dtype):
    x = numbers(dtype)
    error = (elu(x) - F.elu(x)).abs()
    assert elu(x).dtype == dtype
    coarse = dtype == torch.bfloat16  # for which numbers near 0 would be lost
    assert (
        error <= 0 if coarse else error <= torch.finfo(dtype).eps * F.elu(x).abs().clamp(min=1)
    ).all()
    assert torch.equal(ELU()(x), elu(x))


def test_its_derivatives_are_torch_s():
    found, wanted = (numbers().requires_grad_() for _ in range(2))
    for f, x in ((elu, found), (F.elu, wanted)):
        (first,) = torch.autograd.grad(f(x).sin().sum(), x, create_graph=True)
        x.slopes = first.detach(), *torch.autograd.grad(first.square().sum(), x)
    for mine, theirs in zip(found.slopes, wanted.slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(elu, x)
    assert torch.autograd.gradgradcheck(elu, x)


def test_what_is_not_finite_stays_so():
    x = torch.tensor([torch.nan, torch.inf, -torch.inf], requires_grad=True)
    y = elu(x)
    y.sum().backward()
    assert y[0].isnan()
    assert y[1:].tolist() == [torch.inf, -1.0]
    assert x.grad[1:].tolist() == [1.0, 0.0]


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_it_runs_under_transforms_and_compilers():
    x = numbers()
    slope = vmap(grad(elu))(x)
    torch.testing.assert_close(slope, x.clamp(max=0).exp())
    torch.testing.assert_close(torch.compile(elu, backend="eager", fullgraph=True)(x), elu(x))
    torch.testing.assert_close(torch.jit.trace(elu, x)(x), elu(x))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is")  # which torch uses for a jvp
def test_it_has_forward_derivatives():
    x = numbers()
    with fwAD.dual_level():
        slope = fwAD.unpack_dual(elu(fwAD.make_dual(x, torch.ones_like(x)))).tangent
    torch.testing.assert_close(slope, x.clamp(max=0).exp())
