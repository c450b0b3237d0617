"""Distances of parts, nearest parts, and a dictionary of the parts that a model uses.

Parts are compared by their programs, or by the canvases that they draw in their own frames, so
that their places do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from inference.evaluation.clustering import k_means
from pyro_rnp import RNP, ParseTree
from pyro_rnp.checks import Images

By = Literal["program", "canvas"]


class PartLocation(NamedTuple):
    """The image and the place in its tree where a part was found."""

    image: int
    """Number of the image, from 0."""
    path: tuple[int, ...]
    """Numbers of the part and the sub-parts down to it, from 0, as (1, 3)."""


@dataclass(frozen=True)
class PartTable:
    """M parts of one level, out of many images."""

    programs: Float[Tensor, "m z"]
    canvases: Float[Tensor, "m c s s"]
    """The canvas of each part in its own frame."""
    paths: tuple[tuple[int, ...], ...]
    """Paths of the parts of one image; rows hold the parts image by image, in this order."""

    def __len__(self) -> int:
        return len(self.programs)

    def place(self, index: int) -> PartLocation:
        """The location of the part in a row of the table."""
        image, i = divmod(index, len(self.paths))
        return PartLocation(image, self.paths[i])

    def index(self, place: PartLocation) -> int:
        """The row of the part at a location.

        Raises:
            ValueError: if the table has no part there.
        """
        if place.path not in self.paths or not 0 <= place.image < len(self) // len(self.paths):
            name = "/".join(map(str, place.path))
            images, last = len(self) // len(self.paths), "/".join(map(str, self.paths[-1]))
            first = "/".join(map(str, self.paths[0]))
            raise ValueError(
                f"There is no part {name} of image {place.image} among these: images go from 0 to "
                f"{images - 1}, parts from {first} to {last}."
            )
        return place.image * len(self.paths) + self.paths.index(place.path)

    def features(self, by: By) -> Float[Tensor, "m features"]:
        """The vectors by which parts are compared."""
        return self.programs if by == "program" else self.canvases.flatten(1)

    def distances(self, to: Int[Tensor, "k"], by: By = "canvas") -> Float[Tensor, "k m"]:
        """Compute the Euclidean distances from some parts to all M parts.

        Args:
            to: rows of K parts, from 0.
            by: compare the programs or the canvases.
        """
        features = self.features(by)
        return torch.cdist(features[to], features)

    def nearest(
        self, place: PartLocation, k: int = 8, by: By = "canvas"
    ) -> list[tuple[PartLocation, float]]:
        """Find the parts that are most like one.

        Args:
            place: location of that part.
            k: parts to find, at most.
            by: compare the programs or the canvases.

        Returns:
            Locations and Euclidean distances, the nearest first, without the part itself.
        """
        index = self.index(place)
        distances = self.distances(torch.tensor([index]), by)[0]
        distances[index] = torch.inf
        found = distances.topk(min(k, len(self) - 1), largest=False)
        rows = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [(self.place(i), distance) for i, distance in rows]


@torch.no_grad()
def collect_parts(
    rnp: RNP,
    images: Images,
    depth: int = 1,
    batch_size: int = 500,
    progress: bool = True,
) -> PartTable:
    """Collect all parts `depth` levels below the images, each image parsed at the guide's centre.

    Args:
        rnp: the model.
        images: (N, C, H, W) in [0, 1].
        depth: 1 for parts, 2 for sub-parts.
        batch_size: images parsed at once.
        progress: whether to show a bar where it takes more than five seconds.

    Raises:
        ValueError: if the model has no such level, or the images are not what it reads.
    """
    if not 1 <= depth <= rnp.config.depth:
        raise ValueError(f"depth must lie in [1, {rnp.config.depth}], got {depth}.")
    programs, canvases = [], []
    paths: tuple[tuple[int, ...], ...] = ()
    batches = rnp.check(images).split(batch_size)
    for batch in tqdm(batches, "parsing", disable=not progress, delay=5):
        tree: ParseTree = rnp.parse(batch)
        nodes = tree.nodes(depth)
        paths = tuple(path for path, _ in tree.walk() if len(path) == depth)
        programs.append(torch.stack([node.program for node in nodes], 1).flatten(0, 1).cpu())
        canvases.append(torch.stack([node.canvas for node in nodes], 1).flatten(0, 1).cpu())
    return PartTable(torch.cat(programs), torch.cat(canvases), paths)


@dataclass(frozen=True)
class PartDictionary:
    """A dictionary of K groups of like parts, the most used first."""

    members: tuple[Tensor, ...]
    """Rows of the parts of each group, the most typical first."""
    canvases: Float[Tensor, "k c s s"]
    """The mean canvas of each group, in the parts' own frames."""
    usage: Float[Tensor, "k"]
    """The share of all parts that are in each group, in [0, 1]."""


def build_dictionary(
    parts: PartTable, count: int = 16, by: By = "canvas", seed: int = 0
) -> PartDictionary:
    """Sort parts into a dictionary by k-means.

    Args:
        parts: M parts.
        count: groups, at most M; fewer come out where fewer parts are distinct.
        by: compare the programs or the canvases.
        seed: seed of k-means.

    Raises:
        ValueError: if there are fewer parts than groups.
    """
    if not 1 <= count <= len(parts):
        raise ValueError(f"count must lie in [1, {len(parts)}], the number of parts, got {count}.")
    features = parts.features(by)
    labels, centres = k_means(features, count, seed=seed)
    far = (features - centres.to(features)[labels]).square().sum(1)
    groups = [(labels == i).nonzero()[:, 0] for i in range(count)]
    groups = sorted((g for g in groups if len(g)), key=len, reverse=True)
    members = tuple(group[far[group].argsort()] for group in groups)
    return PartDictionary(
        members,
        torch.stack([parts.canvases[group].mean(0) for group in groups]),
        torch.tensor([len(group) / len(parts) for group in groups]),
    )
