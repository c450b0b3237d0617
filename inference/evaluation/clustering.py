"""K-means of vectors, by scikit-learn."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Clusters(NamedTuple):
    """The clusters of M vectors."""

    labels: Int[Tensor, "m"]
    """The cluster of each vector, from 0 on; with fewer distinct vectors some have none."""
    centres: Float[Tensor, "count d"]


def k_means(points: Tensor, count: int, starts: int = 4, seed: int = 0) -> Clusters:
    """Sort vectors into clusters by k-means.

    Args:
        points: (M, d), of floats or integers.
        count: clusters, in [1, M].
        starts: how often it begins with other centres; the best result counts.
        seed: seed of the first centres.

    Raises:
        ValueError: if `count` lies outside its range.

    >>> k_means(torch.tensor([[0.0], [1.0], [9.0]]), 2).labels.unique_consecutive().numel()
    2
    """
    from sklearn.cluster import KMeans  # takes a second to import
    from sklearn.exceptions import ConvergenceWarning

    if not 1 <= count <= len(points):
        raise ValueError(f"count must lie in [1, {len(points)}], the number of vectors: {count}.")
    with warnings.catch_warnings():  # of fewer distinct vectors than clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        means = KMeans(count, n_init=starts, random_state=seed).fit(points.numpy())
    labels = torch.from_numpy(means.labels_).long()
    return Clusters(labels, torch.from_numpy(means.cluster_centers_))
