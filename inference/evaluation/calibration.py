"""Whether a query's answers can be trusted: ranks, coverage, and agreement with long runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from inference.evaluation.statistics import standard_error
from inference.isolation import frozen, isolated
from inference.posterior import Engine, Evidence, Posterior, Settings, answer, query, systematic
from pyro_rnp import RNP
from pyro_rnp.checks import Images

DRAWS, BINS = 19, 10
"""Samples of a posterior that the truth is ranked among, so few that they are nearly independent,
and bins of their ranks, two ranks each."""
PIXELS = 12
"""Hidden pixels whose ranks are tested."""
VARIES = 0.01
"""Posterior standard deviation from which on a pixel counts: outside of all parts the canvas is 0
for sure."""
FAR = 3.0
"""Stated errors from a long run beyond which an answer counts as far from it."""


class Simulated(NamedTuple):
    """N images drawn from a model, and what drew them."""

    program: Tensor
    """z^K, (N, |z|)."""
    canvas: Tensor
    """The image before noise, (N, C, H, W)."""
    images: Tensor
    """Draws of the likelihood, (N, C, H, W), which may lie beyond [0, 1]."""

    def take(self, some: slice) -> Simulated:
        """Return some of the images."""
        return Simulated(*(x[some] for x in self))


@torch.no_grad()
def simulate(rnp: RNP, num: int, seed: int = 0) -> Simulated:
    """Draw images with their noise from a model.

    Args:
        rnp: the model.
        num: N.
        seed: of the draw; the caller's random state stays as it was.
    """
    with frozen(rnp, seed):
        tree = rnp.sample(num)
        return Simulated(tree.program, tree.canvas, rnp.model.likelihood(tree.canvas).sample())


@isolated()
def calibration_metrics(
    rnp: RNP,
    seen: Bool[Tensor, "h w"],
    methods: Sequence[str | Engine] = ("smc",),
    num: int = 128,
    level: float = 0.9,
    batch_size: int = 32,
    seed: int = 0,
    **settings: Any,
) -> dict[str, dict[str, Any]]:
    """Ask about images whose programs are known, since they are drawn from the model.

    A true program is like one more sample of its image's posterior: its rank among them is uniform
    over images, and a 90 % interval holds it in 90 % of images. That is so of images with all of
    their noise, pixels below 0 and above 1 included, which `query` would refuse.

    Ranks are those of the numbers of z, of `PIXELS` hidden pixels of the canvas, and of the squared
    error of the seen pixels, which tells of posteriors that follow the pixels too little or too
    much. Each is ranked among `DRAWS` samples that are spread over all samples by their weights,
    and equal values are ranked at random.

    Source: Talts et al., "Validating Bayesian inference algorithms with simulation-based
    calibration", 2018; Modrak et al., "Simulation-based calibration checking for Bayesian
    computation: the choice of test quantities shapes sensitivity", 2023, for the seen pixels.

    Args:
        rnp: the model.
        seen: (H, W), True where pixels are seen.
        methods: engines, or their names with options, as `query` takes them.
        num: images, at least 2.
        level: of the intervals, in (0, 1).
        batch_size: images in one query.
        seed: of the queries; the images are drawn by `seed + 1`.
        settings: `num_samples`, `steps`, `warmup` and `chains`, as of `query`.

    Returns:
        By method:

        - `images`, and `trusted`, the share of posteriors that are `trusted`;
        - `z_coverage`: the share of the numbers of z that lie in their intervals;
          `pixels_coverage`: the same of the hidden pixels of the canvas whose posterior standard
          deviation is `VARIES` or more. With `_error` behind, the standard error over images; with
          `trusted_` in front, the same of trusted images alone, where there are two or more;
        - `p_values`: p of uniform ranks by chi-square over `BINS` bins, of `z/3`, `canvas/406` (a
          pixel's number in the flattened image) and `seen`; `tests`: how many these are;
          `smallest_p`: the smallest, times their number (Bonferroni), at most 1.

    Raises:
        ValueError: if `num` is below 2, no pixel is hidden or none is seen, or a setting or a
            method is not what `query` takes.
    """
    if num < 2:
        raise ValueError(f"num must be at least 2, got {num}.")
    if seen.all() or not seen.any():
        raise ValueError("seen must hide some pixels and show some.")
    truth = simulate(rnp, num, seed + 1)
    shown, every = seen.to(rnp.device).expand(truth.images.shape), Settings(**settings)
    evidence = Evidence(truth.images.where(shown, 0.0), shown, {}, {})
    tested, found = chosen_pixels(truth.canvas, shown[0]), {}
    names = [f"z/{i}" for i in range(truth.program.shape[1])]
    names += [*(f"canvas/{i}" for i in tested.tolist()), "seen"]
    for method in methods:
        torch.manual_seed(seed)
        parts: list[Compared] = []
        for i in tqdm(range(0, num, batch_size), name_of(method), leave=False, delay=5):
            some = slice(i, i + batch_size)
            posterior = answer(rnp, evidence.take(some), method, every, seed, progress=False)
            for few in posterior.split():
                own = slice(i, i := i + len(few.trusted))
                parts.append(compared(few, truth.take(own), tested, level))
        together = Compared(*map(torch.cat, zip(*parts, strict=True)))
        found[name_of(method)] = summed_up(together, names)
    return found


def name_of(method: str | Engine) -> str:
    """Return how a method is called in the results.

    Args:
        method: an engine, or its name with options.
    """
    return method if isinstance(method, str) else method.name


class Compared(NamedTuple):
    """Posteriors of N images beside the truth."""

    trusted: Tensor
    """(N,), bool."""
    z_inside: Tensor
    """Share of the numbers of z that lie in their intervals, (N,)."""
    pixels_inside: Tensor
    """The same of the hidden pixels that vary, (N,); NaN where none does."""
    ranks: Tensor
    """From 0 to `DRAWS`, (N, K) of K quantities."""


def chosen_pixels(
    canvas: Float[Tensor, "n c h w"], seen: Bool[Tensor, "c h w"]
) -> Int[Tensor, "p"]:
    """Choose `PIXELS` hidden pixels, all over the half of them that differs most between images.

    Args:
        canvas: of simulated images.
        seen: True where pixels are seen.

    Returns:
        Their numbers in the flattened image, rising.
    """
    hidden = (~seen).flatten().nonzero().squeeze(1)
    lively = canvas.flatten(1)[:, hidden].var(0).topk(-(-len(hidden) // 2)).indices.sort().values
    return hidden[lively[:: -(-len(lively) // PIXELS)]]


def compared(
    posterior: Posterior, truth: Simulated, tested: Int[Tensor, "p"], level: float = 0.9
) -> Compared:
    """Compare the posteriors of simulated images with what drew the images.

    Args:
        posterior: of N images.
        truth: of the same images.
        tested: numbers of the pixels that are ranked.
        level: of the intervals.
    """
    z, canvas, true = posterior.samples["z"], posterior.canvas, truth.canvas
    (low, high), (least, most) = (posterior.interval(name, level) for name in ("z", "canvas"))
    varies = ~posterior.evidence.seen & (posterior.variance("canvas") >= VARIES**2)
    inside = (least <= true) & (true <= most) & varies
    images, seen = posterior.evidence.images, posterior.evidence.seen

    def quantities(z: Tensor, canvas: Tensor) -> Tensor:
        error = ((canvas - images) * seen).square().flatten(-3).sum(-1, keepdim=True)
        return torch.cat([z, canvas.flatten(-3)[..., tested], error], -1)

    return Compared(
        posterior.trusted,
        ((low <= truth.program) & (truth.program <= high)).float().mean(1),
        inside.flatten(1).sum(1) / varies.flatten(1).sum(1),
        ranked(quantities(z, canvas), posterior.weights, quantities(truth.program, true)),
    )


def ranked(
    values: Float[Tensor, "s n k"], weights: Float[Tensor, "s n"], truth: Float[Tensor, "n k"]
) -> Int[Tensor, "n k"]:
    """Rank true values among `DRAWS` samples, which are spread evenly over the weights.

    Args:
        values: of S samples of N images.
        weights: of the samples; they add up to 1 over the samples of an image.
        truth: the true values.

    Returns:
        How many of the samples lie below, from 0 to `DRAWS`; of those that equal the truth a random
        number counts.
    """
    drawn = values.take_along_dim(systematic(weights, DRAWS).unsqueeze(-1), 0)
    ties = (drawn == truth).sum(0)
    return (drawn < truth).sum(0) + ((ties + 1) * torch.rand(ties.shape).to(ties.device)).long()


def summed_up(found: Compared, names: Sequence[str]) -> dict[str, Any]:
    """Return the numbers of `calibration_metrics` for one method.

    Args:
        found: of all images.
        names: of the quantities that are ranked.
    """
    scores: dict[str, Any] = {
        "images": len(found.trusted),
        "trusted": float(found.trusted.float().mean()),
    }
    for prefix, which in {"": torch.ones_like(found.trusted), "trusted_": found.trusted}.items():
        for name, inside in {"z": found.z_inside, "pixels": found.pixels_inside}.items():
            known = inside[which & ~inside.isnan()]
            if len(known) > 1:
                scores[f"{prefix}{name}_coverage"] = float(known.mean())
                scores[f"{prefix}{name}_coverage_error"] = standard_error(known)
    bins = found.ranks.cpu() * BINS // (DRAWS + 1)
    counts = [b.bincount(minlength=BINS) for b in bins.T]
    p_values = [float(stats.chisquare(count.numpy()).pvalue) for count in counts]
    scores["p_values"] = dict(zip(names, p_values, strict=True))
    return scores | {"tests": len(names), "smallest_p": min(1.0, len(names) * min(p_values))}


def agreement_metrics(
    rnp: RNP,
    images: Images,
    seen: Bool[Tensor, "h w"],
    methods: Sequence[str | Engine] = ("smc",),
    num_reference: int = 1000,
    seed: int = 0,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """Hold answers that say they are trusted against two long runs of smc.

    Args:
        rnp: the model.
        images: (N, C, H, W) in [0, 1].
        seen: (H, W), True where pixels are seen.
        methods: engines, or their names with options, as `query` takes them.
        num_reference: samples of each long run, which takes about as many times longer.
        seed: of the queries; the long runs are drawn by `seed + 101` and `seed + 102`.
        options: further arguments of `inference.posterior.query`.

    Returns:
        By method against both long runs, and as `reference` of one long run against the other:

        - `images`, and `trusted`, the share of posteriors that are trusted;
        - of trusted answers to images of which the long runs are trusted too, for each of
          `stated`: with `_square` behind, the mean square of differences in units of their stated
          standard errors, which is about 1; with `_far`, the share beyond `FAR` such errors.

    Raises:
        ValueError: as of `query`.
    """
    how = {"mask": seen, "progress": False, **options}
    longer = {**how, "method": "smc", "num_samples": num_reference}
    first, second = (query(rnp, images, seed=seed + i, **longer) for i in (101, 102))
    sure, both = first.trusted & second.trusted, stated(first)
    found = {"reference": agreement(both, stated(second), sure, first.trusted)}
    for name, (b, error) in stated(second).items():
        a, other = both[name]
        both[name] = (a + b) / 2, error.hypot(other) / 2
    for method in tqdm(methods, "agreement", leave=False, delay=5):
        posterior = query(rnp, images, seed=seed, method=method, **how)
        found[name_of(method)] = agreement(stated(posterior), both, sure, posterior.trusted)
    return found


Stated = dict[str, tuple[Tensor, Tensor]]
"""Numbers, (N, K), and their standard errors, by name."""


def stated(posterior: Posterior) -> Stated:
    """Return what a posterior says of each image, with its errors.

    Args:
        posterior: of N images.

    Returns:
        `z` and `actions`, the means of the numbers of z and of the first parts' actions;
        `z_variance` and `actions_variance`, their variances; `pixels`, the means of hidden pixels
        of the canvas, of an infinite error where they vary by less than `VARIES`; `log_evidence`.
    """
    few = [_stated(part) for part in posterior.split()]
    return {
        name: (
            torch.cat([part[name][0] for part in few]),
            torch.cat([part[name][1] for part in few]),
        )
        for name in few[0]
    }


def _stated(posterior: Posterior) -> Stated:
    """`stated` of images whose trees are kept."""
    config, found = posterior.snapshot.rnp.config, {}
    parts = [f"a/{i}" for i in range(config.steps[0])] if config.depth else []
    for name, sites in {"z": ["z"], "actions": parts}.items():
        if sites:
            found[name] = _joined(posterior.mean, posterior.standard_error, sites)
            both = _joined(posterior.covariance, posterior.covariance_error, sites)
            found[f"{name}_variance"] = both
    varies = ~posterior.evidence.seen & (posterior.variance("canvas") >= VARIES**2)
    error = posterior.standard_error("canvas").where(varies, torch.inf)
    found["pixels"] = posterior.mean("canvas").flatten(1), error.flatten(1)
    evidence, its = posterior.log_evidence, posterior.log_evidence_error
    return {**found, "log_evidence": (evidence.unsqueeze(1), its.unsqueeze(1))}


def _joined(number: Any, error: Any, sites: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Numbers and errors of sites after each other; of matrices, those of the diagonals."""
    found = []
    for f in (number, error):
        each = [f(site) for site in sites]
        found.append(torch.cat([x if x.ndim == 2 else x.diagonal(dim1=1, dim2=2) for x in each], 1))
    return found[0], found[1]


def agreement(
    one: Stated, other: Stated, known: Bool[Tensor, "n"], trusted: Bool[Tensor, "n"]
) -> dict[str, Any]:
    """Return how far numbers of two answers are apart, in units of their stated errors.

    Args:
        one, other: as `stated` returns them.
        known: images of which the other answer is trusted.
        trusted: images of which this one is.

    Returns:
        As `agreement_metrics`, for one method.
    """
    scores: dict[str, Any] = {"images": len(trusted), "trusted": float(trusted.float().mean())}
    for name, (a, error) in one.items():
        b, its = other[name]
        apart = ((a - b) / error.hypot(its))[known & trusted]
        apart = apart[apart.isfinite() & error.hypot(its)[known & trusted].isfinite()]
        if len(apart):
            scores[f"{name}_square"] = float(apart.square().mean())
            scores[f"{name}_far"] = float((apart.abs() > FAR).float().mean())
    return scores
