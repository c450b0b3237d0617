"""The encoder's shapes, for sizes that do not halve evenly too."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from pyro_rnp import RNPConfig
from pyro_rnp.encoder import Encoder, ResidualBlock


@pytest.mark.parametrize("size", [5, 28, 33])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("groups", [None, 4])
def test_shapes(size, channels, groups):
    config = RNPConfig(image_size=size, channels=channels, encoder_groups=groups)
    assert Encoder(config, 7)(torch.rand(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("groups", [None, 8])
def test_an_image_does_not_see_its_batch(groups):
    encoder = Encoder(RNPConfig(encoder_groups=groups), 4).double()
    with torch.no_grad():  # residual branches start at zero
        for p in encoder.parameters():
            p.add_(0.05 * torch.randn_like(p))
    images = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    single = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(encoder(images), single)


def test_a_block_normalises_channels_in_groups_ahead_of_each_elu():
    block = ResidualBlock(6, 6, 1, groups=2).double()
    with torch.no_grad():
        for p in block.parameters():
            p.copy_(torch.randn_like(p))
    x = 3 + 2 * torch.randn(2, 6, 5, 5, dtype=torch.float64)

    def normalised(h, norm):
        triples = h.unflatten(1, (2, 3))
        mean = triples.mean((2, 3, 4), keepdim=True)
        variance = triples.var((2, 3, 4), correction=0, keepdim=True)
        unit = ((triples - mean) / (variance + norm.eps).sqrt()).flatten(1, 2)
        return functional.elu(unit * norm.weight[:, None, None] + norm.bias[:, None, None])

    wanted = x + block.conv2(normalised(block.conv1(normalised(x, block.norm1)), block.norm2))
    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("groups", [0, 5])
def test_groups_that_do_not_fit_are_refused(groups):
    with pytest.raises(ValueError, match=f"encoder_groups must divide the 32 .* got {groups}"):
        RNPConfig(encoder_groups=groups)


@pytest.mark.parametrize(("halvings", "side"), [(1, 14), (2, 7), (3, 4), (9, 1)])
def test_the_first_blocks_halve_the_resolution(halvings, side):
    encoder = Encoder(RNPConfig(encoder_halvings=halvings), 4)
    assert nn.Sequential(*list(encoder)[:5])(torch.rand(1, 1, 28, 28)).shape[-1] == side


def test_a_gain_keeps_the_differences_between_images_at_the_start():
    hues = torch.tensor([[1.0, 0.2, 0.5], [0.4, 1.0, 0.3], [0.6, 0.5, 1.0]])
    images = torch.zeros(3, 3, 16, 16)
    images[:, :, 5:11, 4:12] = hues[:, :, None, None]
    config = RNPConfig.for_images(16, channels=3, encoder_colour=False)
    assert config.encoder_gain == 1.73
    spread = {}
    for gain in (1.0, config.encoder_gain):
        torch.manual_seed(0)
        encoder = Encoder(replace(config, encoder_gain=gain), 4)
        spread[gain] = encoder(images).std(0).mean().item()
    assert spread[1.0] < 0.02, "colours are all but lost"
    assert spread[1.73] > 5 * spread[1.0]


def test_a_gain_of_one_leaves_the_start_as_it_is():
    torch.manual_seed(0)
    first = Encoder(RNPConfig(), 4)
    torch.manual_seed(0)
    second = Encoder(RNPConfig(encoder_gain=2.0), 4)
    for (name, one), two in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(two, 2 * one if name.endswith("weight") else one)
    with pytest.raises(ValueError, match="encoder_gain must be positive"):
        RNPConfig(encoder_gain=0.0)


def test_colours_reach_the_output_straight():
    images = torch.zeros(2, 3, 16, 16)
    images[:, 0, 5:11, 4:12] = 0.5
    grey = torch.full((1, 3, 16, 16), 0.5)
    assert RNPConfig.for_images(16, channels=3).encoder_colour
    assert not RNPConfig.for_images(16).encoder_colour
    config = RNPConfig.for_images(16, channels=3)
    encoder = Encoder(config, 4)
    without = nn.Sequential(*encoder)
    share = torch.tensor([2.0, -1.0, -1.0])
    torch.testing.assert_close(
        encoder(images) - without(images), (share @ encoder.colour.T).expand(2, 4)
    )
    torch.testing.assert_close(encoder(grey), without(grey))
    blank = encoder(torch.zeros(1, 3, 16, 16))
    assert blank.isfinite().all()
