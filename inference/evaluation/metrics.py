"""Scores of a model on images: squared errors, ELBO, bounds and baselines without a model."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
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
from pyro_rnp import RNP, ParseTree, RNPConfig
from pyro_rnp.affine import codomain
from pyro_rnp.checks import Images, as_images
from pyro_rnp.contract import DensitiesOnly
from pyro_rnp.files import write
from pyro_rnp.missing import error, mean_image, variance

FLOATS = 2**24
"""Floats of images that are summed up at once, 64 MiB."""
RUN_AT_ONCE = 2**23
"""Floats of images that a model runs on at once, for which it makes many times as many."""


@torch.no_grad()
def evaluate(
    rnp: RNP,
    data: ImageSet | Images,
    batch_size: int | None = None,
    seed: int = 0,
    particles: int = 0,
    keep: Path | None = None,
    train: ImageSet | Images | None = None,
    per_image: bool = False,
) -> dict[str, Any]:
    """Score a model on images: means over images, with one posterior sample of each.

    Missing pixels (NaN) count in no score.

    Args:
        rnp: the model and its guide, neither of which is changed.
        data: the images and, where they are known, their true segments; or images alone, as
            `rnp.parse` takes them.
        batch_size: images that are run together; by default 500, and fewer where they are larger
            than 64 x 64 pixels in colour.
        seed: of the posterior samples; the caller's random state stays as it was.
        particles: samples of the guide for each image in the importance-weighted bound; 0 leaves
            the bound out.
        keep: see `importance_weighted_bound`.
        train: the training images, in either form; their mean image is scored on the same images as
            the model.
        per_image: whether to return the scores of each image as well.

    Returns:
        Scores by name:

        - `sse`: squared error of the likelihood's mean, summed over an image's pixels; `sse_mean`:
          the same at the posterior's centre; `mse`: the same per pixel that is seen;
        - `kl`: KL of the guide from the prior, over all random sites, in nats; `elbo`: the evidence
          lower bound without the part term, in nats; `iw_bound`: see `importance_weighted_bound`. A
          guide that is a point has none of these;
        - `kl_z`, `kl_a_1`, `kl_z_1` and so on, where levels are random: what the top program, the
          actions and the programs of all parts, of all sub-parts have of `kl`;
        - `sse_error`, `elbo_error`, `iw_bound_error`: standard errors over images, from two images
          on;
        - `explained`: the share of the images' squared intensity, 1 - SSE / sum of x^2;
        - `sse_blank`, `sse_mean_image`, `explained_mean_image`: see `baselines`;
        - `canvas_variance_ratio` and `action_spread`: see the functions of these names;
        - `ari_parts` and, from two levels on, `ari_subparts`, where true segments are known: see
          `adjusted_rand`; with `_floor` behind, the same of k-means on the positions of pixels;
        - `per_image`, where asked for: float64 tensors (N,) by name, the scores of each image in
          the order of `data`. Their means are the scores above.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    data = data if isinstance(data, ImageSet) else without_labels(rnp.check(data))
    if not isinstance(train, ImageSet | None):
        train = without_labels(rnp.check(train))
    check_images(rnp, data)
    size = batch_size or min(500, _many(data, RUN_AT_ONCE))
    found: dict[str, list[Tensor]] = {}
    actions: list[Tensor] = []
    seen, between = 0, _VarianceRatio()
    with frozen(rnp, seed):
        batches = tqdm(
            data.split(size),
            "scores",
            -(-len(data) // size),
            leave=False,
            delay=5,
        )
        for batch in batches:
            x = as_images(batch.images, rnp, look=False)
            scores, canvas, at = _scores(rnp, x, batch.segments, len(data))
            seen += int((~x.isnan()).sum())
            between.add(canvas.cpu(), x.cpu())
            actions.append(at.cpu())
            for name, values in scores.items():
                found.setdefault(name, []).append(values.cpu().double())
        if particles and "elbo" in found:
            bounds = importance_weighted_bound(rnp, data, particles, keep=keep)
            found["iw_bound"] = [bounds.double()]
    every = {name: torch.cat(values) for name, values in found.items()}
    means: dict[str, Any] = {name: float(values.mean()) for name, values in every.items()}
    means["mse"] = means["sse"] / (seen / len(data))
    without = baselines(data, train)
    means["explained"] = _explained(means["sse"], without["sse_blank"])
    means |= without
    ratio = between.ratio()
    if not math.isnan(ratio):
        means["canvas_variance_ratio"] = ratio
        spread = action_spread(torch.cat(actions), rnp.config) if actions else math.nan
        if not math.isnan(spread):
            means["action_spread"] = spread
    for name in ("sse", "elbo", "iw_bound"):
        if name in every and len(data) > 1:
            means[f"{name}_error"] = standard_error(every[name])
    return means | ({"per_image": every} if per_image else {})


def without_labels(images: Float[Tensor, "n c h w"]) -> ImageSet:
    """Images alone as a set, all of class 0.

    Args:
        images: (N, C, H, W), floats.
    """
    return ImageSet(images, torch.zeros(len(images), dtype=torch.long))


def check_images(rnp: RNP, data: ImageSet) -> None:
    """Raise unless images are possible, as `RNP.check` does, but a part of them after the other.

    Args:
        rnp: the model.
        data: the images.

    Raises:
        ValueError: if they are not what the model reads.
    """
    first = 0
    for part in data.split(_many(data, FLOATS)):
        rnp.check(part.images, first)
        first += len(part)


TABLES = (".csv", ".npz")
"""Suffixes of files for scores of each image."""


def write_per_image(path: Path, scores: Mapping[str, Tensor], data: ImageSet) -> None:
    """Write scores of each image as a table, a row an image or an array a column.

    Args:
        path: a .csv or .npz file.
        scores: tensors (N,) by name, as `evaluate` gives them for each image.
        data: the images that were scored, for their labels. The first column, `index`, counts them
            from 0.
    """
    columns: dict[str, Any] = {"index": np.arange(len(data)), "label": data.labels.cpu().numpy()}
    columns |= {name: values.cpu().numpy() for name, values in scores.items()}
    if path.suffix.lower() == ".npz":
        stored = io.BytesIO()
        np.savez_compressed(stored, **columns)
        write(path, stored.getvalue())
    else:
        text = io.StringIO()
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        csv.writer(text, lineterminator="\n").writerows([[*columns], *rows])
        write(path, text.getvalue().encode())


def baselines(
    images: ImageSet | Float[Tensor, "n c h w"], train: ImageSet | None = None
) -> dict[str, float]:
    """Return the squared error of images without a model, summed over an image's pixels.

    Args:
        images: the images that a model is scored on, or their pixels (N, C, H, W).
        train: the images that it learned from.

    Returns:
        `sse_blank`, of a blank canvas. Where `train` is given also `sse_mean_image`, of the mean
        training image, and `explained_mean_image`, the share of the images' squared intensity that
        the mean image explains, which a model that ignores the image can reach.
    """
    data = images if isinstance(images, ImageSet) else without_labels(images)
    found = {"sse_blank": _error(data)}
    if train is not None:
        found["sse_mean_image"] = _error(data, mean_of(train))
        found["explained_mean_image"] = _explained(found["sse_mean_image"], found["sse_blank"])
    return found


def mean_of(data: ImageSet) -> Float[Tensor, "c h w"]:
    """The mean image of a set, as `mean_image` gives it, of which a part at a time becomes floats.

    Args:
        data: the images.
    """
    total: Any = 0.0
    count: Any = 0
    for part in data.split():
        images = part.images
        seen = (~images.isnan()).sum(0)
        total, count = total + mean_image(images).double() * seen, count + seen
    return (total / count.clamp(min=1)).to(images)


def _many(data: ImageSet, floats: int) -> int:
    """How many images take so many floats."""
    return max(1, floats // max(1, data.shape.numel()))


def _error(data: ImageSet, canvas: Tensor | None = None) -> float:
    """Mean squared error of images when one canvas stands for all; by default a blank one."""
    total = 0.0
    canvas = torch.zeros(data.shape) if canvas is None else canvas
    for part in data.split(min(1000, _many(data, FLOATS))):
        x = part.images
        total += float(error(canvas.to(x), x).square().double().sum())
    return total / len(data)


def _explained(error: float, blank: float) -> float:
    return 1 - error / blank if blank else float("nan")


def canvas_variance_ratio(
    canvases: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
) -> float:
    """Return the variance of canvases over that of their images, each between images.

    Args:
        canvases, images: (N, C, H, W). Variances are summed over pixels, and of images and canvases
            alike those are left out that are missing (NaN).

    Returns:
        0 where a model draws the same canvas for every image, 1 where it draws the images; NaN of a
        single image, or of images that are all the same.
    """
    found = _VarianceRatio()
    found.add(canvases, images)
    return found.ratio()


class _VarianceRatio:
    """The ratio of `canvas_variance_ratio`, of images that come in batches."""

    def __init__(self) -> None:
        self.canvases: list[Tensor] = []
        self.images: list[Tensor] = []
        self.count, self.totals = 0, (_Variance(), _Variance())

    def add(self, canvases: Tensor, images: Tensor) -> None:
        self.canvases.append(canvases)
        self.images.append(images)
        self.count += len(images)
        if sum(x.numel() for x in self.images) >= FLOATS:
            self._sum_up()

    def _sum_up(self) -> None:
        """Add up what came, and keep no image of it."""
        if self.images:
            images = torch.cat(self.images)
            for total, values in zip(self.totals, (self.canvases, self.images), strict=True):
                total.add(torch.cat(values), images)
        self.canvases, self.images = [], []

    def ratio(self) -> float:
        if self.count < 2:
            return float("nan")
        self._sum_up()
        canvas, own = (float(total.value().sum()) for total in self.totals)
        return canvas / own if own else float("nan")


class _Variance:
    """The variance of each pixel between images that see it, which come in parts."""

    count: Any = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def add(self, values: Tensor, images: Tensor) -> None:
        missing = images.isnan()
        here = (~missing).sum(0).double()
        mean = mean_image(values.masked_fill(missing, torch.nan)).double()
        total = (self.count + here).clamp(min=1)
        if len(values) > 1:
            own = variance(values, images).double() * (here - 1).clamp(min=0)
            self.squares = self.squares + own
        apart = mean - self.mean
        self.squares = self.squares + apart.square() * (self.count * here / total)
        self.mean = self.mean + apart * (here / total)
        self.count = self.count + here
        self.dtype = values.dtype

    def value(self) -> Tensor:
        return (self.squares / (self.count - 1).clamp(min=1)).to(self.dtype)


def action_spread(actions: Float[Tensor, "n parts 6"], config: RNPConfig) -> float:
    """Return how far parts move between images: the most that any number of an action differs.

    Args:
        actions: (N, parts, 6), of the parts of all levels in each of N images.
        config: gives the ranges of the numbers.

    Returns:
        The largest standard deviation between images, as a share of the number's range: 0 where
        every part stands at the same place in every image; NaN of a single image, and of no parts.
    """
    if len(actions) < 2 or not actions.numel():
        return float("nan")
    box: Any = codomain(config, actions)
    size = box.upper_bound - box.lower_bound
    return float((actions.std(0) / size)[:, size > 0].max())


def actions_of(tree: ParseTree) -> Float[Tensor, "n parts 6"]:
    """Return the actions of the parts of all levels, in the order of `ParseTree.walk`.

    Args:
        tree: of N images.
    """
    found = [node.action for _, node in tree.walk() if node.action is not None]
    return torch.stack(found, 1) if found else tree.program.new_zeros(len(tree.program), 0, 6)


def _scores(
    rnp: RNP, x: Tensor, segments: Tensor | None, total: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Scores of each image, and at the posterior's centre the mean of its pixels and its actions.

    Args:
        total: images that share the KL of a site that is drawn once for all.
    """
    with DensitiesOnly(together=True):
        traces = trace_both(rnp.model, rnp.guide, x)
    at_mean = rnp.parse(x)
    expected, x_site = rnp.model.likelihood(at_mean.canvas).mean, traces.model.nodes["x"]
    kl = torch.zeros(len(x), device=x.device)
    levels: dict[str, Tensor] = {}
    for name, more in traces.kl().items():
        more = more if more.shape == kl.shape else more.sum() / total
        kind, _, path = name.partition("/")
        if kind in ("z", "a"):
            level = f"kl_{kind}_{len(path.split('/'))}" if path else "kl_z"
            levels[level] = levels.get(level, 0.0) + more
        kl = kl + more
    scores = {
        "sse": error(x_site["fn"].mean, x).square().sum((1, 2, 3)),
        "sse_mean": error(expected, x).square().sum((1, 2, 3)),
    }
    if not any(isinstance(site["fn"], Delta) for site in latent_sites(traces.guide).values()):
        scores |= {"kl": kl, "elbo": x_site["fn"].log_prob(x_site["value"]) - kl}
        scores |= levels if rnp.config.any_random else {}
    if segments is not None:
        for depth, name in ((1, "ari_parts"), (2, "ari_subparts")):
            if depth <= rnp.config.depth:
                truth = segments[:, depth - 1].masked_fill(x.isnan().any(1).cpu(), -1)
                scores[name] = adjusted_rand(segment(at_mean, depth), truth)
                scores[f"{name}_floor"] = adjusted_rand(by_position(truth), truth)
    return scores, expected, actions_of(at_mean)
