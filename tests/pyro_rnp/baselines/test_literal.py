"""The yardstick computes what the package computes."""

from copy import deepcopy

import pytest
import torch

from pyro_rnp.baselines.literal import LiteralRecursion
from pyro_rnp.recursion import Recursion
from tests.conftest import tiny


@pytest.mark.parametrize("steps", [(3,), (2, 3), (2, 2, 2)])
def test_values_and_gradients_are_the_same(steps):
    recursion = Recursion(tiny(steps=steps)).double()
    literal = LiteralRecursion(deepcopy(recursion))
    z = torch.randn(3, 3, dtype=torch.float64)
    sites = []
    for run in (recursion, literal):
        tree = run(z)
        (tree.canvas.sin().sum() + sum(p.decoding.cos().sum() for p in tree)).backward()
        sites.append(tree.sites())
    for name in sites[0]:
        torch.testing.assert_close(sites[0][name], sites[1][name], rtol=0, atol=1e-12)

    gradients = deepcopy(recursion.hypernets[0])
    for p, q in zip(gradients.parameters(), recursion.hypernets[0].parameters(), strict=True):
        p.data = q.grad
    for name, heads in gradients.heads().items():
        for head, linears in zip(heads, (literal.weights, literal.biases), strict=True):
            if head is None:
                continue
            linear = linears[name.replace(".", "_")]
            got = torch.cat([linear.bias.grad.unsqueeze(0), linear.weight.grad.mT])
            torch.testing.assert_close(got, head.flatten(1), rtol=1e-10, atol=1e-12)
    for p, q in zip(literal.trunk.parameters(), gradients.trunk.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.data, rtol=1e-10, atol=1e-12)


def test_only_the_paper_s_choices():
    others = ({"feedback": "decoding"}, {"composition": "over"}, {"placement": "bicubic"})
    for other in (*others, {"composed": True}):
        with pytest.raises(ValueError, match="paper's feedback and pixel layers"):
            LiteralRecursion(Recursion(tiny(**other)))
