"""The yardstick computes what the package computes."""

import pytest
import torch

from inference.literal import LiteralRecursion
from pyro_rnp.recursion import Recursion
from tests.conftest import tiny


@pytest.mark.parametrize("steps", [(3,), (2, 3), (2, 2, 2)])
def test_values_and_gradients_are_the_same(steps):
    recursion = Recursion(tiny(steps=steps)).double()
    literal = LiteralRecursion(recursion)
    z = torch.randn(3, 3, dtype=torch.float64)
    grads = []
    for run in (recursion, literal):
        tree = run(z)
        loss = tree.canvas.sin().sum() + sum(p.decoding.cos().sum() for p in tree)
        grads.append((tree.sites(), torch.autograd.grad(loss, list(recursion.parameters()))))
    for name in grads[0][0]:
        torch.testing.assert_close(grads[0][0][name], grads[1][0][name], rtol=0, atol=1e-12)
    for a, b in zip(grads[0][1], grads[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_only_the_paper_s_choices():
    with pytest.raises(ValueError, match="paper's feedback and pixel layers"):
        LiteralRecursion(Recursion(tiny(feedback="decoding")))
