"""Figures that say how well a model explains images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from pyro.distributions import Delta
from torch import Tensor
from tqdm import tqdm

from inference.data import ImageSet
from inference.evaluation.bounds import importance_weighted_bound
from inference.evaluation.segmentation import adjusted_rand, by_position, segment
from inference.evaluation.statistics import standard_error
from inference.isolation import frozen
from inference.traces import latent_sites, trace_both
from pyro_rnp import RNP


@torch.no_grad()
def evaluate(
    rnp: RNP,
    data: ImageSet,
    batch_size: int = 500,
    seed: int = 0,
    particles: int = 0,
    keep: Path | None = None,
    train: ImageSet | None = None,
) -> dict[str, float]:
    """Means over images, of one posterior sample each unless said.

    Args:
        particles: samples of the guide for each image in the importance-weighted bound; 0 leaves
            it out.
        keep: see `importance_weighted_bound`.
        train: the training images; their mean image is scored on the same images as the model.

    Returns:
        `sse` squared error summed over an image's pixels, of what the likelihood expects;
        `sse_mean` the same at the posterior's centre; `mse` squared error per pixel; `kl` the KL
        of the guide from the prior, of all that is random, in nats; `elbo` the evidence lower
        bound in nats, without the part term; `iw_bound` the importance-weighted bound, in nats,
        see `importance_weighted_bound`; `sse_error`, `elbo_error` and `iw_bound_error` standard
        errors over images;
        `explained` the share of the images' squared intensity, 1 - SSE / sum of x^2;
        `sse_blank`, `sse_mean_image` and `explained_mean_image` the same without a model, see
        `baselines`; `canvas_variance_ratio` how far canvases differ between images, see there. A
        guide that is a point has neither KL nor bounds. Where the true segments are known also
        `ari_parts` and, from two levels on, `ari_subparts`, see `adjusted_rand`, and with `_floor`
        behind the same of k-means on the pixels' positions.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    data = replace(data, images=rnp.check(data.images))
    found: dict[str, list[Tensor]] = {}
    canvases: list[Tensor] = []
    with frozen(rnp, seed):
        starts = range(0, len(data), batch_size)
        for start in tqdm(starts, "scores", leave=False, delay=5):
            scores, canvas = _scores(rnp, data[start : start + batch_size], len(data))
            canvases.append(canvas.cpu())
            for name, values in scores.items():
                found.setdefault(name, []).append(values.cpu().double())
        if particles and "elbo" in found:
            bounds = importance_weighted_bound(rnp, data.images, particles, keep=keep)
            found["iw_bound"] = [bounds.double()]
    every = {name: torch.cat(values) for name, values in found.items()}
    means = {name: float(values.mean()) for name, values in every.items()}
    means["mse"] = means["sse"] / data.images[0].numel()
    without = baselines(data.images, train)
    means["explained"] = _explained(means["sse"], without["sse_blank"])
    means |= without
    ratio = canvas_variance_ratio(torch.cat(canvases), data.images)
    if not math.isnan(ratio):
        means["canvas_variance_ratio"] = ratio
    for name in ("sse", "elbo", "iw_bound"):
        if name in every and len(data) > 1:
            means[f"{name}_error"] = standard_error(every[name])
    return means


def baselines(images: Float[Tensor, "n c h w"], train: ImageSet | None = None) -> dict[str, float]:
    """The squared error of images without a model, summed over an image's pixels.

    Args:
        images: those that a model is scored on.
        train: those that it learned from.

    Returns:
        `sse_blank` of a blank canvas. Where `train` is given, `sse_mean_image` of the mean of the
        training images, and `explained_mean_image` the share of the images' squared intensity that
        it explains: a model that ignores the image can reach that.
    """
    found = {"sse_blank": _error(images)}
    if train is not None:
        found["sse_mean_image"] = _error(images, train.images.mean(0))
        found["explained_mean_image"] = _explained(found["sse_mean_image"], found["sse_blank"])
    return found


def _error(images: Tensor, canvas: Tensor | float = 0.0) -> float:
    """Mean squared error of images when one canvas stands for all."""
    total = sum(float((x - canvas).square().double().sum()) for x in images.split(1000))
    return total / len(images)


def _explained(error: float, blank: float) -> float:
    return 1 - error / blank if blank else float("nan")


def canvas_variance_ratio(
    canvases: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
) -> float:
    """The canvases' variance over that of their images, each between images, summed over pixels.

    It is 0 where a model draws the same for every image, and 1 where it draws the images; not a
    number where there is one image, or all are the same.
    """
    if len(images) < 2:
        return float("nan")
    own = float(images.var(0).sum())
    return float(canvases.var(0).sum()) / own if own else float("nan")


def _scores(rnp: RNP, batch: ImageSet, total: int) -> tuple[dict[str, Tensor], Tensor]:
    """Scores of each image, and what is expected of its pixels at the posterior's centre.

    Args:
        total: images that share the KL of what is drawn once for all.
    """
    x = batch.images
    with rnp.model.one_run():
        traces = trace_both(rnp.model, rnp.guide, x)
    at_mean = rnp.parse(x)
    expected, x_site = rnp.model.likelihood(at_mean.canvas).mean, traces.model.nodes["x"]
    kl = torch.zeros(len(x), device=x.device)
    for more in traces.kl().values():
        kl = kl + (more if more.shape == kl.shape else more.sum() / total)
    scores = {
        "sse": (x_site["fn"].mean - x).square().sum((1, 2, 3)),
        "sse_mean": (expected - x).square().sum((1, 2, 3)),
    }
    if not any(isinstance(site["fn"], Delta) for site in latent_sites(traces.guide).values()):
        scores |= {"kl": kl, "elbo": x_site["fn"].log_prob(x) - kl}
    if batch.segments is not None:
        for depth, name in ((1, "ari_parts"), (2, "ari_subparts")):
            if depth <= rnp.config.depth:
                truth = batch.segments[:, depth - 1].cpu()
                scores[name] = adjusted_rand(segment(at_mean, depth), truth)
                scores[f"{name}_floor"] = adjusted_rand(by_position(truth), truth)
    return scores, expected
