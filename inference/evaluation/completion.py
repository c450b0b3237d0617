"""Squared errors of hidden pixels, completed from the pixels that are seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from inference.data import ImageSet
from inference.evaluation.metrics import check_images, mean_of, without_labels
from inference.evaluation.statistics import standard_error
from inference.posterior import Engine, query
from pyro_rnp import RNP
from pyro_rnp.checks import Images
from pyro_rnp.missing import error


def nearest_images(
    images: Float[Tensor, "n c h w"],
    seen: Bool[Tensor, "h w"],
    among: ImageSet | Float[Tensor, "m c h w"],
) -> Float[Tensor, "n c h w"]:
    """Find for each image the nearest of others, by Euclidean distance over the seen pixels.

    Where pixels are missing (NaN), the distance is the root mean square over those of both.

    Args:
        images: (N, C, H, W).
        seen: (H, W), True where pixels are seen.
        among: (M, C, H, W), the others; or an image set, of which a part at a time becomes floats.

    Returns:
        (N, C, H, W), an image of `among` for each.
    """
    mine, found = images[:, :, seen].flatten(1), images.clone()
    best = mine.new_full((len(mine),), torch.nan)
    for part in among.split() if isinstance(among, ImageSet) else [among]:
        others = part.images if isinstance(part, ImageSet) else part
        theirs = others[:, :, seen].flatten(1)
        for rows in torch.arange(len(mine)).split(500):
            distances = _distance(mine[rows], theirs)
            which = distances.argmin(1)
            least = distances.gather(1, which.unsqueeze(1)).squeeze(1)
            nearer = ~(least >= best[rows])
            best[rows[nearer]], found[rows[nearer]] = least[nearer], others[which[nearer]]
    return found


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Distances (N, M) of vectors, over the entries that neither misses."""
    if not (a.isnan().any() or b.isnan().any()):
        return torch.cdist(a, b)
    (x, there), (y, too) = ((v.nan_to_num(), v.isfinite().to(v)) for v in (a, b))
    squares = x.square() @ too.T - 2 * x @ y.T + there @ y.square().T
    return (squares / (there @ too.T)).nan_to_num(torch.inf)  # of two without a common entry


def completion_metrics(
    rnp: RNP,
    images: Images,
    seen: Bool[Tensor, "h w"],
    among: ImageSet | Images,
    methods: Sequence[str] = ("guide", "importance", "svi"),
    batch_size: int = 64,
    log_likelihood: bool = False,
    **options: Any,
) -> dict[str, dict[str, float]]:
    """Complete images by several methods, and measure the squared errors of the hidden pixels.

    A method's completion is the posterior mean of the pixels. Baselines beside the methods are
    `nearest`, the image of `among` that is nearest where pixels are seen, `mean_image`, the mean
    of `among`, and `blank`, zero everywhere. Missing pixels (NaN) count in no error; where the
    nearest image misses one, the mean image stands in for it.

    Args:
        rnp: the model.
        images: (N, C, H, W) in [0, 1].
        seen: (H, W), True where pixels are seen.
        among: training images, (M, C, H, W) in [0, 1] or as an image set.
        methods: engines of `inference.posterior.query`, with options, as `importance:rounds=20`.
        batch_size: images in one query.
        log_likelihood: whether to add the log-likelihood of the hidden pixels, for which methods
            are asked about the whole images too; by default false.
        options: further arguments of `inference.posterior.query`.

    Returns:
        By method, `sse`: squared error summed over an image's hidden pixels, its mean over
        images; `sse_error`: the standard error of that mean, from two images on; `trusted`: the
        share of posteriors that are `trusted`; `seconds`: time an image. With log_likelihood also
        `log_likelihood`, the mean of `hidden_log_likelihood` in nats, and `log_likelihood_error`,
        the standard error of that mean over images, from two images on.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    hidden, images = ~seen, rnp.check(images).cpu()
    if isinstance(among, ImageSet):
        check_images(rnp, among)
    else:
        among = without_labels(rnp.check(among).cpu())
    mean, nearest = mean_of(among), nearest_images(images, seen, among)
    guesses = {
        "blank": torch.zeros_like(images),
        "mean_image": mean.expand_as(images),
        "nearest": nearest.where(nearest.isfinite(), mean),
    }
    true = images[:, :, hidden]
    found = {name: _scores(guess[:, :, hidden], true) for name, guess in guesses.items()}
    for method in methods:
        start, expected, trusted, nats = time.perf_counter(), [], [], []
        for batch in tqdm(images.split(batch_size), method, leave=False, delay=5):
            posterior = query(rnp, batch, mask=seen, method=method, **options)
            means = rnp.model.likelihood(posterior.canvas).mean
            expected.append(posterior.expectation(means).detach().cpu())
            trusted.append(posterior.trusted.cpu())
            if log_likelihood:
                before = time.perf_counter()
                whole = query(rnp, batch, method=method, **_again(options))
                nats.append((whole.log_evidence - posterior.log_evidence).cpu())
                start += time.perf_counter() - before
        scores = _scores(torch.cat(expected)[:, :, hidden], true)
        scores["trusted"] = float(torch.cat(trusted).float().mean())
        scores["seconds"] = (time.perf_counter() - start) / len(images)
        if nats:
            each = torch.cat(nats)
            scores["log_likelihood"] = float(each.mean())
            if len(each) > 1:
                scores["log_likelihood_error"] = standard_error(each)
        found[method] = scores
    return found


class HiddenLikelihood(NamedTuple):
    """Log-likelihoods of hidden pixels given the seen ones, (N,) each."""

    log_likelihood: Tensor
    """log p(hidden | seen), in nats."""
    error: Tensor
    """Its standard error, in nats, of the two evidences together."""
    trusted: Tensor
    """Whether the posteriors behind both evidences are trusted."""


def hidden_log_likelihood(
    rnp: RNP,
    images: Images,
    seen: Bool[Tensor, "h w"],
    method: str | Engine = "smc",
    batch_size: int = 64,
    **options: Any,
) -> HiddenLikelihood:
    """Estimate log p(hidden pixels | seen pixels) of images: the difference of two log evidences.

    That is log p(all pixels) - log p(seen pixels). Of binary images it is the figure that is
    reported for structured prediction, as of the lower half of MNIST given the upper.

    Source: Sohn, Lee and Yan, "Learning structured output representation using deep conditional
    generative models", 2015.

    Args:
        rnp: the model.
        images: (N, C, H, W) in [0, 1]; missing pixels (NaN) count neither as hidden nor as seen.
        seen: (H, W), True where pixels are seen.
        method: an engine of `inference.posterior.query`.
        batch_size: images in one query.
        options: further arguments of `inference.posterior.query`.

    Returns:
        Log-likelihoods, their errors, and whether to trust them.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    found = []
    for batch in rnp.check(images).split(batch_size):
        whole = query(rnp, batch, method=method, **_again(options))
        part = query(rnp, batch, mask=seen, method=method, **options)
        error = whole.log_evidence_error.hypot(part.log_evidence_error)
        found.append((whole.log_evidence - part.log_evidence, error, whole.trusted & part.trusted))
    return HiddenLikelihood(*map(torch.cat, zip(*found, strict=True)))


def _again(options: dict[str, Any]) -> dict[str, Any]:
    """The same options with another seed, so that the errors of two answers are independent."""
    return {**options, "seed": options.get("seed", 0) + 1}


def _scores(guessed: Tensor, true: Tensor) -> dict[str, float]:
    errors = error(guessed, true).square().flatten(1).sum(1)
    scores = {"sse": float(errors.mean())}
    if len(errors) > 1:
        scores["sse_error"] = standard_error(errors)
    return scores
