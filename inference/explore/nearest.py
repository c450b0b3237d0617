"""Parts of a data set that draw most alike."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from inference.evaluation import collect_parts
from inference.evaluation.part_dictionary import PartTable
from pyro_rnp import RNP, ParseTree
from pyro_rnp.parse_tree import site_name
from pyro_rnp.sites import is_random

AT_ONCE = 50
"""Images that are parsed together while others wait."""
TABLES = 4
"""Collections of parts that all visitors share, a data set's parts of one level each."""


class Near(NamedTuple):
    """A part of an image of a data set."""

    image: int
    """Number of the image, from 0."""
    site: str
    """Of the part's program, as `z/1`."""
    distance: float
    """Between the parts' canvases (Euclidean)."""
    canvas: Float[Tensor, "c s s"]
    """What the part draws in its own frame."""


def nearest_parts(
    rnp: RNP, tree: ParseTree, site: str, images: Float[Tensor, "n c s s"], num: int = 8
) -> list[Near]:
    """Find the parts of images that draw most alike.

    Args:
        rnp: the model.
        tree: the parse of one image.
        site: of its part, as `a/1` or `z/1`.
        images: as the model reads them; it takes long the first time that they are asked about.
        num: how many, at most.

    Returns:
        Parts of the same level, the nearest first.

    Raises:
        ValueError: if there is no such part, or the model does not read such images.
    """
    is_random(rnp.config, site)  # looks whether there is such a site
    part = tree.part(tuple(map(int, site.split("/")[1:])))
    table = _table(rnp, _version(rnp), images, tree.level - part.level)
    far = torch.cdist(part.canvas.cpu().flatten(1), table.canvases.flatten(1))[0]
    best = far.topk(min(num, len(far)), largest=False)
    found = []
    for row, distance in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        image, path = table.place(row)
        found.append(Near(image, site_name("z", path), distance, table.canvases[row]))
    return found


def _version(rnp: RNP) -> int:
    """A number that grows when the weights of a model are changed in place."""
    return sum(tensor._version for tensor in (*rnp.parameters(), *rnp.buffers()))


@lru_cache(TABLES)
def _table(rnp: RNP, version: int, images: Tensor, depth: int) -> PartTable:
    """The parts of images at a depth, which all visitors share."""
    return collect_parts(rnp, images, depth, AT_ONCE, progress=False)
