"""The Normal likelihood weighs squared error by 1 / (2 sigma^2)."""

import torch

from pyro_rnp.likelihoods import NormalLikelihood
from tests.conftest import tiny


def test_squared_error_in_nats():
    canvas, x = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    p = NormalLikelihood(tiny(sigma=0.25))(canvas)
    assert (p.batch_shape, p.event_shape) == ((3,), (1, 8, 8))
    wanted = -(x - canvas).square().sum((1, 2, 3)) / (2 * 0.25**2)
    torch.testing.assert_close(p.log_prob(x) - p.log_prob(canvas), wanted)
