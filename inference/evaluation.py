"""Figures that say how well a model explains images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from pyro import poutine
from pyro.distributions import Delta
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from inference.data import ImageSet
from inference.objectives import latent, site_kl
from pyro_rnp import RNP, ParseTree
from pyro_rnp.checks import check_images


@torch.no_grad()
def evaluate(
    rnp: RNP, data: ImageSet, batch_size: int = 500, seed: int = 0, particles: int = 0
) -> dict[str, float]:
    """Means over images, of one posterior sample each unless said.

    Args:
        particles: samples of the guide for each image in the importance-weighted bound; 0 leaves
            it out.

    Returns:
        `sse` squared error summed over an image's pixels, of what the likelihood expects;
        `sse_mean` the same at the posterior's centre; `mse` squared error per pixel; `kl` the KL
        of the guide from the prior, of all that is random, in nats; `elbo` the evidence lower
        bound in nats, without the part term; `iw_bound` the importance-weighted bound, in nats,
        see `importance_weighted`; `elbo_error` and `iw_bound_error` standard errors over images;
        `explained` the share of the images' squared intensity, 1 - SSE / sum of x^2. A guide that
        is a point has neither KL nor bounds. Where the true segments are known also `ari_parts`
        and, from two levels on, `ari_subparts`, see `adjusted_rand`, and with `_floor` behind the
        same of k-means on the pixels' positions.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    check_images(data.images, rnp.config)
    found: dict[str, list[Tensor]] = {}
    devices = [rnp.device] if rnp.device.type == "cuda" else []
    with torch.random.fork_rng(devices), evaluating(rnp):
        torch.manual_seed(seed)
        for start in range(0, len(data), batch_size):
            for name, values in _scores(rnp, data[start : start + batch_size]).items():
                found.setdefault(name, []).append(values.cpu().double())
        if particles and "elbo" in found:
            bounds = importance_weighted(rnp, data.images, particles)
            found["iw_bound"] = [bounds.double()]
    every = {name: torch.cat(values) for name, values in found.items()}
    power = float(every.pop("power").sum())
    means = {name: float(values.mean()) for name, values in every.items()}
    means["mse"] = means["sse"] / data.images[0].numel()
    means["explained"] = 1 - float(every["sse"].sum()) / power if power else float("nan")
    for name in ("elbo", "iw_bound"):
        if name in every and len(data) > 1:
            means[f"{name}_error"] = float(every[name].std() / len(data) ** 0.5)
    return means


@contextmanager
def evaluating(rnp: RNP) -> Iterator[None]:
    """Evaluation mode, for a while."""
    training = rnp.training
    rnp.eval()
    try:
        yield
    finally:
        rnp.train(training)


def _scores(rnp: RNP, batch: ImageSet) -> dict[str, Tensor]:
    """Scores of each image."""
    x = batch.images.to(rnp.device)
    guide, model = _traces(rnp, x)
    at_mean = rnp.parse(x)
    expected, x_site = rnp.model.likelihood(at_mean.canvas).mean, model.nodes["x"]
    drawn, kl = latent(guide), torch.zeros(len(x), device=x.device)
    for name, site in drawn.items():
        kl = kl + site_kl(site["fn"], model.nodes[name]["fn"], site["value"])
    scores = {
        "sse": (x_site["fn"].mean - x).square().sum((1, 2, 3)),
        "sse_mean": (expected - x).square().sum((1, 2, 3)),
        "power": x.square().sum((1, 2, 3)),
    }
    if not any(isinstance(site["fn"], Delta) for site in drawn.values()):
        scores |= {"kl": kl, "elbo": x_site["fn"].log_prob(x) - kl}
    if batch.segments is not None:
        for depth, name in ((1, "ari_parts"), (2, "ari_subparts")):
            if depth <= rnp.config.depth:
                truth = batch.segments[:, depth - 1].cpu()
                scores[name] = adjusted_rand(segment(at_mean, depth), truth)
                scores[f"{name}_floor"] = adjusted_rand(by_position(truth), truth)
    return scores


def _traces(rnp: RNP, images: Tensor) -> tuple[Any, Any]:
    with rnp.model.one_run():
        guide = poutine.trace(rnp.guide).get_trace(images)
        return guide, poutine.trace(poutine.replay(rnp.model, trace=guide)).get_trace(images)


@torch.no_grad()
def importance_weighted(
    rnp: RNP, images: Float[Tensor, "n c h w"], particles: int, at_once: int = 2000
) -> Float[Tensor, "n"]:
    """The importance-weighted bound on log p(x) of each image, in nats (Burda et al., 2016).

    log 1/k sum_i p(x, z_i) / q(z_i | x) with k samples z_i of the guide: at least the ELBO in
    expectation, and log p(x) as k grows.

    Args:
        particles: k.
        at_once: samples that are run together.
    """
    bounds = []
    with evaluating(rnp):
        for image in images.split(max(1, at_once // particles)):
            x, done, total = image.to(rnp.device), 0, None
            while done < particles:
                k = min(particles - done, max(1, at_once // len(x)))
                weights = _log_weights(rnp, x.repeat(k, 1, 1, 1)).view(k, len(x))
                more = weights.logsumexp(0)
                total = more if total is None else torch.logaddexp(total, more)
                done += k
            assert total is not None
            bounds.append((total - math.log(particles)).cpu())
    return torch.cat(bounds)


def _log_weights(rnp: RNP, images: Tensor) -> Tensor:
    """Log p(x, z) - log q(z | x) at one sample z for each image, (N,), in nats."""
    guide, model = _traces(rnp, images)
    weights = model.nodes["x"]["fn"].log_prob(images)
    for name, site in latent(guide).items():
        p = model.nodes[name]["fn"].log_prob(site["value"])
        weights = weights + p - site["fn"].log_prob(site["value"])
    return weights


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
