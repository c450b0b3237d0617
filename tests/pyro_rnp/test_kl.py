"""The KL divergence of a site: in closed form where there is one, else from a sample."""

import pyro.distributions as dist
import pytest
import torch

from pyro_rnp import RNP
from pyro_rnp.kl import site_kl
from tests.conftest import tiny

P = dist.Normal(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([1.0, 2.0, 0.5])).to_event(1)


@pytest.mark.parametrize("guide", ["diagonal", "full", "lowrank"])
def test_the_kl_of_normals_is_closed_and_the_mean_of_its_samples(guide):
    q = RNP(tiny(guide=guide)).guide.top.posterior(torch.rand(1, 1, 8, 8))
    z = q.sample((20_000,))
    sampled = q.log_prob(z) - P.log_prob(z)
    found = site_kl(q, P, z[0])
    assert found.shape == (1,)
    torch.testing.assert_close(site_kl(q, P, z[1]), found, rtol=0, atol=0)
    error = (sampled.std(0) / len(z) ** 0.5).item()
    assert found.item() == pytest.approx(sampled.mean().item(), abs=5 * error)


def test_without_a_closed_form_the_kl_is_that_of_the_sample():
    point = dist.Delta(torch.zeros(2, 3), event_dim=1)
    torch.testing.assert_close(site_kl(point, P, point.v), -P.log_prob(point.v))
