"""Evidence of a query: pixels as far as a mask shows them, and values of sites by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from pyro_rnp import RNP
from pyro_rnp.affine import FIELDS, UNITS, codomain
from pyro_rnp.arguments import whole
from pyro_rnp.checks import Images, as_images
from pyro_rnp.config import RNPConfig
from pyro_rnp.sites import is_random, sites

Side = Literal["left", "right", "top", "bottom"]
TOLERANCE = 0.02
"""Default standard deviation of a determined site around its given value, as a share of the range
of its numbers."""


def read_sites(path: Path) -> dict[str, Tensor]:
    """Read sites and their values from a JSON file.

    Args:
        path: a file like `{"a/0": [...], "z/1": [...]}`: a list of numbers, a list of such lists
            for several images, or an action as a parse has it, `{"scale_x": ..., ...}`.

    Returns:
        Float tensors by site. `query` checks that the sites exist and the values fit.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: in one sentence, if it does not hold sites and lists of numbers.
    """
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} must hold sites and their numbers, {{"a/0": [...]}}.')
    values = {}
    for name, value in found.items():
        if isinstance(value, dict) and value.keys() == set(FIELDS):
            value = [value[field] for field in FIELDS]
        try:
            values[name] = torch.tensor(value, dtype=torch.float)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"{path}: {name} must be a list of numbers, or an action as a parse has it, "
                f"with {', '.join(FIELDS)}."
            ) from None
    return values


def half_mask(side: Side, size: int) -> Bool[Tensor, "{size} {size}"]:
    """Return a mask that hides one half of an image.

    Args:
        side: the half that is hidden. Of an odd size, the middle row or column belongs to the right
            or bottom half.
        size: height and width in pixels.

    Returns:
        True where a pixel is seen.

    Raises:
        ValueError: for another side.

    >>> half_mask("right", 4)[0].tolist()
    [True, True, False, False]
    """
    if side not in get_args(Side):
        raise ValueError(f"side must be one of {', '.join(get_args(Side))}; got {side}.")
    seen, middle = torch.ones(size, size, dtype=torch.bool), size // 2
    rows = {"top": slice(middle), "bottom": slice(middle, None)}.get(side, slice(None))
    columns = {"left": slice(middle), "right": slice(middle, None)}.get(side, slice(None))
    seen[rows, columns] = False
    return seen


@dataclass(frozen=True)
class Evidence:
    """Pixels and sites that are known of N images; `read_evidence` makes it."""

    images: Tensor
    """(N, C, H, W), 0 where hidden."""
    seen: Tensor
    """(N, C, H, W), True where a pixel is seen."""
    hard: dict[str, Tensor]
    """Values, (N, d), of random sites, which are held exactly."""
    soft: dict[str, tuple[Tensor, Tensor]]
    """Values, (N, d), and tolerances, (d,), of sites that the model determines: the value is
    observed with normal noise of that standard deviation around the model's."""

    @property
    def given(self) -> dict[str, Tensor]:
        """The values, (N, d), of all sites that are known."""
        return {**self.hard, **{name: value for name, (value, _) in self.soft.items()}}

    def repeat(self, k: int) -> Evidence:
        """Return the evidence of k * N images: all N of the first copy first."""
        return self._map(lambda value: value.repeat(k, *[1] * (value.ndim - 1)))

    def take(self, images: Tensor | slice) -> Evidence:
        """Return the evidence of the images of these numbers, (M,), or of a slice of them."""
        return self._map(lambda value: value[images])

    def _map(self, f: Callable[[Tensor], Tensor]) -> Evidence:
        return Evidence(
            f(self.images),
            f(self.seen),
            {name: f(value) for name, value in self.hard.items()},
            {name: (f(value), tolerance) for name, (value, tolerance) in self.soft.items()},
        )

    def notes(self, config: RNPConfig) -> list[str]:
        """Return sentences on evidence without pixels and on sites held within a tolerance."""
        found = []
        if not self.seen.any():
            found.append("No pixel is seen: this is a query on the prior.")
        if self.soft:
            found.append(
                f"{', '.join(self.soft)}: determined by what runs above in this model, so held to "
                "what is given within a tolerance, a standard deviation of "
                + ", ".join(f"{_span(each)} for {name}" for name, (_, each) in self.soft.items())
                + "."
            )
        return found


def _span(values: Tensor) -> str:
    """The least and the largest of some numbers."""
    low, high = (f"{value:.3g}" for value in (values.min().item(), values.max().item()))
    return low if low == high else f"{low} to {high}"


def read_evidence(
    rnp: RNP,
    images: Images | None,
    given: dict[str, Any],
    mask: Images | None,
    num_images: int | None,
    tolerance: float,
) -> Evidence:
    """Check the evidence of a query and bring it to one shape.

    Args:
        rnp, images, given, mask, num_images, tolerance: as `query` takes them.

    Raises:
        ValueError: in one sentence, if the tolerance is not positive; if images, mask and values
            are not of one number of images or do not fit the model; or if no pixel of one image is
            seen, but some of another.
    """
    config, like = rnp.config, next(rnp.parameters())
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance must be positive and finite, got {tolerance}.")
    values = {name: site_value(config, name, value) for name, value in given.items()}
    if images is not None:
        images = as_images(images, rnp, look=False)  # there may be anything where it is hidden
        n = len(images)
        if num_images not in (None, n):
            raise ValueError(f"num_images is {num_images}, but there are {n} images.")
    else:
        if mask is not None:
            raise ValueError("A mask needs images to hide.")
        n = max([len(v) for v in values.values() if v.ndim == 2], default=1)
        n = n if num_images is None else num_images
        whole(1, num_images=n)
    for name, value in values.items():
        if value.ndim == 2 and len(value) not in (1, n):
            raise ValueError(f"{name} is given for {len(value)} images, but there are {n}.")
    shape = (n, config.channels, config.image_size, config.image_size)
    seen = torch.full(shape, images is not None, device=like.device)
    if images is not None:
        seen &= ~images.isnan()
    if mask is not None:
        seen &= _mask(torch.as_tensor(mask), shape).to(like.device)
    blind = ~seen.flatten(1).any(1)
    if blind.any() and not blind.all():
        raise ValueError(
            f"No pixel of image {int(blind.nonzero()[0])} is seen, but some of others; ask what "
            "follows from no pixels by itself."
        )
    shown = like.new_zeros(shape)
    if images is not None:
        shown = rnp.check(torch.where(seen, images, shown))
    every = {name: value.to(shown).expand(n, -1).contiguous() for name, value in values.items()}
    hard = {name: value for name, value in every.items() if is_random(config, name)}
    soft = {
        name: (value, tolerance * _range(config, name, shown))
        for name, value in every.items()
        if name not in hard
    }
    return Evidence(shown, seen, hard, soft)


def _range(config: RNPConfig, name: str, like: Tensor) -> Tensor:
    """The width of the range of a determined site's numbers; 1 where the range is one value."""
    if name[0] == "z":
        return like.new_full((config.program_size,), 2.0)
    box: Any = codomain(config, like)
    width = box.upper_bound - box.lower_bound
    return torch.where(width > 0, width, 1.0)


def site_value(config: RNPConfig, name: str, value: Any, bounds: bool = True) -> Tensor:
    """Check the value of a site and return it as a tensor, (d,) or (N, d).

    Args:
        config: the model's.
        name: the site.
        value: anything that `torch.as_tensor` takes.
        bounds: whether the value must lie in the range that the model can give; a value beyond by
            rounding is then moved to the bound.

    Raises:
        ValueError: in one sentence, if there is no such site, or the value is of another shape, not
            finite or out of range.
    """
    random = is_random(config, name)
    kind, depth = sites(config)[name]
    size = config.program_size if kind == "z" else 6
    value = torch.as_tensor(value)
    value = value if value.is_floating_point() else value.float()
    if value.ndim not in (1, 2) or value.shape[-1] != size or not len(value):
        what = "a program" if kind == "z" else f"an action ({', '.join(FIELDS)})"
        raise ValueError(
            f"{name} is {what}: it must have shape ({size},) or (N, {size}), got "
            f"{tuple(value.shape)}."
        )
    if not value.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    if kind == "a" and float(value[..., :2].min()) <= 0:
        raise ValueError(f"{name}: scales must be positive, got {float(value[..., :2].min()):.3g}.")
    if not bounds:
        return value
    if kind == "a":
        box: Any = codomain(config, value)
        for i, field in enumerate(FIELDS):
            low, high = float(box.lower_bound[i]), float(box.upper_bound[i])
            least, most = float(value[..., i].min()), float(value[..., i].max())
            room = 1e-5 * (high - low)  # a bounded number may be rounded to just beyond
            if least < low - room or most > high + room:
                raise ValueError(
                    f"{name}: {field} must lie in [{low:.3g}, {high:.3g}] ({UNITS[field]}), got "
                    f"{least if least < low - room else most:.3g}."
                )
        value = torch.minimum(torch.maximum(value, box.lower_bound), box.upper_bound)
    elif depth and not random and float(value.abs().max()) > 1:
        most = float(value.flatten()[value.abs().argmax()])
        raise ValueError(f"{name}: the numbers of a part's program lie in [-1, 1], got {most:.3g}.")
    return value


def _mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    n, _, h, w = shape
    if mask.ndim == 3:
        mask = mask.unsqueeze(1)
    if tuple(mask.shape) not in {(h, w), (n, 1, h, w), (1, 1, h, w), shape}:
        raise ValueError(
            f"mask must have shape ({h}, {w}), ({n}, {h}, {w}) or {shape}, got {tuple(mask.shape)}."
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must be True (or 1) where a pixel is seen and False (or 0) else.")
    return mask.bool().expand(shape)
