"""The latent space of programs: clusters, paths and probes (the paper's figure 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from inference.data import ImageSet
from inference.evaluation.clustering import k_means
from inference.evaluation.metrics import check_images
from inference.isolation import frozen
from pyro_rnp import RNP, ParseTree


@dataclass(frozen=True)
class LatentSpace:
    """Programs of images and of their parts, M in all, with the pictures that they draw."""

    programs: Float[Tensor, "m z"]
    levels: Int[Tensor, "m"]
    """K of an image's program, K - 1 of a part's."""
    canvases: Float[Tensor, "m c s s"]
    """The canvas of each program, that of a part scaled to the size of an image."""
    labels: Int[Tensor, "m"]
    """The class of the image."""


@torch.no_grad()
def collect_programs(rnp: RNP, data: ImageSet, batch_size: int = 500) -> LatentSpace:
    """Collect the programs z^K of images, at the guide's centre, then those of one part of each.

    Image i contributes its part i modulo the number of parts. A flat program has no parts.

    Args:
        rnp: the model.
        data: N images with their classes.
        batch_size: images parsed at once.

    Returns:
        The space of the N images' programs and the N parts' programs, in this order.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    programs: tuple[list[Tensor], list[Tensor]] = ([], [])
    canvases: tuple[list[Tensor], list[Tensor]] = ([], [])
    k = rnp.config.depth
    check_images(rnp, data)
    with frozen(rnp):
        for batch in data.split(batch_size):
            tree = rnp.parse(batch.images)
            nodes = [tree] if not k else [tree, _one_each(tree)]
            for level, node in enumerate(nodes):
                programs[level].append(node.program.cpu())
                canvas = node.canvas
                size = [rnp.config.image_size] * 2
                canvas = torch.nn.functional.interpolate(canvas, size=size, mode="bilinear")
                canvases[level].append(canvas.cpu())
    levels = [k] if not k else [k, k - 1]
    return LatentSpace(
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


def latent_space_metrics(space: LatentSpace, train: LatentSpace, seed: int = 0) -> dict[str, float]:
    """Measure how separable levels and classes are in the space of programs, by linear probes.

    Args:
        space: programs of test images.
        train: programs of training images, from which the probe of classes learns.
        seed: seed of the folds and of the silhouette.

    Returns:
        `silhouette_of_levels`, from -1 to 1; `level_probe`, the accuracy with which a linear probe
        (logistic regression, mean of five folds) tells an image's program from a part's, both
        where there are parts; and `class_probe`, with which one that has learned from `train` tells
        the image's class from its program, where the classes are those of `train` and there are
        two or more.
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
    if torch.isin(space.labels[top], train.labels).all() and len(train.labels.unique()) > 1:
        probe.fit(train.programs[known].numpy(), train.labels[known].numpy())
        found["class_probe"] = float(probe.score(space.programs[top].numpy(), labels))
    return found


def embed(programs: Float[Tensor, "m z"], seed: int = 0) -> Float[Tensor, "m 2"]:
    """Embed programs in a plane by t-SNE (van der Maaten and Hinton, 2008).

    Args:
        programs: (M, |z|), two or more.
        seed: seed of the embedding.

    Returns:
        (M, 2) coordinates, from perplexity 30, or a third of M - 1 where that is less.
    """
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


def clusters(space: LatentSpace, count: int, level: int, seed: int = 0) -> list[Cluster]:
    """Cluster the programs of one level by k-means.

    Args:
        space: the programs.
        count: clusters; fewer come out where fewer programs are distinct.
        level: K for the programs of images, K - 1 for those of parts.
        seed: seed of k-means.

    Returns:
        The clusters, the largest first.

    Raises:
        ValueError: if there are fewer programs than clusters.
    """
    here = (space.levels == level).nonzero()[:, 0]
    if not 1 <= count <= len(here):
        raise ValueError(f"count must lie in [1, {len(here)}], the number of programs.")
    x = space.programs[here]
    labels = k_means(x, count, seed=seed).labels
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
    """Draw the canvases of programs at a level, with random sites below at their predictions.

    Args:
        rnp: the model.
        programs: (N, |z|).
        level: K draws images; K - 1 and less draw parts in their own frames.

    Returns:
        (N, C, S, S) canvases, on the CPU.
    """
    with frozen(rnp):
        return rnp.model.recursion.run_level(programs.to(rnp.device), level).canvas.cpu()


def sample_cluster(
    rnp: RNP, cluster: Cluster, count: int, seed: int = 0
) -> Float[Tensor, "count c s s"]:
    """Draw new images or parts of a cluster, from normally distributed programs around its centre.

    Args:
        rnp: the model.
        cluster: gives the mean, the standard deviations and the level of the programs.
        count: images or parts to draw.
        seed: seed of the programs.
    """
    noise = torch.randn(count, len(cluster.centre), generator=torch.Generator().manual_seed(seed))
    return run_level(rnp, cluster.centre + cluster.scale * noise, cluster.level)


def interpolate(
    rnp: RNP, first: Float[Tensor, "z"], last: Float[Tensor, "z"], count: int, level: int
) -> tuple[Float[Tensor, "count c s s"], float]:
    """Draw images on the straight line from one program to another, and measure their changes.

    Args:
        rnp: the model.
        first: (|z|,) program at the beginning of the line.
        last: (|z|,) program at its end.
        count: images, evenly spaced, both ends included.
        level: the level at which the programs run, see `run_level`.

    Returns:
        The images, and the largest change from one to the next over the mean one (Euclidean): 1
        where all are alike, count - 1 where everything happens at once; not a number where
        nothing changes.
    """
    share = torch.linspace(0, 1, count).unsqueeze(1)
    images = run_level(rnp, first + share * (last - first), level)
    change: Any = (images[1:] - images[:-1]).flatten(1).norm(dim=1)
    return images, float(change.max() / change.mean())
