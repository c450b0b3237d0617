"""Squared errors of hidden pixels, completed from the pixels that are seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from inference.evaluation.statistics import standard_error
from inference.posterior import Method, query
from pyro_rnp import RNP
from pyro_rnp.checks import Images


def nearest_images(
    images: Float[Tensor, "n c h w"],
    seen: Bool[Tensor, "h w"],
    among: Float[Tensor, "m c h w"],
) -> Float[Tensor, "n c h w"]:
    """Find for each image the nearest of others, by Euclidean distance over the seen pixels.

    Args:
        images: (N, C, H, W).
        seen: (H, W), True where pixels are seen.
        among: (M, C, H, W), the others.

    Returns:
        (N, C, H, W), an image of `among` for each.
    """
    mine, theirs = (x[:, :, seen].flatten(1) for x in (images, among))
    return torch.cat([among[torch.cdist(some, theirs).argmin(1)] for some in mine.split(500)])


def completion_metrics(
    rnp: RNP,
    images: Images,
    seen: Bool[Tensor, "h w"],
    among: Images,
    methods: Sequence[Method] = ("guide", "importance", "svi"),
    batch_size: int = 64,
    **options: Any,
) -> dict[str, dict[str, float]]:
    """Complete images by several methods, and measure the squared errors of the hidden pixels.

    A method's completion is the posterior mean of the pixels. Baselines beside the methods are
    `nearest`, the image of `among` that is nearest where pixels are seen, `mean_image`, the mean
    of `among`, and `blank`, zero everywhere.

    Args:
        rnp: the model.
        images: (N, C, H, W) in [0, 1].
        seen: (H, W), True where pixels are seen.
        among: (M, C, H, W) in [0, 1], training images.
        methods: engines of `inference.posterior.query`.
        batch_size: images in one query.
        options: further arguments of `inference.posterior.query`.

    Returns:
        By method, `sse`: squared error summed over an image's hidden pixels, its mean over
        images; `sse_error`: the standard error of that mean, from two images on; `trusted`: the
        share of posteriors that are `trusted`; `seconds`: time an image.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    hidden, images, among = ~seen, rnp.check(images).cpu(), rnp.check(among).cpu()
    found = {
        "blank": _scores((images * 0)[:, :, hidden], images[:, :, hidden]),
        "mean_image": _scores(among.mean(0, keepdim=True)[:, :, hidden], images[:, :, hidden]),
        "nearest": _scores(nearest_images(images, seen, among)[:, :, hidden], images[:, :, hidden]),
    }
    for method in methods:
        start, expected, trusted = time.perf_counter(), [], []
        for batch in tqdm(images.split(batch_size), method, leave=False, delay=5):
            posterior = query(rnp, batch, mask=seen, method=method, **options)
            means = rnp.model.likelihood(posterior.canvas).mean
            expected.append(posterior.expectation(means).detach().cpu())
            trusted.append(posterior.trusted.cpu())
        scores = _scores(torch.cat(expected)[:, :, hidden], images[:, :, hidden])
        scores["trusted"] = float(torch.cat(trusted).float().mean())
        scores["seconds"] = (time.perf_counter() - start) / len(images)
        found[method] = scores
    return found


def _scores(guessed: Tensor, true: Tensor) -> dict[str, float]:
    errors = (guessed - true).square().flatten(1).sum(1)
    scores = {"sse": float(errors.mean())}
    if len(errors) > 1:
        scores["sse_error"] = standard_error(errors)
    return scores
