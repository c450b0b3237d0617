"""A lower guide that sees the whole image and not what the program has drawn."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from pyro_rnp.activations import elu
from pyro_rnp.config import RNPConfig
from pyro_rnp.encoder import Encoder
from pyro_rnp.guides.lower import Corrections
from pyro_rnp.parse_tree import Path
from pyro_rnp.registry import LOWER_GUIDES
from pyro_rnp.sites import Kind


@LOWER_GUIDES.add("top_down")
class TopDown(Corrections):
    """The generative step's prediction, corrected from an encoding of the whole image.

    Args:
        config: gives the encoder's shape; see `Corrections`.
        units: width of its networks; see `Corrections`.
    """

    glimpses = False

    def __init__(self, config: RNPConfig, *, units: int | None = None) -> None:
        super().__init__(config, units=units)
        self.encoder = Encoder(config, self.units)

    def look(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n units"]:
        return elu(self.encoder(images))

    def forward(
        self,
        kind: Kind,
        path: Path,
        predicted: Tensor,
        scale: Tensor,
        glimpsed: Tensor | None,
        features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        siblings = len(predicted) // len(features)
        return self.correct(kind, path, predicted, scale, features.repeat(siblings, 1))
