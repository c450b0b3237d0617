"""The contract of a guide of random sites below the top, and corrections of predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pyro_rnp.activations import ELU
from pyro_rnp.arguments import whole
from pyro_rnp.config import RNPConfig
from pyro_rnp.parse_tree import Path
from pyro_rnp.sites import Kind


class LowerGuide(nn.Module, ABC):
    """A guide of random programs and actions: the contract of `registry.LOWER_GUIDES`.

    A lower guide that is chosen by name is made as `LowerGuide(config, **options)`; an object may
    be made in any way. A class need not derive from this one.

    Laws, which `pyro_rnp.check` tries for each random kind of site and each level:

    - mean and standard deviation have the shape of the prediction; the latter is positive;
    - an image's proposal depends on that image alone, and is the same at each call: a lower guide
      is called inside of the plate of images, where it may draw no site; arguments stay as they
      are;
    - numbers are finite, in the precision and on the device of the arguments;
    - all that is learned is a parameter of the module and gets a finite gradient.
    """

    glimpses: bool
    """Whether a call receives glimpses of the image minus the canvas so far."""

    @abstractmethod
    def look(self, images: Float[Tensor, "n c h w"]) -> Any:
        """Features that every call receives, computed once a run.

        Args:
            images: (N, C, H, W) in [0, 1], 0 where a pixel is missing.
        """

    @abstractmethod
    def forward(
        self,
        kind: Kind,
        path: Path,
        predicted: Float[Tensor, "mn d"],
        scale: Float[Tensor, ""] | Float[Tensor, "mn d"],
        glimpsed: Float[Tensor, "mn c s s"] | None,
        features: Any,
    ) -> tuple[Float[Tensor, "mn d"], Float[Tensor, "mn d"]]:
        """Propose a normal distribution for a site of M siblings in each of N images.

        Args:
            kind: "z" for programs, "a" for actions.
            path: the path of one of the siblings, which differ in the steps above the last.
            predicted: the generative step's prediction, (M * N, d): programs, or actions before
                they are bounded.
            scale: the model's standard deviation around the prediction, a number or, where
                `learn_scales` is "predicted", (M * N, d).
            glimpsed: (M * N, C, S, S), a glimpse of the image minus the canvas so far at the place
                of the step, to which missing pixels add 0; None unless `glimpses`.
            features: the result of `look`.

        Returns:
            Mean and standard deviation, (M * N, d) each.
        """


class Corrections(LowerGuide):
    """A lower guide that corrects predictions: mean + scale * shift and scale * exp(stretch).

    Shift and stretch come from networks, one for each kind of site and level, which start at zero.
    So the guide starts as the model's own prediction, and the KL of a site depends on shift and
    stretch alone, since both count in the model's scale.

    Args:
        config: says which sites are random.
        units: width of the networks and length of the features of the image that they receive, in
            [1, 10,000]; None: `encoder_units`.

    Raises:
        ValueError: if `units` is out of its range.
    """

    def __init__(self, config: RNPConfig, *, units: int | None = None) -> None:
        super().__init__()
        units = config.encoder_units if units is None else units
        whole(1, 10_000, units=units)
        self.units = units
        self.networks, self.places = nn.ModuleDict(), nn.ParameterDict()
        """Networks by kind and depth, and embeddings of the steps, (steps, units), likewise."""
        sizes: list[tuple[Kind, int]] = [("z", config.program_size), ("a", 6)]
        for depth, (kind, size) in product(range(1, config.depth + 1), sizes):
            if config.random(kind, depth):
                last = nn.Linear(units, 2 * size)
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
                self.networks[f"{kind}{depth}"] = nn.Sequential(
                    nn.Linear(size + 2 * units, units), ELU(), last
                )
                steps = config.steps[depth - 1]
                self.places[f"{kind}{depth}"] = nn.Parameter(torch.randn(steps, units))

    def correct(
        self, kind: Kind, path: Path, predicted: Tensor, scale: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Correct a prediction.

        Args:
            kind: as for `forward`.
            path: as for `forward`.
            predicted: as for `forward`.
            scale: as for `forward`.
            seen: features of the image, (M * N, units).

        Returns:
            Mean and standard deviation, (M * N, d) each.
        """
        name = f"{kind}{len(path)}"
        network: Any = self.networks[name]
        first, rest = network[0], network[1:]
        place, inputs = self.places[name][path[-1]], torch.cat([predicted, seen], -1)
        # The place is one for all rows, so its share of the first layer is a bias.
        own, shared = first.weight.split([inputs.shape[-1], len(place)], -1)
        hidden = functional.linear(inputs, own, functional.linear(place, shared, first.bias))
        shift, stretch = rest(hidden).chunk(2, -1)
        return predicted + scale * shift, scale * stretch.clamp(-10, 10).exp()
