"""A flat VAE with the encoder of the recursive neural program, to hold the recursion against."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

from pyro_rnp.config import RNPConfig
from pyro_rnp.guides import Guide
from pyro_rnp.likelihoods import NormalLikelihood
from pyro_rnp.params import register
from pyro_rnp.priors import StandardNormal


class FlatModel(nn.Module):
    """p(x, z) with one MLP from z to the image, as many layers and units as the encoder's."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.config, self.prior = config, StandardNormal(config)
        self.likelihood = NormalLikelihood(config)
        layers: list[nn.Module] = []
        width = config.program_size
        for _ in range(config.encoder_layers - 1):
            layers += [nn.Linear(width, config.encoder_units), nn.ELU()]
            width = config.encoder_units
        layers += [nn.Linear(width, config.channels * config.image_size**2), nn.Sigmoid()]
        self.decoder = nn.Sequential(*layers)

    def forward(self, images: Tensor | None = None, num_images: int = 1) -> Tensor:
        """The canvas, (N, C, H, W); `images` are observed at `x`."""
        register(self)
        with pyro.plate("images", num_images if images is None else len(images), dim=-1):
            canvas = self.decode(pyro.sample("z", self.prior()))
            pyro.sample("x", self.likelihood(canvas), obs=images)
        return canvas

    def decode(self, z: Tensor) -> Tensor:
        """Programs (N, |z|) to canvases (N, C, H, W)."""
        c = self.config
        return self.decoder(z).view(-1, c.channels, c.image_size, c.image_size)


class FlatVAE(nn.Module):
    """`model`, `guide`, `parse` and `sample` as an `RNP` has them; canvases instead of trees."""

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.config, self.model, self.guide = config, FlatModel(config), Guide(config)

    def parse(self, images: Tensor) -> Tensor:
        """Reconstruct images at the posterior's mean."""
        return self.model.decode(self.guide.posterior(images).mean)

    def sample(self, num_images: int) -> Tensor:
        """Draw images from the prior."""
        return self.model.decode(self.model.prior().sample((num_images,)))
