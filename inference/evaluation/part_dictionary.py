"""How alike parts are: distances, nearest parts, and a dictionary of primitives.

Two parts may be compared by their programs, the vectors that run them, or by what they draw in
their own frames, wherever those are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from pyro_rnp import RNP, ParseTree
from pyro_rnp.checks import Images

By = Literal["program", "canvas"]


class Place(NamedTuple):
    """Where a part was found."""

    image: int
    path: tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """M parts of one level, out of many images."""

    programs: Float[Tensor, "m z"]
    canvases: Float[Tensor, "m c s s"]
    """What each draws in its own frame."""
    paths: tuple[tuple[int, ...], ...]
    """Of the parts of an image; those of the first image come first, in this order."""

    def __len__(self) -> int:
        return len(self.programs)

    def place(self, index: int) -> Place:
        """Where a part was found."""
        image, i = divmod(index, len(self.paths))
        return Place(image, self.paths[i])

    def index(self, place: Place) -> int:
        """The number of the part that was found there.

        Raises:
            ValueError: if there is none.
        """
        if place.path not in self.paths or not 0 <= place.image < len(self) // len(self.paths):
            name = "/".join(map(str, place.path))
            raise ValueError(f"There is no part {name} of image {place.image} among these.")
        return place.image * len(self.paths) + self.paths.index(place.path)

    def features(self, by: By) -> Float[Tensor, "m features"]:
        """What parts are compared by."""
        return self.programs if by == "program" else self.canvases.flatten(1)

    def distances(self, to: Int[Tensor, "k"], by: By = "canvas") -> Float[Tensor, "k m"]:
        """Euclidean distances from some of the parts to all."""
        features = self.features(by)
        return torch.cdist(features[to], features)

    def nearest(self, place: Place, k: int = 8, by: By = "canvas") -> list[tuple[Place, float]]:
        """The k parts that are most like one, without itself, with their distances."""
        index = self.index(place)
        distances = self.distances(torch.tensor([index]), by)[0]
        distances[index] = torch.inf
        found = distances.topk(min(k, len(self) - 1), largest=False)
        rows = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [(self.place(i), distance) for i, distance in rows]


@torch.no_grad()
def collect(
    rnp: RNP,
    images: Images,
    depth: int = 1,
    batch_size: int = 500,
    progress: bool = True,
) -> Parts:
    """All parts `depth` levels below the images, each image parsed at the guide's centre.

    Args:
        images: (N, C, H, W) in [0, 1].
        depth: 1 for parts, 2 for sub-parts.
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
    return Parts(torch.cat(programs), torch.cat(canvases), paths)


@dataclass(frozen=True)
class Dictionary:
    """Primitives, the most used first."""

    members: tuple[Tensor, ...]
    """The parts that each stands for, the most typical first."""
    canvases: Float[Tensor, "primitives c s s"]
    """What each draws, on average, in its own frame."""
    usage: Float[Tensor, "primitives"]
    """The share of all parts that each stands for."""


def primitives(parts: Parts, count: int = 16, by: By = "canvas", seed: int = 0) -> Dictionary:
    """A dictionary of primitives: k-means of parts, by scikit-learn.

    Raises:
        ValueError: if there are fewer parts than primitives.
    """
    from sklearn.cluster import KMeans

    if not 1 <= count <= len(parts):
        raise ValueError(f"count must lie in [1, {len(parts)}], the number of parts, got {count}.")
    features = parts.features(by)
    means = KMeans(count, n_init=4, random_state=seed).fit(features.numpy())
    labels = torch.from_numpy(means.labels_).long()
    centres = torch.from_numpy(means.cluster_centers_).to(features)
    far = (features - centres[labels]).square().sum(1)
    groups = [(labels == i).nonzero()[:, 0] for i in range(count)]
    groups = sorted((g for g in groups if len(g)), key=len, reverse=True)
    members = tuple(group[far[group].argsort()] for group in groups)
    return Dictionary(
        members,
        torch.stack([parts.canvases[group].mean(0) for group in groups]),
        torch.tensor([len(group) / len(parts) for group in groups]),
    )
