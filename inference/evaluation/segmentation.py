"""Which part made which pixel, against the truth where it is known."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from tqdm import tqdm

from inference.data import ImageSet
from inference.posterior import Method, query
from inference.statistics import standard_error
from pyro_rnp import RNP, ParseTree


def segment(tree: ParseTree, depth: int) -> Int[Tensor, "n h w"]:
    """Each pixel's strongest part (depth 1) or sub-part (depth 2, numbered through all parts)."""
    return tree.contributions(depth).sum(2).argmax(1)


def adjusted_rand(found: Int[Tensor, "n h w"], truth: Int[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """Adjusted Rand index of segments against the true ones, over the pixels that have one.

    1 is the same partition, 0 what chance gives. Pixels with truth -1 do not count.
    """
    scores = [
        adjusted_rand_score(t[t >= 0].numpy(), f[t >= 0].numpy())
        for t, f in zip(truth.cpu(), found.cpu(), strict=True)
    ]
    return torch.tensor(scores)


def by_position(truth: Int[Tensor, "n h w"], seed: int = 0) -> Int[Tensor, "n h w"]:
    """Segments by the pixels' positions alone: k-means, told how many segments there are.

    A floor for segmentations. Pixels with truth -1 stay -1.
    """
    found = torch.full_like(truth, -1)
    for segments, true in zip(found, truth, strict=True):
        ink = true >= 0
        if count := len(true[ink].unique()):
            means = KMeans(count, n_init=1, random_state=seed).fit(ink.nonzero().numpy())
            segments[ink] = torch.from_numpy(means.labels_).to(segments)
    return found


def posterior_segmentation(
    rnp: RNP, data: ImageSet, method: Method = "svi", batch_size: int = 64, **options: Any
) -> dict[str, float]:
    """How well the parts that most probably made each pixel agree with the true ones.

    Each pixel goes to the part of the largest posterior probability, over samples of a query.

    Args:
        options: of `inference.posterior.query`.

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
        answer = query(rnp, batch.images, method=method, **options)
        for depth, name in ((1, "ari_parts"), (2, "ari_subparts"))[: rnp.config.depth]:
            truth = batch.segments[:, depth - 1]  # type: ignore[index]
            segments = answer.part_probabilities(depth)[:, :-1].argmax(1)
            found.setdefault(name, []).append(adjusted_rand(segments, truth))
            found.setdefault(f"{name}_floor", []).append(adjusted_rand(by_position(truth), truth))
    every = {name: torch.cat(values) for name, values in found.items()}
    means = {name: float(values.mean()) for name, values in every.items()}
    if len(data) > 1:
        means |= {f"{n}_error": standard_error(v) for n, v in every.items()}
    return means
