"""The posterior that a query returns: weighted samples of every site, moments and their errors."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyro
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from inference.isolation import Snapshot
from inference.posterior.chains import MIXED, chain_size
from inference.posterior.engine import Samples
from inference.posterior.evidence import Evidence
from inference.posterior.islands import island_error
from inference.posterior.log_density import AT_ONCE, LogDensity, check_memory
from inference.posterior.weights import ENOUGH, HEAVY
from pyro_rnp import ParseTree
from pyro_rnp.affine import FIELDS
from pyro_rnp.arguments import whole
from pyro_rnp.checks import Images
from pyro_rnp.parse_tree import Pose
from pyro_rnp.sites import sites

PIECE = 2**25
"""Products of numbers that the error of a covariance holds at a time."""
KEPT = 2**29
"""Bytes of the trees of all samples up to which a posterior keeps them."""
POSE = Pose._fields
"""Fields of `pose/0`, ...: the centre x and y and the width and height in pixels of the image, from
its left and top edges; the rotation in degrees, clockwise; and the shear."""
FIELDS_OF = {"a": FIELDS, "pose": POSE}
"""Names of the numbers of a kind of site."""
DIMENSIONS = {"z": ("program",), "canvas": ("channel", "y", "x")}
"""Names of the dimensions of the image's sites in ArviZ, after those of samples and images."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Posterior(Samples):
    """The posterior of N images given evidence: S weighted samples of every site of each.

    It has the fields of `Samples` and, besides, the samples by site, their moments with standard
    errors, and the export to ArviZ. Sites are programs `z`, `z/0`, ..., actions `a/0`, ... in the
    units of `pyro_rnp.affine`, and the `canvas`; `pose/0/2` is where a part lies in the image's
    pixels, see `SiteSamples`. Samples have shape (S, N, ...); those of several
    chains follow each other. A slice, `posterior[:4]`, is the posterior of some of the images.

    The samples are kept as `u`, a few numbers each. What is asked about their sites runs their
    programs by a copy of the model; trees of up to `KEPT` bytes are kept for the next question,
    those of more samples are run for a few images at a time, so that moments, quantiles and
    probabilities of any number of samples fit in memory.

    >>> from inference.posterior import query
    >>> from pyro_rnp import RNP, RNPConfig
    >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 1), program_size=3))
    >>> posterior = query(rnp, torch.rand(2, 1, 8, 8), method="importance", num_samples=50)
    >>> posterior.samples["a/0"].shape, posterior.mean("a/0").shape
    (torch.Size([50, 2, 6]), torch.Size([2, 6]))
    >>> posterior.part_probabilities().shape  # two parts, and none of them
    torch.Size([2, 3, 8, 8])
    """

    method: str
    """Name of the engine."""
    evidence: Evidence
    """The pixels and sites that were given, which `plot` draws."""
    snapshot: Snapshot
    """The model as it was when the query was asked, which runs the programs of the samples."""
    progress: bool = False
    """Whether to show bars where that takes more than five seconds."""

    def __repr__(self) -> str:
        s, n = self.weights.shape
        return (
            f"Posterior(method={self.method!r}, samples={s}, images={n}, "
            f"trusted={int(self.trusted.sum())} of {n}, notes={list(self.notes)})"
        )

    @property
    def trusted(self) -> Bool[Tensor, "n"]:
        """Whether each image's posterior passes its diagnostics.

        That is 10 effective samples or more, a Pareto k of at most 0.7 and, of chains, r-hat of at
        most 1.05 at every site and no divergence; of islands, that they agree and that the log
        evidence is known to 1 nat. Notes say which of these fails.
        """
        mixed = torch.full_like(self.effective_samples, not self.divergences, dtype=torch.bool)
        for values in self.r_hat.values():
            mixed &= values <= MIXED
        if self.doubtful is not None:
            mixed &= ~self.doubtful
        return mixed & (self.effective_samples >= ENOUGH) & (self.pareto_k <= HEAVY)

    def __getitem__(self, images: slice | int) -> Posterior:
        """Return the posterior of some of the images, whose notes are still those of all.

        Args:
            images: a slice, as `posterior[:4]`, or the number of one image.

        Raises:
            IndexError: if there is no image of that number.
        """
        if not isinstance(images, slice):
            number = range(self.weights.shape[1])[images]
            images = slice(number, number + 1)

        def some(value: Any) -> Any:  # images are the only dimension or the second
            if isinstance(value, dict):
                return {name: some(each) for name, each in value.items()}
            if not isinstance(value, Tensor):
                return value
            return value[images] if value.ndim == 1 else value[:, images]

        chosen = {field.name: some(getattr(self, field.name)) for field in fields(self)}
        chosen["evidence"] = self.evidence.take(images)
        return self._pick(lambda value: value[:, images], chosen)

    def _pick(self, pick: Callable[[Tensor], Tensor], changes: dict[str, Any]) -> Posterior:
        """The posterior with changes, and with the trees of some samples, (S, N, ...), if kept."""
        found = replace(self, **changes)
        if self._keeps:
            shape = self.weights.shape
            few = self.tree.map(lambda value: pick(value.unflatten(0, shape)).flatten(0, 1))
            vars(found)["tree"] = few
        return found

    def draw(self, num: int, seed: int = 0) -> Posterior:
        """The posterior by samples of even weight, drawn by their weights with replacement.

        Args:
            num: how many for each image.
            seed: of the draw; torch's global state is not used.

        Raises:
            TypeError: if num is no whole number.
            ValueError: if num is not positive.
        """
        whole(1, num=num)
        generator = torch.Generator().manual_seed(seed)
        rows = self.weights.mT.cpu().multinomial(num, True, generator=generator)
        rows = rows.mT.to(self.weights.device)
        columns = torch.arange(rows.shape[1], device=rows.device)
        return self._pick(
            lambda value: value[rows, columns],
            {
                "u": self.u[rows, columns],
                "weights": self.weights.new_full(rows.shape, 1 / num),
                "log_weights": None,
                "islands": 0,
            },
        )

    @cached_property
    def _density(self) -> LogDensity:
        with self.snapshot.frozen() as rnp, pyro.validation_enabled(False):
            return LogDensity(rnp, self.evidence, self.progress)

    @property
    def _nbytes(self) -> int:
        """Bytes of the trees of all samples."""
        return self._density.nbytes * len(self.weights)

    @property
    def _keeps(self) -> bool:
        """Whether the trees of all samples are kept."""
        return "tree" in vars(self) or self._nbytes <= KEPT

    def _run(self, f: Callable[[Tensor, ParseTree], Any]) -> Iterator[Any]:
        """Results of f for the weights, (s, N), and trees of a few samples at a time, in order."""
        n, start = self.weights.shape[1], 0
        with self.snapshot.frozen(), pyro.validation_enabled(False):
            few = n * max(1, AT_ONCE // n)
            for tree in self.tree.split(few) if self._keeps else self._density.trees(self.u):
                end = start + len(tree.program) // n
                yield f(self.weights[start:end], tree)
                start = end

    def split(self) -> Iterator[Posterior]:
        """Go through the images in order, so many at a time that their trees are kept.

        Several questions about the sites then run each program once.

        Yields:
            Posteriors of some of the images: of all, where memory keeps their trees.
        """
        if self._keeps:
            yield self
            return
        n = self.weights.shape[1]
        few = max(1, KEPT * n // self._nbytes)
        for i in tqdm(range(0, n, few), "images", disable=not self.progress, delay=5):
            yield replace(self[i : i + few], progress=False)

    def _each(self, f: Callable[[Posterior], Tensor]) -> Tensor:
        """Results of f, (N, ...), for the posteriors of some of the images after each other."""
        return torch.cat([f(part) for part in self.split()])

    @cached_property
    def tree(self) -> ParseTree:
        """The trees of all S * N samples, all N of the first sample first.

        Raises:
            ValueError: if memory does not hold them.
        """
        s, n = self.weights.shape
        check_memory(
            2 * self._nbytes,
            self.snapshot.rnp.device,
            f"The trees of {s} samples of {n} images need",
            "ask for samples of one site, for sample(k), or for fewer images at a time",
        )
        with self.snapshot.frozen(), pyro.validation_enabled(False):
            return ParseTree.join(list(self._density.trees(self.u)))

    @property
    def samples(self) -> SiteSamples:
        """The samples of every site by name, (S, N, ...), the canvas among them.

        Where trees are not kept, each look runs the programs, and holds one site alone.
        """
        return SiteSamples(self)

    @property
    def canvas(self) -> Float[Tensor, "s n c h w"]:
        """Samples of the image before noise."""
        return self.samples["canvas"]

    @cached_property
    def log_likelihood(self) -> Float[Tensor, "s n"] | None:
        """Log p(seen pixels | canvas) of each sample, in nats; None where no pixel is seen."""
        if not self.evidence.seen.any():
            return None
        n, log_p = self.weights.shape[1], self._density.log_likelihood
        found = self._run(lambda _, tree: log_p(tree.canvas.unflatten(0, (-1, n))))
        return torch.cat(list(found))

    def mean(self, name: str) -> Tensor:
        """Return the posterior mean of a site, (N, ...).

        Args:
            name: name of the site, as `z`, `a/0` or `canvas`.
        """
        return self._each(lambda part: part.expectation(part.samples[name]))

    def variance(self, name: str) -> Tensor:
        """Return the posterior variance of each number of a site, (N, ...).

        Args:
            name: name of the site.
        """
        return self._each(lambda part: part._moments_of(part.samples[name])[1])

    def _moments_of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of values, (S, N, ...)."""
        mean = self.expectation(values)
        return mean, self.expectation((values - mean).square())

    def covariance(self, name: str) -> Float[Tensor, "n d d"]:
        """Return the posterior covariance of the numbers of a site, (N, D, D).

        Args:
            name: name of a site of D numbers; those of the canvas are flattened.

        Raises:
            ValueError: if memory does not hold it.
        """
        self._check_covariance(name)
        return self._each(lambda part: part._covariance_of(part.samples[name])[1])

    def _check_covariance(self, name: str) -> None:
        n, d, device = self.weights.shape[1], len(self._fields(name)), self.snapshot.rnp.device
        what = f"The covariance of {name} of {n} images needs"
        needed = 3 * n * d * d * self.u.element_size()
        check_memory(needed, device, what, "ask for fewer images at a time, as posterior[:4]")

    def _covariance_of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values, (S, N, D), less their mean, and their covariance."""
        apart = (values - self.expectation(values)).flatten(2)
        return apart, torch.einsum("sn,sni,snj->nij", self.weights, apart, apart)

    def standard_error(self, name: str) -> Tensor:
        """Return the Monte Carlo standard error of a site's mean, (N, ...).

        Unweighted samples of a proposal (method guide) are biased: their error has, besides, how
        far weighting the samples would move the mean. The error of a single random sample is
        infinite.

        Args:
            name: name of the site.
        """
        return self._each(lambda part: part._standard_error_of(part.samples[name]))

    def _standard_error_of(self, values: Tensor) -> Tensor:
        mean = self.expectation(values)
        error = self._error(values, mean)
        if self.kind != "unweighted":
            return error
        return error.hypot(self._weighted().expectation(values) - mean)

    def covariance_error(self, name: str) -> Float[Tensor, "n d d"]:
        """Return the Monte Carlo standard error of a site's covariance, (N, D, D).

        Args:
            name: name of the site; see `covariance`, and `standard_error` on biased samples.

        Raises:
            ValueError: if memory does not hold it.
        """
        self._check_covariance(name)
        return self._each(lambda part: part._covariance_error_of(part.samples[name]))

    def _covariance_error_of(self, values: Tensor) -> Tensor:
        apart, covariance = self._covariance_of(values)
        few = max(1, PIECE // apart.numel())  # rows of the matrix
        pieces = zip(apart.split(few, -1), covariance.split(few, 1), strict=True)
        error = torch.cat(
            [self._error(rows.unsqueeze(-1) * apart.unsqueeze(-2), of) for rows, of in pieces], 1
        )
        if self.kind != "unweighted":
            return error
        return error.hypot(self._weighted()._covariance_of(values)[1] - covariance)

    def sample(self, num: int, seed: int = 0) -> ParseTree:
        """Draw samples by weight, with replacement, so that they count alike.

        Args:
            num: how many for each image.
            seed: of the draw; torch's global state is not used.

        Returns:
            num * N trees, all N of the first draw first, with repeats where weights are uneven.

        Raises:
            ValueError: if num is not positive.
        """
        return self.draw(num, seed).tree

    def resample(self, num: int, name: str = "canvas", seed: int = 0) -> Tensor:
        """Return the samples that `sample` draws at one site.

        Args:
            num: how many for each image.
            name: the site.
            seed: of the draw; torch's global state is not used.

        Returns:
            (num, N, ...), with repeats where weights are uneven.
        """
        return self.draw(num, seed).samples[name]

    def quantile(self, name: str, q: float | Sequence[float] | Tensor) -> Tensor:
        """Return posterior quantiles of each number of a site.

        A quantile is the smallest sample at which the weight of the samples up to it reaches q: the
        inverse of the weighted distribution function, which of equal weights is numpy's
        `inverted_cdf`.

        Args:
            name: name of the site.
            q: a probability in [0, 1], or K of them.

        Returns:
            (N, ...), or (K, N, ...) of K probabilities.

        Raises:
            ValueError: if a probability lies beyond [0, 1].
        """
        probabilities: Any = q.tolist() if isinstance(q, Tensor) else q
        one = isinstance(probabilities, int | float)
        several = [probabilities] if one else [float(each) for each in probabilities]
        if not all(0 <= each <= 1 for each in several):
            raise ValueError(f"q must lie in [0, 1], got {q}.")
        found = self._each(lambda part: part._quantiles_of(part.samples[name], several))
        return found[:, 0] if one else found.movedim(1, 0)

    def _quantiles_of(self, values: Tensor, q: Sequence[float]) -> Tensor:
        """Quantiles, (N, K, ...), of values, (S, N, ...)."""
        shape = values.shape[2:]
        values, order = values.flatten(2).sort(0)
        weights = self.weights.double().unsqueeze(-1).expand(values.shape).gather(0, order)
        reached = weights.cumsum(0).movedim(0, -1).contiguous()
        # Sums of rounded weights fall short of q, and samples without weight come before q = 0.
        at = reached.new_tensor(q).sub(1e-6).clamp(min=1e-30).expand(*reached.shape[:-1], -1)
        rows = torch.searchsorted(reached, at.contiguous()).clamp(max=len(values) - 1)
        return values.movedim(0, -1).gather(-1, rows).movedim(-1, 1).unflatten(2, shape)

    def interval(self, name: str, level: float = 0.95) -> Tensor:
        """Return the equal-tailed posterior interval of each number of a site.

        Args:
            name: name of the site.
            level: the probability within, in (0, 1); as much lies below as above.

        Returns:
            (2, N, ...), the lower and the upper ends, see `quantile`.

        Raises:
            ValueError: if the level lies beyond (0, 1).

        >>> from inference.posterior import query
        >>> from pyro_rnp import RNP, RNPConfig
        >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 1), program_size=3))
        >>> posterior = query(rnp, torch.rand(2, 1, 8, 8), method="importance", num_samples=50)
        >>> low, high = posterior.interval("pose/0/0", 0.9)  # of the first part's first sub-part
        >>> low.shape, bool((low <= high).all())
        (torch.Size([2, 6]), True)
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}.")
        return self.quantile(name, [(1 - level) / 2, (1 + level) / 2])

    def summary(
        self, names: Sequence[str] | None = None, level: float = 0.9, pixels: bool = False
    ) -> Summary:
        """Return a table of the posterior: a row for each number of each site of each image.

        Args:
            names: sites, in order; by default all programs and actions.
            level: the probability within the interval of a row, in (0, 1).
            pixels: whether an action `a/0/2` is shown as `pose/0/2`, where the part lies in the
                image; by default false.

        Returns:
            Rows with the index of the image, the `site` and the `field` of the number; its `mean`,
            standard deviation `sd` and the ends of its interval, as `5%` and `95%`; the standard
            error of the mean, `error`; and `ess`, how many independent samples would have that
            error, of weighted samples at most their `effective_samples`.

        Raises:
            ValueError: if the level lies beyond (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}.")
        if names is None:
            names = [name for name in self.samples if name != "canvas"]
        if pixels:
            names = ["pose" + name[1:] if name[0] == "a" else name for name in names]
        tails = (1 - level) / 2, (1 + level) / 2

        def statistics(part: Posterior) -> Tensor:
            values = part._numbers(names)
            mean, variance = part._moments_of(values)
            error, quantiles = part._standard_error_of(values), part._quantiles_of(values, tails)
            own = [mean, variance.clamp(min=0).sqrt(), error]
            return torch.cat([torch.stack(own, 1), quantiles], 1)

        found, rows = self._each(statistics).mT.tolist(), []
        # Where few weights are all, the error is too small to tell.
        weighted = self.kind == "weighted" and not self.islands
        most = self.effective_samples.tolist() if weighted else [math.inf] * len(found)
        fields_of = [(name, field) for name in names for field in self._fields(name)]
        for image, numbers in enumerate(found):
            for (name, field), (mean, sd, error, low, high) in zip(fields_of, numbers, strict=True):
                ess = min((sd / error) ** 2, most[image]) if 0 < error < math.inf else None
                found_row = {"image": image, "site": name, "field": field, "mean": mean, "sd": sd}
                ends = {f"{100 * tails[0]:.3g}%": low, f"{100 * tails[1]:.3g}%": high}
                shown = error if math.isfinite(error) else None
                rows.append({**found_row, **ends, "error": shown, "ess": ess})
        return Summary(rows)

    def _fields(self, name: str) -> Sequence[str]:
        """Names of the numbers of a site."""
        kind = name.split("/")[0]
        if kind in FIELDS_OF:
            return FIELDS_OF[kind]
        size = self.snapshot.rnp.config.program_size
        return [str(i) for i in range(size if kind == "z" else self.evidence.images[0].numel())]

    def _numbers(self, names: Sequence[str]) -> Tensor:
        """The numbers of sites after one another, (S, N, total)."""
        return torch.cat([self.samples[name].flatten(2) for name in names], -1)

    def part_probabilities(self, depth: int = 1) -> Float[Tensor, "n parts h w"]:
        """Return the posterior probability that each part made a pixel.

        In one sample, the probability of a part is its share of the pixel's intensity, of which all
        above 1 counts as 1. Probabilities are averaged over samples and colours.

        Args:
            depth: 1 for parts, 2 for sub-parts, numbered through all parts.

        Returns:
            (N, parts + 1, H, W), with the probability that no part made the pixel last. They add up
            to 1 over dimension 1.
        """

        def weighed(weights: Tensor, tree: ParseTree) -> Tensor:
            shares = tree.contributions(depth).mean(2).clamp(min=0)
            intensity = shares.sum(1, keepdim=True)
            made = shares / intensity.clamp(min=1)
            every = torch.cat([made, 1 - intensity.clamp(max=1)], 1)
            return torch.einsum("sn,snphw->nphw", weights, every.unflatten(0, weights.shape))

        return self._each(lambda part: sum(part._run(weighed)))

    def to_dict(self, image: int) -> dict[str, Any]:
        """Return one image's posterior as JSON types: evidence, diagnostics and moments by site.

        A number that is not finite is None: the Pareto k of few weights, or the effective samples
        where nothing is random.

        Args:
            image: which, from 0.
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
            "diagnostics": {name: number(x[image]) for name, x in self.diagnostics.items()},
            "sites": {
                name: {"mean": mean[image].tolist(), "std": deviation[image].tolist()}
                for name, (mean, deviation) in self._moments.items()
            },
        }

    @cached_property
    def _moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of every site but the canvas."""
        names = [name for name in self.samples if name != "canvas"]

        def moments(part: Posterior) -> Tensor:
            mean, variance = part._moments_of(part._numbers(names))
            return torch.stack([mean, variance.clamp(min=0).sqrt()], 1)

        found = self._each(moments).split([len(self._fields(name)) for name in names], -1)
        return {name: (both[:, 0], both[:, 1]) for name, both in zip(names, found, strict=True)}

    def plot(
        self, images: Images | None = None, path: str | Path | None = None, **options: Any
    ) -> Any:
        """Draw the posterior beside its evidence; see `inference.plotting.posterior_figure`.

        Args:
            images: (N, C, H, W) in [0, 1], whole images for a row above; by default only the pixels
                that were seen are shown.
            path: a .png, .svg or .pdf file to write; None writes nothing.
            options: as `posterior_figure` takes them; `seen` and `given` are those of the query.

        Returns:
            A matplotlib figure, which a notebook shows.
        """
        from inference.plotting import posterior_figure

        return posterior_figure(self, path, images, **options)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the text and a quick picture of the first images."""
        from pyro_rnp.plotting import SHOWN, html

        return html(repr(self), lambda: self[:SHOWN].draw(40).plot())

    def to_arviz(self) -> Any:
        """Return the posterior as ArviZ has it: `InferenceData`, of ArviZ 1 a `DataTree` of xarray.

        Samples that count alike, those of chains and of the guide, are the group `posterior`.
        Weighted samples, as of importance and svi, are the group `proposal`, just as they were
        drawn: ArviZ has no weights, and would take the repeats that `resample` makes for
        independent samples, and the proposal's mean for the posterior's.

        Variables are `z`, (chain, draw, image, program), `canvas`, (..., channel, y, x), and of all
        parts `actions`, (..., part, field), and `programs`, (..., part, program). The coordinate
        `part` is the path, "0/2", and `field` is scale_x, ..., y. The group `sample_stats` has
        `log_weight` of each sample and, of each image, `effective_samples`, `pareto_k`, `trusted`,
        `log_evidence` and `log_evidence_error`. Where pixels are seen, the group `log_likelihood`
        has `x`. `to_netcdf` writes all of it.

        Raises:
            ModuleNotFoundError: if ArviZ is not installed.
        """
        import arviz

        def draws(value: Tensor) -> Tensor:
            return value.unflatten(0, (self.chains, -1))

        every, values = ("chain", "draw", "image"), self.samples
        places = {"image": range(self.weights.shape[1]), "field": list(FIELDS)}
        samples: dict[str, Any] = {
            name: ((*every, *dims), draws(values[name])) for name, dims in DIMENSIONS.items()
        }
        if parts := [name[2:] for name in values if name[:2] == "a/"]:
            places["part"] = parts
            for name, kind, dim in (("actions", "a", "field"), ("programs", "z", "program")):
                stacked = torch.stack([values[f"{kind}/{part}"] for part in parts], 2)
                samples[name] = ((*every, "part", dim), draws(stacked))
        each = ("effective_samples", "pareto_k", "trusted", "log_evidence", "log_evidence_error")
        stats: dict[str, Any] = {name: (("image",), getattr(self, name)) for name in each}
        group = "posterior"
        if self.log_weights is not None and self.kind != "chains":  # whose weights are the fit's
            stats["log_weight"] = (every, draws(self.log_weights))
            group = "proposal" if self.kind == "weighted" else "posterior"
        enough = {"effective_samples": self.effective_samples.tolist()}
        groups = {group: _dataset(samples, places, **enough)}
        groups["sample_stats"] = _dataset(stats, places)
        if self.log_likelihood is not None:
            likelihood = {"x": (every, draws(self.log_likelihood))}
            groups["log_likelihood"] = _dataset(likelihood, places)
        about: dict[str, Any] = {"method": self.method, "divergences": self.divergences}
        about["notes"] = "\n".join(self.notes)
        if int(arviz.__version__.partition(".")[0]) < 1:
            return arviz.InferenceData(attrs=about, **groups)
        import xarray  # of ArviZ 1, which has no container of its own

        tree = xarray.DataTree.from_dict(groups)
        tree.attrs.update(about)
        return tree

    def expectation(self, values: Tensor) -> Tensor:
        """Return the posterior mean of a function of the sites, (N, ...).

        Args:
            values: the function's values at each sample, (S, N, ...).
        """
        return self._weigh(values).sum(0)

    def _weigh(self, values: Tensor) -> Tensor:
        return values * self.weights.view(*self.weights.shape, *[1] * (values.ndim - 2))

    def _error(self, values: Tensor, mean: Tensor) -> Tensor:
        if self.log_weights is not None and len(values) == 1:
            return torch.full_like(mean, math.inf)
        if self.islands:
            return island_error(values, self.weights, self.islands)
        if self.kind == "chains":
            enough = chain_size(values.unflatten(0, (self.chains, -1)))
            enough = enough.where(enough.isfinite(), 1.0)  # a chain that stands still says little
            still = (values == values[:1]).all(0)  # as a site that is given, which r-hat leaves out
            error = (self.expectation((values - mean).square()) / enough).sqrt()
            return torch.where(still, 0.0, error)
        return self._weigh(values - mean).square().sum(0).sqrt()

    def _weighted(self) -> Posterior:
        """The same samples with the weights that unweighted samples leave out."""
        if self.log_weights is None:
            return self
        return replace(self, weights=self.log_weights.softmax(0))


class SiteSamples(Mapping[str, Tensor]):
    """The samples of a posterior by site, (S, N, ...) each, which are run when they are looked up.

    Besides the sites of the model there are `pose/0`, `pose/0/2`, ..., which iterating leaves out:
    where a part lies in the image, through all parts above it, as `Pose` with the place and the
    size in pixels and the rotation in degrees. Their fields are those of `POSE`.

    Args:
        posterior: whose samples.
    """

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self.names = ("canvas", *sites(posterior.snapshot.rnp.config))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Tensor:
        of, shape, kind = self.posterior, self.posterior.weights.shape, name.split("/")[0]
        if (name if kind != "pose" else "a" + name.removeprefix("pose")) not in self.names:
            poses = " and pose/0, ..." if len(self.names) > 2 else ""
            raise KeyError(f"There is no site {name!r}; there are {', '.join(self.names)}{poses}.")

        def value_of(tree: ParseTree) -> Tensor:
            return _pose(tree, name) if kind == "pose" else tree.sites()[name]

        if of._keeps:
            return value_of(of.tree).unflatten(0, shape)
        found: Tensor | None = None
        start = 0
        for value in of._run(lambda _, tree: value_of(tree)):
            if found is None:
                needed = value[0].nbytes * shape.numel()
                what = f"{name} of {shape[0]} samples of {shape[1]} images needs"
                device = of.snapshot.rnp.device
                check_memory(needed, device, what, "ask for fewer images at a time")
                found = value.new_empty(shape.numel(), *value.shape[1:])
            found[start : start + len(value)] = value
            start += len(value)
        assert found is not None
        return found.unflatten(0, shape)


def _pose(tree: ParseTree, name: str) -> Tensor:
    pose = tree.pose(name.partition("/")[2], pixels=True)
    return torch.stack(list(pose._replace(rotation=pose.rotation.rad2deg())), -1)


class Summary(list[dict[str, Any]]):
    """Rows of a table, which prints as such.

    A row is a dictionary of JSON types, None where a number is not known, so that `json.dump` and
    `pandas.DataFrame` take the table as it is.
    """

    SHOWN: ClassVar[int] = 60
    """Rows that are printed."""

    def __repr__(self) -> str:
        if not self:
            return "Summary([])"
        cells = [list(self[0])]
        cells += [[_cell(value) for value in row.values()] for row in self[: self.SHOWN]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i in (1, 2) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        more = len(self) - self.SHOWN
        return "\n".join([*lines, f"... and {more} more rows"] if more > 0 else lines)

    def to_csv(self, path: str | Path) -> None:
        """Write the table as a CSV file with a line of names.

        Args:
            path: the file to write.
        """
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(self[0]) if self else [])
            writer.writeheader()
            writer.writerows(self)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _dataset(values: Mapping[str, tuple[Any, ...]], places: Mapping[str, Any], **attrs: Any) -> Any:
    """An xarray dataset of tensors by name, with dimensions, and of coordinates by dimension."""
    import xarray

    found = xarray.Dataset(
        {name: (dims, value.cpu().numpy()) for name, (dims, value) in values.items()}, attrs=attrs
    )
    return found.assign_coords(
        {dim: places.get(str(dim), range(size)) for dim, size in found.sizes.items()}
    )
