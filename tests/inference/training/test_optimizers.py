"""Muon, against singular values and against torch's own."""

import re
from copy import deepcopy

import pytest
import torch
from torch import nn

from inference.training.optimizers import Muon, muon, orthogonal
from pyro_rnp import RNP
from tests.conftest import tiny


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (7, 7)])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    found = orthogonal(matrices)
    for before, after in zip(matrices, found, strict=True):
        u, values, v = torch.linalg.svd(before, full_matrices=False)
        inner = u.T @ after @ v.T
        torch.testing.assert_close(inner, inner.diagonal().diag(), rtol=0, atol=1e-10)
        wide = inner.diagonal()[values > 0.01 * before.norm()]
        assert len(wide) >= 4
        assert (wide > 0.6).all()
        assert (wide < 1.3).all()
    assert torch.equal(orthogonal(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))


def test_its_steps_are_those_of_torch_to_the_precision_of_the_latter():
    torch.manual_seed(0)
    shapes = [(6, 20), (20, 6), (6, 20), (9, 9)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    mine = Muon(ours, [], lr=0.01)
    # torch scales a step to 0.2 of the rate
    reference = torch.optim.Muon(theirs, 0.05, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        mine.step()
        reference.step()
    for p, q, at in zip(ours, theirs, start, strict=True):
        assert (p - q).norm() < 0.02 * (q - at).norm(), "bfloat16 has 8 bits"
        assert (p - at).norm() > 0.1


def test_a_step_has_the_learning_rate_as_its_root_mean_square():
    p = nn.Parameter(torch.randn(30, 80))
    before = p.detach().clone()
    p.grad = torch.linalg.qr(torch.randn(80, 30)).Q.T
    Muon([p], [], lr=0.01).step()
    assert (p - before).square().mean().sqrt().item() == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("weights", ["factored", "mixed"])
def test_what_is_no_single_matrix_goes_by_adam(weights):
    rnp = RNP(tiny(prior="vamp:components=3", weights=weights, stochastic="both"))
    optimizer = muon(rnp, 0.01)
    matrices, others = (group["params"] for group in optimizer.param_groups)
    names = {id(p): name for name, p in rnp.named_parameters()}
    assert sorted(map(id, matrices + others)) == sorted(names)
    elsewhere = re.compile(r"prior|scales|vectors|gains|basis")
    assert all(p.dim() > 1 and not elsewhere.search(names[id(p)]) for p in matrices)
    assert all(p.dim() < 2 or elsewhere.search(names[id(p)]) for p in others)
    kinds = {"factored": "gains", "mixed": "basis"}
    assert any(kinds[weights] in names[id(p)] for p in others)
    twin = [nn.Parameter(p.detach().clone()) for p in others]
    reference = torch.optim.Adam(twin, 0.01, fused=True)
    for _ in range(2):
        for p in matrices:
            p.grad = torch.randn_like(p)
        for p, q in zip(others, twin, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        optimizer.step()
        reference.step()
    for p, q in zip(others, twin, strict=True):
        assert torch.equal(p, q)


def test_a_step_that_is_not_finite_changes_nothing():
    p, q, other = (nn.Parameter(torch.randn(shape)) for shape in [(4, 6), (4, 6), (3,)])
    optimizers = Muon([p], [other], 0.1), Muon([q], [], 0.1)
    with torch.no_grad():
        q.copy_(p)
    for bad in (False, True, False):
        good = torch.randn_like(p)
        p.grad, other.grad = good.clone(), torch.ones(3)
        optimizers[0].found_inf = torch.tensor(float(bad))
        before = p.detach().clone(), other.detach().clone()
        if bad:
            p.grad[1, 2], other.grad[0] = torch.nan, torch.inf
        optimizers[0].step()
        if bad:
            assert torch.equal(p, before[0])
            assert torch.equal(other, before[1])
        else:
            q.grad = good
            optimizers[1].step()
            assert torch.equal(p, q)


def test_it_continues_from_its_state():
    p, q = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(4, 6))
    first = Muon([p], [], 0.1)
    grads = torch.randn(2, 4, 6)
    p.grad = grads[0]
    assert first.step(lambda: 3.0) == 3.0
    second = Muon([q], [], 0.2)
    second.load_state_dict(deepcopy(first.state_dict()))
    with torch.no_grad():
        q.copy_(p)
    for some, optimizer in ((p, first), (q, second)):
        some.grad = grads[1]
        optimizer.step()
    assert torch.equal(p, q)
    assert second.param_groups[0]["lr"] == 0.1
