"""Segmentation of images into parts, against the true parts where these are known."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from tqdm import tqdm

from inference.data import ImageSet
from inference.evaluation.clustering import k_means
from inference.evaluation.statistics import standard_error
from inference.posterior import Method, query
from pyro_rnp import RNP, ParseTree


def segment(tree: ParseTree, depth: int) -> Int[Tensor, "n h w"]:
    """Assign each pixel to the part that adds most to it.

    Args:
        tree: parses of N images.
        depth: 1 for parts, 2 for sub-parts, numbered through all parts.

    Returns:
        (N, H, W) numbers of parts, from 0 on.
    """
    return tree.contributions(depth).sum(2).argmax(1)


def adjusted_rand(found: Int[Tensor, "n h w"], truth: Int[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """Adjusted Rand index of segments against the true ones, over the pixels that have one.

    Args:
        found: (N, H, W) numbers of segments.
        truth: (N, H, W) true ones; pixels with -1 do not count.

    Returns:
        (N,): 1 for the same partition, 0 on average for a random one.

    Source: Hubert and Arabie (1985), Journal of Classification 2.
    """
    scores = [
        adjusted_rand_score(t[t >= 0].numpy(), f[t >= 0].numpy())
        for t, f in zip(truth.cpu(), found.cpu(), strict=True)
    ]
    return torch.tensor(scores)


def by_position(truth: Int[Tensor, "n h w"], seed: int = 0) -> Int[Tensor, "n h w"]:
    """Segment images by k-means of the pixels' positions: a floor for segmentations.

    Args:
        truth: (N, H, W) true segments, which give the number of segments; -1 stays -1.
        seed: seed of k-means.
    """
    found = torch.full_like(truth, -1)
    for segments, true in zip(found, truth, strict=True):
        ink = true >= 0
        if count := len(true[ink].unique()):
            labels = k_means(ink.nonzero(), count, starts=1, seed=seed).labels
            segments[ink] = labels.to(segments)
    return found


def segmentation_metrics(
    rnp: RNP, data: ImageSet, method: Method = "svi", batch_size: int = 64, **options: Any
) -> dict[str, float]:
    """Score the segmentation that assigns each pixel to its most probable part.

    Args:
        rnp: the model.
        data: images with true segments; missing pixels (NaN) do not count.
        method: engine of `inference.posterior.query`, whose samples give the probabilities.
        batch_size: images in one query.
        options: further arguments of `inference.posterior.query`.

    Returns:
        `ari_parts` and, from two levels on, `ari_subparts`: adjusted Rand index, its mean over
        images; with `_error` behind, the standard error of that; with `_floor`, the same of
        k-means on the pixels' positions.

    Raises:
        ValueError: if the true segments of the images are not known, or the model has no parts.
    """
    if not rnp.config.depth:
        raise ValueError("A flat program has no parts to find.")
    if data.segments is None:
        raise ValueError("The true parts of these images are not known; those of strokes are.")
    found: dict[str, list[Tensor]] = {}
    for start in tqdm(range(0, len(data), batch_size), "segments", leave=False, delay=5):
        batch = data[start : start + batch_size]
        images = rnp.check(batch.images)
        missing = images.isnan().any(1).cpu()
        posterior = query(rnp, images, method=method, **options)
        for depth, name in ((1, "ari_parts"), (2, "ari_subparts"))[: rnp.config.depth]:
            truth = batch.segments[:, depth - 1]  # type: ignore[index]
            truth = truth.masked_fill(missing, -1)
            segments = posterior.part_probabilities(depth)[:, :-1].argmax(1)
            found.setdefault(name, []).append(adjusted_rand(segments, truth))
            found.setdefault(f"{name}_floor", []).append(adjusted_rand(by_position(truth), truth))
    every = {name: torch.cat(values) for name, values in found.items()}
    means = {name: float(values.mean()) for name, values in every.items()}
    if len(data) > 1:
        means |= {f"{n}_error": standard_error(v) for n, v in every.items()}
    return means
