"""A guide that has seen masks: q(z^K | the pixels that are seen)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp.config import RNPConfig
from pyro_rnp.missing import split
from pyro_rnp.registry import GUIDES


class MaskedGuide(nn.Module):
    """A guide of the registry `GUIDES` whose encoder reads one channel more: the mask.

    The encoder has half the channels and units of that of whole images, for speed.

    It stands beside the guide of whole images and leaves that as it is. It learns by
    `inference.objectives.masked_loss` to cover the programs of all images that look alike where
    pixels are seen, and is a proposal: an approximation, to be weighted by the model.

    Args:
        config: names the guide, `masked_guide`, and gives its encoder's shape.

    Raises:
        ValueError: if the guide refuses the configuration, runs the model on images, or is a point.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        c = config
        more = replace(
            c,
            channels=c.channels + 1,
            encoder_colour=False,
            encoder_channels=max(1, c.encoder_channels // 2),
            encoder_units=max(1, c.encoder_units // 2),
        )
        self.top = GUIDES.make(str(c.masked_guide), more)
        if hasattr(self.top, "attach"):
            raise ValueError(
                f"masked_guide must be one that reads images alone, got {config.masked_guide!r}, "
                "which runs the model; take flow."
            )

        if str(c.masked_guide).partition(":")[0] == "map":
            raise ValueError("masked_guide must have a density, which map has not; take flow.")

    def posterior(self, images: Float[Tensor, "n c h w"]) -> Distribution:
        """The approximate posterior q(z^K | the pixels that are seen).

        Args:
            images: (N, C, H, W) in [0, 1], NaN where a pixel is hidden.

        Returns:
            A distribution with batch shape (N,) and event shape (|z|,).
        """
        pixels, seen = split(images)
        shown = torch.ones_like(pixels) if seen is None else seen.to(pixels)
        return self.top.posterior(torch.cat([pixels, shown.mean(1, keepdim=True)], 1))
