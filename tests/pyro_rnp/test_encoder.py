"""The encoder's shapes, for sizes that do not halve evenly too."""

import pytest
import torch
from torch import nn

from pyro_rnp import RNPConfig
from pyro_rnp.encoder import Encoder


@pytest.mark.parametrize("size", [5, 28, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(size, channels):
    config = RNPConfig(image_size=size, channels=channels)
    assert Encoder(config, 7)(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_an_image_does_not_see_its_batch():
    encoder = Encoder(RNPConfig(), 4).double()
    with torch.no_grad():  # residual branches start at zero
        for p in encoder.parameters():
            p.add_(0.05 * torch.randn_like(p))
    images = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    single = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(encoder(images), single)


@pytest.mark.parametrize(("halvings", "side"), [(1, 14), (2, 7), (3, 4), (9, 1)])
def test_the_first_blocks_halve_the_resolution(halvings, side):
    encoder = Encoder(RNPConfig(encoder_halvings=halvings), 4)
    assert nn.Sequential(*list(encoder)[:5])(torch.rand(1, 1, 28, 28)).shape[-1] == side
