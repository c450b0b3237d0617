"""The encoder: images to a feature vector, through residual blocks and fully connected layers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.activations import ELU, elu
from pyro_rnp.compiling import Compiled
from pyro_rnp.config import RNPConfig


class ResidualBlock(nn.Module):
    """x -> skip(x) + conv(elu(conv(elu(x)))), where skip is the identity or a 1x1 convolution.

    The second convolution starts at zero, so the block starts as its skip. There is no batch
    normalisation, so an image's features do not depend on its batch.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        stride: 1, or 2 to halve the resolution.
        groups: groups of channels that are normalised together ahead of each ELU (Wu and He, 2018,
            "Group normalization"); None: no normalisation. Where their number changes, as behind
            the image, the input stays as it is.
    """

    def __init__(
        self, channels_in: int, channels: int, stride: int, groups: int | None = None
    ) -> None:
        super().__init__()

        def norm(inner: bool = True) -> nn.Module:
            return nn.GroupNorm(groups, channels) if groups and inner else nn.Identity()

        self.norm1, self.norm2 = norm(channels_in == channels), norm()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        same = channels_in == channels and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        hidden = self.conv1(elu(self.norm1(x)))
        return self.skip(x) + self.conv2(elu(self.norm2(hidden)))


class Encoder(nn.Sequential):
    """Images (N, C, H, W) in [0, 1] to features (N, out): residual and fully connected layers.

    The first blocks halve the resolution, three of them in the paper's encoder. With
    `encoder_colour` the share of each channel in the image is added by one more linear layer.

    Source: the paper, section 2.1.

    Args:
        config: gives the image's shape and, by the fields that begin with `encoder_`, the
            network's.
        out: length of the features.
    """

    def __init__(self, config: RNPConfig, out: int) -> None:
        c = config
        layers: list[nn.Module] = []
        channels, size = c.channels, c.image_size
        for i in range(c.encoder_blocks):
            stride = 2 if i < c.encoder_halvings else 1
            layers.append(ResidualBlock(channels, c.encoder_channels, stride, c.encoder_groups))
            channels, size = c.encoder_channels, -(-size // stride)
        layers += [ELU(), nn.Flatten()]
        width = channels * size**2
        for _ in range(c.encoder_layers - 1):
            layers += [nn.Linear(width, c.encoder_units), ELU()]
            width = c.encoder_units
        super().__init__(*layers, nn.Linear(width, out))
        self.colour: nn.Parameter | None = None
        if c.encoder_colour:
            self.colour = nn.Parameter(nn.Linear(c.channels, out).weight.detach())
        if c.encoder_gain != 1:
            with torch.no_grad():
                for weight in self.parameters():
                    if weight.dim() > 1:  # not a bias
                        weight.mul_(c.encoder_gain)

        self._compiled: Compiled | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    def compile(self, inference: bool = True, **options: Any) -> None:
        """Compile the network in place.

        Args:
            inference: whether it is compiled for use without gradients too; by default true.
            options: as `torch.compile` takes them.
        """
        self._compiled = Compiled(torch.compile(super().forward, **options), inference)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out"]:
        compiled = self._compiled
        run = compiled.run if compiled is not None and compiled.now() else super().forward
        features = run(x)
        if self.colour is None:
            return features
        intensity = x.sum((-2, -1))
        share = intensity / intensity.sum(-1, keepdim=True).clamp(min=1e-6)
        return features + (x.shape[1] * share - 1) @ self.colour.mT
