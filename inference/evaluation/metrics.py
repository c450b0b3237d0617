"""Figures that say how well a model explains images."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor
from tqdm import tqdm

from inference.data import ImageSet
from inference.evaluation.segmentation import adjusted_rand, by_position, segment
from inference.isolation import frozen
from inference.objectives import latent, of_each, site_kl
from inference.outputs import write_json
from inference.run import fingerprint
from pyro_rnp import RNP
from pyro_rnp.checks import Images, observed


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
        keep: see `importance_weighted`.
        train: the training images; their mean image is scored on the same images as the model.

    Returns:
        `sse` squared error summed over an image's pixels, of what the likelihood expects;
        `sse_mean` the same at the posterior's centre; `mse` squared error per pixel; `kl` the KL
        of the guide from the prior, of all that is random, in nats; `elbo` the evidence lower
        bound in nats, without the part term; `iw_bound` the importance-weighted bound, in nats,
        see `importance_weighted`; `sse_error`, `elbo_error` and `iw_bound_error` standard errors
        over images;
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
            bounds = importance_weighted(rnp, data.images, particles, keep=keep)
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
            means[f"{name}_error"] = float(every[name].std() / len(data) ** 0.5)
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
    guide, model = _traces(rnp, x)
    at_mean = rnp.parse(x)
    expected, x_site = rnp.model.likelihood(at_mean.canvas).mean, model.nodes["x"]
    drawn, kl = latent(guide), torch.zeros(len(x), device=x.device)
    for name, site in drawn.items():
        more = site_kl(site["fn"], model.nodes[name]["fn"], site["value"])
        kl = kl + (more if more.shape == kl.shape else more.sum() / total)
    scores = {
        "sse": (x_site["fn"].mean - x).square().sum((1, 2, 3)),
        "sse_mean": (expected - x).square().sum((1, 2, 3)),
    }
    if not any(isinstance(site["fn"], Delta) for site in drawn.values()):
        scores |= {"kl": kl, "elbo": x_site["fn"].log_prob(x) - kl}
    if batch.segments is not None:
        for depth, name in ((1, "ari_parts"), (2, "ari_subparts")):
            if depth <= rnp.config.depth:
                truth = batch.segments[:, depth - 1].cpu()
                scores[name] = adjusted_rand(segment(at_mean, depth), truth)
                scores[f"{name}_floor"] = adjusted_rand(by_position(truth), truth)
    return scores, expected


def _traces(rnp: RNP, images: Tensor, particles: int | None = None) -> tuple[Any, Any]:
    """Traces of guide and model, of several particles side by side where a number is given."""

    def run(program: Any) -> Any:
        if particles is None:
            return program(images)
        with pyro.plate("particles", particles, dim=-2):
            return program(images)

    with rnp.model.one_run():
        guide = poutine.trace(run).get_trace(rnp.guide)
        return guide, poutine.trace(poutine.replay(run, trace=guide)).get_trace(rnp.model)


@torch.no_grad()
def importance_weighted(
    rnp: RNP,
    images: Images,
    particles: int,
    at_once: int = 250,
    keep: Path | None = None,
) -> Float[Tensor, "n"]:
    """The importance-weighted bound on log p(x) of each image, in nats (Burda et al., 2016).

    log 1/k sum_i p(x, z_i) / q(z_i | x) with k samples z_i of the guide: at least the ELBO in
    expectation, and log p(x) as k grows.

    Args:
        images: (N, C, H, W) in [0, 1], or beyond under `pyro.validation_enabled(False)`.
        particles: k.
        at_once: samples that are run together.
        keep: a file of the bounds so far, to go on from.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    images = observed(images, rnp)
    bounds: list[float] = json.loads(keep.read_text()) if keep and keep.exists() else []
    with frozen(rnp):
        size = max(1, at_once // particles)
        starts = range(len(bounds), len(images), size)
        for start in tqdm(starts, "importance-weighted bound", leave=False, delay=5):
            x, done, total = images[start : start + size], 0, None
            while done < particles:
                k = min(particles - done, max(1, at_once // len(x)))
                more = _log_weights(rnp, x, k).logsumexp(0)
                total = more if total is None else torch.logaddexp(total, more)
                done += k
            assert total is not None
            bounds += (total - math.log(particles)).tolist()
            if keep:
                write_json(keep, bounds)
    return torch.tensor(bounds, dtype=images.dtype)


def kept_bounds(folder: str | Path, run: str | Path, what: Sequence[object]) -> Path:
    """The file for `keep` of what is asked about a run; its folder is made."""
    words = [fingerprint(run), *(re.sub(r"\W", "_", str(word)) for word in what)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / f"{'-'.join(words)}.json"


def _log_weights(rnp: RNP, images: Tensor, particles: int) -> Tensor:
    """Log p(x, z) - log q(z | x) at samples z for each image, (particles, N), in nats."""
    guide, model = _traces(rnp, images, particles)
    weights = model.nodes["x"]["fn"].log_prob(images)
    for name, site in of_each(latent(guide)).items():
        p = model.nodes[name]["fn"].log_prob(site["value"])
        weights = weights + p - site["fn"].log_prob(site["value"])
    return weights
