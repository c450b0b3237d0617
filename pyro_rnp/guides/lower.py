"""Guides of what is random below the top: q(z/... | ...) and q(a/... | ...).

A lower guide is a module, made from the configuration, that corrects what the generative step
predicts. Its call takes the kind of site, a path, the prediction, the model's scale, a glimpse
and what `look` made of the images, and gives the mean and scale of a normal distribution.
`glimpses` says whether it wants glimpses of what is not yet drawn.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.config import RNPConfig
from pyro_rnp.encoder import Encoder
from pyro_rnp.parse_tree import Path
from pyro_rnp.priors import start_as_identity
from pyro_rnp.registry import LOWER_GUIDES
from pyro_rnp.sites import Kind


class _Corrections(nn.Module):
    """prediction + scale * shift, scale * exp(stretch): both from a network that starts at zero.

    Shift and stretch count in the model's own scales, so that at the start the guide is what the
    model predicts, and the KL of a site depends on them alone.
    """

    def __init__(self, config: RNPConfig, seen: int) -> None:
        super().__init__()
        self.networks, self.places = nn.ModuleDict(), nn.ParameterDict()
        units = config.encoder_units
        sizes: list[tuple[Kind, int]] = [("z", config.program_size), ("a", 6)]
        for depth, (kind, size) in product(range(1, config.depth + 1), sizes):
            if config.random(kind, depth):
                last = nn.Linear(units, 2 * size)
                start_as_identity(last)
                self.networks[f"{kind}{depth}"] = nn.Sequential(
                    nn.Linear(size + seen + units, units), nn.ELU(), last
                )
                steps = config.steps[depth - 1]
                self.places[f"{kind}{depth}"] = nn.Parameter(torch.randn(steps, units))

    def correct(
        self, kind: Kind, path: Path, predicted: Tensor, scale: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        name = f"{kind}{len(path)}"
        place = self.places[name][path[-1]].expand(len(predicted), -1)
        shift, stretch = self.networks[name](torch.cat([predicted, seen, place], -1)).chunk(2, -1)
        return predicted + scale * shift, scale * stretch.clamp(-10, 10).exp()


@LOWER_GUIDES.add("top_down")
class TopDown(_Corrections):
    """The generative step's prediction, corrected by what an encoder of its own sees."""

    glimpses = False

    def __init__(self, config: RNPConfig) -> None:
        super().__init__(config, config.encoder_units)
        self.encoder = Encoder(config, config.encoder_units)

    def look(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n units"]:
        """Features of the images."""
        return F.elu(self.encoder(images))

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


@LOWER_GUIDES.add("bottom_up")
class BottomUp(_Corrections):
    """The prediction, corrected by a glimpse of the image minus the canvas so far.

    The glimpse is of the place that the step is about to fill. Where the feedback is the
    children's canvas, prediction errors so pass from children to parents: the paper's future
    direction. Where it is the parent's own decoding, that stands for what children draw. What a
    part finds left to explain is the image that its own sub-parts look at.
    """

    glimpses = True

    def __init__(self, config: RNPConfig) -> None:
        units = config.encoder_units
        super().__init__(config, units)
        pixels = config.channels * config.patch_size**2
        self.eye = nn.Sequential(nn.Linear(pixels, units), nn.ELU(), nn.Linear(units, units))

    def look(self, images: Float[Tensor, "n c h w"]) -> None:
        """Nothing; it sees glimpses alone."""

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
        return self.correct(kind, path, predicted, scale, F.elu(self.eye(glimpsed.flatten(1))))
