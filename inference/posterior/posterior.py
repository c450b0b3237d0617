"""What follows from a query: weighted samples of every site, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pyro.ops.stats import effective_sample_size, fit_generalized_pareto
from torch import Tensor

from pyro_rnp import ParseTree
from pyro_rnp.affine import FIELDS

Method = Literal["guide", "importance", "svi", "nuts"]
ENOUGH = 10.0
"""Effective samples below which an answer is not to be trusted."""
HEAVY = 0.7
"""Shape of the weights' tail above which likewise."""
FEWEST = 21
"""Samples from which on that shape can be known: a fifth of them are five."""
DIMENSIONS = {"z": ("program",), "a": ("field",), "canvas": ("channel", "y", "x")}
"""Names of the dimensions of a kind of site in ArviZ, after those of samples and images."""
MIXED = 1.05
"""r-hat above which chains have not mixed."""


@dataclass(frozen=True, repr=False)
class Posterior:
    """What follows from what was given, for N images: S weighted samples of each.

    Samples have shape (S, N, ...); those of several chains follow each other.
    """

    method: Method
    tree: ParseTree
    """Trees of S * N images, all N of the first sample first."""
    weights: Float[Tensor, "s n"]
    """What each sample counts; they add up to 1 over the samples of an image."""
    log_weights: Float[Tensor, "s n"] | None
    """log p(sample, what is given) - log q(sample) of samples of a proposal q, in nats: the
    guide, or the normal that was fitted. None where nothing was random."""
    log_likelihood: Float[Tensor, "s n"] | None
    """log p(pixels that are seen | canvas) of each sample, in nats; None where none is seen."""
    log_evidence: Float[Tensor, "n"]
    """log p(what is given), in nats, from those weights."""
    log_evidence_error: Float[Tensor, "n"]
    """Its standard error, in nats."""
    effective_samples: Float[Tensor, "n"]
    """1 / sum of squared weights; for nuts the smallest of all numbers of u. For method guide,
    whose samples are not weighted, what the weights would leave of them."""
    pareto_k: Float[Tensor, "n"]
    """Shape of the tail of the weights (Vehtari et al., 2024): above 0.7 neither they nor the
    errors that come of them are to be trusted. NaN where it is not known, of fewer than 21
    samples; 0 where all weights are alike, and of nuts."""
    r_hat: dict[str, Float[Tensor, "n"]]
    """Split r-hat of each random site, the largest of its numbers; of nuts alone."""
    divergences: int
    """Transitions of nuts that diverged, of all images together, which move as one."""
    chains: int
    notes: tuple[str, ...]
    """What one should know before trusting it, a sentence each."""

    def __repr__(self) -> str:
        s, n = self.weights.shape
        return (
            f"Posterior(method={self.method!r}, samples={s}, images={n}, "
            f"trusted={int(self.trusted.sum())} of {n}, notes={list(self.notes)})"
        )

    @property
    def trusted(self) -> Bool[Tensor, "n"]:
        """Whether there are enough effective samples, tails known to be light, and chains that
        have mixed without diverging.
        """
        mixed = torch.full_like(self.effective_samples, not self.divergences, dtype=torch.bool)
        for values in self.r_hat.values():
            mixed &= values <= MIXED
        return mixed & (self.effective_samples >= ENOUGH) & (self.pareto_k <= HEAVY)

    @cached_property
    def samples(self) -> dict[str, Tensor]:
        """Every site's samples by name, (S, N, ...), the canvas among them."""
        s, n = self.weights.shape
        return {name: value.unflatten(0, (s, n)) for name, value in self.tree.sites().items()}

    @property
    def canvas(self) -> Float[Tensor, "s n c h w"]:
        """The image before noise."""
        return self.samples["canvas"]

    def mean(self, name: str) -> Tensor:
        """A site's posterior mean, (N, ...)."""
        return self.expectation(self.samples[name])

    def variance(self, name: str) -> Tensor:
        """A site's posterior variance, number by number, (N, ...)."""
        return self.expectation((self.samples[name] - self.mean(name)).square())

    def covariance(self, name: str) -> Float[Tensor, "n d d"]:
        """The posterior covariance of a site's numbers, flattened."""
        apart = (self.samples[name] - self.mean(name)).flatten(2)
        return torch.einsum("sn,sni,snj->nij", self.weights, apart, apart)

    def standard_error(self, name: str) -> Tensor:
        """Standard error of the mean, (N, ...).

        For method guide it has, besides, how far weighting the samples would move the mean.
        Infinite of one sample of many that there could be.
        """
        mean = self.mean(name)
        error = self._error(self.samples[name], mean)
        return error if self.method != "guide" else error.hypot(self._weighed().mean(name) - mean)

    def covariance_error(self, name: str) -> Float[Tensor, "n d d"]:
        """Standard error of the covariance, likewise."""
        apart, covariance = (self.samples[name] - self.mean(name)).flatten(2), self.covariance(name)
        error = self._error(apart.unsqueeze(-1) * apart.unsqueeze(-2), covariance)
        if self.method != "guide":
            return error
        return error.hypot(self._weighed().covariance(name) - covariance)

    def resample(self, num: int, name: str = "canvas", seed: int = 0) -> Tensor:
        """Samples of a site that count alike, (num, N, ...): drawn anew by weight."""
        generator = torch.Generator().manual_seed(seed)
        rows = self.weights.T.cpu().multinomial(num, True, generator=generator)
        values = self.samples[name]
        return torch.stack([values[row.to(values.device), i] for i, row in enumerate(rows)], 1)

    def part_probabilities(self, depth: int = 1) -> Float[Tensor, "n chances h w"]:
        """For each pixel the probability that a part made it, and, last, that none did.

        A part's chance is its share of the pixel's ink; ink above 1 counts as 1. Averaged over
        samples and colours.

        Args:
            depth: 1 for parts, 2 for sub-parts, numbered through all parts.
        """
        found: Any = 0.0
        for weights, tree in zip(self.weights, self.tree.split(self.weights.shape[1]), strict=True):
            shares = tree.contributions(depth).mean(2).clamp(min=0)
            ink = shares.sum(1, keepdim=True)
            made = shares / ink.clamp(min=1)
            every = torch.cat([made, 1 - ink.clamp(max=1)], 1)
            found = found + every * weights.view(-1, 1, 1, 1)
        return found

    def to_dict(self, image: int) -> dict[str, Any]:
        """One image's answer as JSON types: evidence, trust, means and deviations by site.

        What is not known, as the tail of few weights, is None, and so is what is infinite, as the
        effective samples where nothing was random.
        """

        def number(value: Tensor) -> float | None:
            return float(value) if value.isfinite() else None

        return {
            "log_evidence": number(self.log_evidence[image]),
            "log_evidence_error": number(self.log_evidence_error[image]),
            "effective_samples": number(self.effective_samples[image]),
            "pareto_k": number(self.pareto_k[image]),
            "trusted": bool(self.trusted[image]),
            "r_hat": {name: number(value[image]) for name, value in self.r_hat.items()},
            "divergences": self.divergences,
            "sites": {
                name: {"mean": mean[image].tolist(), "std": deviation[image].tolist()}
                for name, (mean, deviation) in self._moments.items()
            },
        }

    @cached_property
    def _moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        names = [name for name in self.samples if name != "canvas"]
        return {name: (self.mean(name), self.variance(name).clamp(min=0).sqrt()) for name in names}

    def to_arviz(self) -> Any:
        """The answer as ArviZ's `InferenceData`, which `to_netcdf` can write.

        Samples that count alike, those of nuts and of the guide, are the group `posterior`.
        Weighted ones, of importance and svi, are the group `proposal`, just as they were drawn:
        ArviZ knows no weights, and would take repeats of a sample that is drawn anew by weight
        (see `resample`) for independent samples, and the proposal's mean for the posterior's.

        A site has dots in its name, `a.0.2` for `a/0/2`, since NetCDF takes no slashes; the
        attribute `site` is its own. Dimensions are chain, draw and image, then program, or field
        (scale_x, ...), or channel, y and x. The group `sample_stats` has `log_weight` of each
        sample and, of each image, `effective_samples`, `pareto_k`, `trusted`, `log_evidence` and
        `log_evidence_error`; the group `log_likelihood`, where pixels are seen, `x`.

        Raises:
            ModuleNotFoundError: if ArviZ is not installed.
        """
        import arviz

        def draws(value: Tensor) -> Tensor:
            return value.unflatten(0, (self.chains, -1))

        every = ("chain", "draw", "image")
        samples = {
            name: ((*every, *DIMENSIONS[name.split("/")[0]]), draws(value), {"site": name})
            for name, value in self.samples.items()
        }
        each = ("effective_samples", "pareto_k", "trusted", "log_evidence", "log_evidence_error")
        stats: dict[str, Any] = {name: (("image",), getattr(self, name)) for name in each}
        kind = "posterior"
        if self.log_weights is not None and not self.r_hat:  # chains are not what has weights
            stats["log_weight"] = (every, draws(self.log_weights))
            kind = "posterior" if self.method == "guide" else "proposal"
        enough = {"effective_samples": self.effective_samples.tolist()}
        groups = {kind: _dataset(samples, **enough), "sample_stats": _dataset(stats)}
        if self.log_likelihood is not None:
            groups["log_likelihood"] = _dataset({"x": (every, draws(self.log_likelihood))})
        about = {"method": self.method, "divergences": self.divergences}
        return arviz.InferenceData(attrs={**about, "notes": "\n".join(self.notes)}, **groups)

    def expectation(self, values: Tensor) -> Tensor:
        """The posterior mean of what is computed of each sample, (S, N, ...): (N, ...)."""
        return self._weigh(values).sum(0)

    def _weigh(self, values: Tensor) -> Tensor:
        return values * self.weights.view(*self.weights.shape, *[1] * (values.ndim - 2))

    def _error(self, values: Tensor, mean: Tensor) -> Tensor:
        if self.log_weights is not None and len(values) == 1:
            return torch.full_like(mean, math.inf)
        if self.r_hat:
            enough = chain_size(values.unflatten(0, (self.chains, -1)))
            enough = enough.where(enough.isfinite(), 1.0)  # a chain that stands still says little
            still = (values == values[:1]).all(0)  # as what was given, of which r-hat knows nothing
            error = (self.expectation((values - mean).square()) / enough).sqrt()
            return torch.where(still, 0.0, error)
        return self._weigh(values - mean).square().sum(0).sqrt()

    def _weighed(self) -> Posterior:
        """The same samples with the weights that the guide's own answer leaves out."""
        if self.log_weights is None:
            return self
        return replace(self, weights=self.log_weights.softmax(0))


def _dataset(values: Mapping[str, tuple[Any, ...]], **attrs: Any) -> Any:
    """An xarray dataset of tensors by name: dimensions, the tensor and, if any, attributes."""
    import xarray

    found = xarray.Dataset(
        {
            name.replace("/", "."): (dims, value.cpu().numpy(), *rest)
            for name, (dims, value, *rest) in values.items()
        },
        attrs=attrs,
    )
    places: dict[Any, Any] = {dim: range(size) for dim, size in found.sizes.items()}
    return found.assign_coords(places | ({"field": list(FIELDS)} if "field" in places else {}))


class ImportanceWeights(NamedTuple):
    """What weights say, (N,) but for themselves; see `Posterior`."""

    weights: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    effective_samples: Tensor
    pareto_k: Tensor

    def poor(self) -> str:
        """A sentence on answers that have too few samples or too heavy tails; empty if none."""
        s, enough, tails = len(self.weights), self.effective_samples, self.pareto_k
        few, heavy, unknown = ~(enough >= ENOUGH), tails > HEAVY, tails.isnan()
        bad = int((few | heavy | unknown).sum())
        why = []
        if few.any():
            least = f"the least has {float(enough.min()):.1f}"
            why.append(f"fewer than {ENOUGH:g} effective samples of {s} ({least})")
        if heavy.any():
            worst = f"the worst has {float(tails[heavy].max()):.2f}"
            why.append(f"weights with a tail of Pareto k above {HEAVY} ({worst})")
        if unknown.any() and s < FEWEST:
            why.append(f"weights with an unknown tail (take {FEWEST} samples or more to know it)")
        elif unknown.any():
            why.append("weights that are not finite")
        sentence = f"{bad} of {len(enough)} answers are not to be trusted: {', or '.join(why)}."
        return sentence if bad else ""


def importance_weights(log_weights: Tensor, exact: bool = False) -> ImportanceWeights:
    """What the log-weights of samples, (S, N), say.

    Args:
        exact: whether nothing was random, so that one sample is all there is.
    """
    s = len(log_weights)
    weights = log_weights.softmax(0)
    evidence = log_weights.logsumexp(0) - math.log(s)
    if exact:
        zero = torch.zeros_like(evidence)
        return ImportanceWeights(weights, evidence, zero, zero + math.inf, zero)
    error = (s * weights - 1).square().sum(0).div(s * max(s - 1, 1)).sqrt()
    if s == 1:
        error = torch.full_like(error, math.inf)
    tails = torch.tensor([pareto_k(row) for row in log_weights.T.cpu()]).to(error)
    return ImportanceWeights(weights, evidence, error, 1 / weights.square().sum(0), tails)


def pareto_k(log_weights: Tensor) -> float:
    """Pareto's k of the largest weights of one image; 0 where all are alike.

    NaN where it cannot be known: of fewer than `FEWEST` samples, or where no weight is finite.
    """
    s = len(log_weights)
    most = math.ceil(min(0.2 * s, 3 * math.sqrt(s)))
    ordered = (log_weights.double() - log_weights.max()).sort().values
    if s > 1 and float(ordered[0]) > -1e-3:
        return 0.0
    if s < FEWEST or ordered.isnan().any():
        return math.nan
    beyond = (ordered[-most:].exp() - ordered[-most - 1].exp()).clamp(min=1e-300)
    return float(fit_generalized_pareto(beyond)[0])


def chain_size(values: Tensor) -> Tensor:
    """Effective samples of chains, (chains, draws, ...), number by number.

    At most S log10(S) of S draws, as Stan has it: of few draws the estimate may be more than that,
    or negative. NaN where nothing moves.
    """
    s = values.shape[0] * values.shape[1]
    return s / (s / effective_sample_size(values, 0, 1)).clamp(min=1 / math.log10(s))


def mixing(r_hat: dict[str, Tensor], diverged: int, num: int) -> list[str]:
    """What to say of chains that diverged or have not mixed, a sentence each."""
    found = []
    if diverged:
        found.append(f"{diverged} of {num} transitions diverged: the answer may miss a part.")
    worst = torch.stack(list(r_hat.values())).amax(0)
    apart = int((~(worst <= MIXED)).sum())
    if apart:
        found.append(
            f"{apart} of {len(worst)} answers are not to be trusted: chains disagree, with r-hat "
            f"up to {float(worst.max()):.2f} (above {MIXED}); take more samples or warm-up."
        )
    return found
