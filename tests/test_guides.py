"""The encoder's posterior."""

import torch

from pyro_rnp.guides import DiagonalNormal
from tests.conftest import tiny


def test_the_posterior_is_a_proper_diagonal_normal(images):
    guide = DiagonalNormal(tiny())
    posterior = guide.posterior(images)
    assert (posterior.batch_shape, posterior.event_shape) == ((4,), (3,))
    assert (posterior.base_dist.scale > 0).all()
    loc = guide.encoder(images)[:, :3]
    torch.testing.assert_close(posterior.mean, loc)


def test_the_scale_stays_positive_when_the_encoder_says_almost_nothing(images):
    guide = DiagonalNormal(tiny())
    with torch.no_grad():
        guide.encoder[-1].bias[3:] = -1e4
    assert (guide.posterior(images).base_dist.scale > 0).all()
