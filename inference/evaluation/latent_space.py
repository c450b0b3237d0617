"""The space of programs: what clusters in it, what lies between (the paper's Figure 4)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from inference.data import ImageSet
from inference.isolation import frozen
from pyro_rnp import RNP, ParseTree


@dataclass(frozen=True)
class Space:
    """Programs of images and of their parts, M in all."""

    programs: Float[Tensor, "m z"]
    levels: Int[Tensor, "m"]
    """K of an image's program, K - 1 of a part's."""
    canvases: Float[Tensor, "m c s s"]
    """What each draws, parts at the images' size."""
    labels: Int[Tensor, "m"]
    """The class of the image."""


@torch.no_grad()
def collect_programs(rnp: RNP, data: ImageSet, batch_size: int = 500) -> Space:
    """The programs z^K of images, at the guide's centre, then those of one part of each.

    Which part is that of the image's number modulo the number of parts. A flat program has none.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    programs: tuple[list[Tensor], list[Tensor]] = ([], [])
    canvases: tuple[list[Tensor], list[Tensor]] = ([], [])
    k = rnp.config.depth
    with frozen(rnp):
        for batch in rnp.check(data.images).split(batch_size):
            tree = rnp.parse(batch)
            nodes = [tree] if not k else [tree, _one_each(tree)]
            for level, node in enumerate(nodes):
                programs[level].append(node.program.cpu())
                canvas = node.canvas
                size = [rnp.config.image_size] * 2
                canvas = torch.nn.functional.interpolate(canvas, size=size, mode="bilinear")
                canvases[level].append(canvas.cpu())
    levels = [k] if not k else [k, k - 1]
    return Space(
        torch.cat([*programs[0], *programs[1]]),
        torch.tensor(levels).repeat_interleave(len(data)),
        torch.cat([*canvases[0], *canvases[1]]),
        data.labels.repeat(len(levels)),
    )


def _one_each(tree: ParseTree) -> ParseTree:
    rows = torch.arange(len(tree.program), device=tree.program.device)
    which = rows % len(tree)
    programs = torch.stack([part.program for part in tree])[which, rows]
    canvases = torch.stack([part.canvas for part in tree])[which, rows]
    return ParseTree(programs, canvases)


def space_numbers(space: Space, train: Space, seed: int = 0) -> dict[str, float]:
    """What is told apart in the space of programs, without a network.

    Args:
        train: of training images, for what is learned of classes.

    Returns:
        `silhouette_of_levels`, from -1 to 1; `level_probe`, the accuracy with which a linear probe
        (logistic regression, mean of five folds) tells an image's program from a part's, both
        where there are parts; and `class_probe`, with which one that has learned from `train` tells
        the image's class from its program, where the classes are those of `train`.
    """
    found, top = {}, space.levels == space.levels.max()
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    x, levels, labels = space.programs.numpy(), space.levels.numpy(), space.labels[top].numpy()
    if not top.all():
        score = silhouette_score(x, levels, random_state=seed)
        found["silhouette_of_levels"] = float(score)
        folds = KFold(5, shuffle=True, random_state=seed)
        found["level_probe"] = float(cross_val_score(probe, x, levels, cv=folds).mean())
    known = train.levels == train.levels.max()
    if torch.isin(space.labels[top], train.labels).all():
        probe.fit(train.programs[known].numpy(), train.labels[known].numpy())
        found["class_probe"] = float(probe.score(space.programs[top].numpy(), labels))
    return found


def embed(programs: Float[Tensor, "m z"], seed: int = 0) -> Float[Tensor, "m 2"]:
    """Programs on a plane, by t-SNE of the usual perplexity, or less where programs are few."""
    usual = min(30.0, (len(programs) - 1) / 3)
    plane = TSNE(perplexity=usual, random_state=seed, init="pca")
    return torch.from_numpy(plane.fit_transform(programs.numpy()))


@dataclass(frozen=True)
class Cluster:
    """A cluster of programs of one level."""

    centre: Float[Tensor, "z"]
    scale: Float[Tensor, "z"]
    """Standard deviation of each number."""
    nearest: int
    """The program that is nearest to the centre, as a number in the space."""
    level: int


def clusters(space: Space, count: int, level: int, seed: int = 0) -> list[Cluster]:
    """K-means of the programs of one level, the largest cluster first.

    Raises:
        ValueError: if there are fewer programs than clusters.
    """
    here = (space.levels == level).nonzero()[:, 0]
    if not 1 <= count <= len(here):
        raise ValueError(f"count must lie in [1, {len(here)}], the number of programs.")
    x = space.programs[here]
    with warnings.catch_warnings():  # of fewer distinct programs than clusters there are fewer
        warnings.simplefilter("ignore", ConvergenceWarning)
        means = KMeans(count, n_init=4, random_state=seed).fit(x.numpy())
    labels = torch.from_numpy(means.labels_).long()
    found = []
    sizes = labels.bincount()
    for i in [i for i in sizes.argsort(descending=True).tolist() if sizes[i]]:
        own = x[labels == i]
        centre = own.mean(0)
        near = here[labels == i][(own - centre).square().sum(1).argmin()]
        scale = own.std(0, correction=0)
        found.append(Cluster(centre, scale, int(near), level))
    return found


@torch.no_grad()
def run_level(rnp: RNP, programs: Float[Tensor, "n z"], level: int) -> Float[Tensor, "n c s s"]:
    """What programs draw at a level, as that of an image (K) or of a part (K - 1, ...).

    What is random below is at its prediction.
    """
    with frozen(rnp):
        return rnp.model.recursion.run_level(programs.to(rnp.device), level).canvas.cpu()


def sampled(rnp: RNP, cluster: Cluster, count: int, seed: int = 0) -> Float[Tensor, "count c s s"]:
    """New images or parts of a cluster, its programs drawn from a normal around its centre."""
    noise = torch.randn(count, len(cluster.centre), generator=torch.Generator().manual_seed(seed))
    return run_level(rnp, cluster.centre + cluster.scale * noise, cluster.level)


def between(
    rnp: RNP, first: Float[Tensor, "z"], last: Float[Tensor, "z"], count: int, level: int
) -> tuple[Float[Tensor, "count c s s"], float]:
    """Images on the straight line from one program to another, and how evenly they change.

    Returns:
        The images, and the largest change from one to the next over the mean one (Euclidean): 1
        where all are alike, count - 1 where everything happens at once; not a number where
        nothing changes.
    """
    share = torch.linspace(0, 1, count).unsqueeze(1)
    images = run_level(rnp, first + share * (last - first), level)
    change: Any = (images[1:] - images[:-1]).flatten(1).norm(dim=1)
    return images, float(change.max() / change.mean())
