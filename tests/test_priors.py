"""The standard normal prior."""

import torch

from pyro_rnp.priors import StandardNormal
from tests.conftest import tiny


def test_it_is_standard_normal():
    prior = StandardNormal(tiny())()
    assert (prior.batch_shape, prior.event_shape) == ((), (3,))
    z = torch.tensor([0.5, -1.0, 2.0])
    wanted = (-0.5 * z**2).sum() - 1.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(prior.log_prob(z), wanted)
