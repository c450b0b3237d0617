"""A lower guide that sees what the canvas does not yet explain."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.activations import ELU, elu
from pyro_rnp.config import RNPConfig
from pyro_rnp.guides.lower import Corrections
from pyro_rnp.parse_tree import Path
from pyro_rnp.registry import LOWER_GUIDES
from pyro_rnp.sites import Kind


@LOWER_GUIDES.add("bottom_up")
class BottomUp(Corrections):
    """The generative step's prediction, corrected from a glimpse of what is left to explain.

    The glimpse shows the image minus the canvas so far, at the place that the step is about to
    fill. With the feedback `canvas` it holds the children's prediction errors, which the paper
    names as a future direction; with the feedback `decoding` a part's own decoding stands for its
    children's canvas. The glimpse at a part's place is the image that its sub-parts look at.

    Args:
        config: gives the patch size; see `Corrections`.
        units: width of its networks; see `Corrections`.
    """

    glimpses = True

    def __init__(self, config: RNPConfig, *, units: int | None = None) -> None:
        super().__init__(config, units=units)
        pixels = config.channels * config.patch_size**2
        self.eye = nn.Sequential(
            nn.Linear(pixels, self.units), ELU(), nn.Linear(self.units, self.units)
        )

    def look(self, images: Float[Tensor, "n c h w"]) -> None:
        """Nothing: a call sees its glimpse alone."""

    def forward(
        self,
        kind: Kind,
        path: Path,
        predicted: Tensor,
        scale: Tensor,
        glimpsed: Tensor | None,
        features: None,
    ) -> tuple[Tensor, Tensor]:
        assert glimpsed is not None
        return self.correct(kind, path, predicted, scale, elu(self.eye(glimpsed.flatten(1))))
