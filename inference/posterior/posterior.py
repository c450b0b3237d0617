"""The posterior that a query returns: weighted samples of every site, moments and their errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inference.posterior.chains import MIXED, chain_size
from inference.posterior.engine import Samples
from inference.posterior.evidence import Evidence
from inference.posterior.islands import island_error
from inference.posterior.weights import ENOUGH, HEAVY
from pyro_rnp.affine import FIELDS
from pyro_rnp.checks import Images

DIMENSIONS = {"z": ("program",), "a": ("field",), "canvas": ("channel", "y", "x")}
"""Names of the dimensions of a kind of site in ArviZ, after those of samples and images."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Posterior(Samples):
    """The posterior of N images given evidence: S weighted samples of every site of each.

    It has the fields of `Samples` and, besides, the samples by site, their moments with standard
    errors, and the export to ArviZ. Sites are programs `z`, `z/0`, ..., actions `a/0`, ... in the
    units of `pyro_rnp.affine`, and the `canvas`. Samples have shape (S, N, ...); those of several
    chains follow each other.

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
    log_likelihood: Float[Tensor, "s n"] | None
    """log p(seen pixels | canvas) of each sample, in nats; None where no pixel is seen."""
    evidence: Evidence | None = None
    """The pixels and sites that were given, which `plot` draws."""

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
        most 1.05 at every site and no divergence.
        """
        mixed = torch.full_like(self.effective_samples, not self.divergences, dtype=torch.bool)
        for values in self.r_hat.values():
            mixed &= values <= MIXED
        if self.doubtful is not None:
            mixed &= ~self.doubtful
        return mixed & (self.effective_samples >= ENOUGH) & (self.pareto_k <= HEAVY)

    @cached_property
    def samples(self) -> dict[str, Tensor]:
        """The samples of every site by name, (S, N, ...), the canvas among them."""
        s, n = self.weights.shape
        return {name: value.unflatten(0, (s, n)) for name, value in self.tree.sites().items()}

    @property
    def canvas(self) -> Float[Tensor, "s n c h w"]:
        """Samples of the image before noise."""
        return self.samples["canvas"]

    def mean(self, name: str) -> Tensor:
        """Return the posterior mean of a site, (N, ...).

        Args:
            name: name of the site, as `z`, `a/0` or `canvas`.
        """
        return self.expectation(self.samples[name])

    def variance(self, name: str) -> Tensor:
        """Return the posterior variance of each number of a site, (N, ...).

        Args:
            name: name of the site.
        """
        return self.expectation((self.samples[name] - self.mean(name)).square())

    def covariance(self, name: str) -> Float[Tensor, "n d d"]:
        """Return the posterior covariance of the numbers of a site, (N, D, D).

        Args:
            name: name of a site of D numbers; those of the canvas are flattened.
        """
        apart = (self.samples[name] - self.mean(name)).flatten(2)
        return torch.einsum("sn,sni,snj->nij", self.weights, apart, apart)

    def standard_error(self, name: str) -> Tensor:
        """Return the Monte Carlo standard error of a site's mean, (N, ...).

        Unweighted samples of a proposal (method guide) are biased: their error has, besides, how
        far weighting the samples would move the mean. The error of a single random sample is
        infinite.

        Args:
            name: name of the site.
        """
        mean = self.mean(name)
        error = self._error(self.samples[name], mean)
        if self.kind != "unweighted":
            return error
        return error.hypot(self._weighted().mean(name) - mean)

    def covariance_error(self, name: str) -> Float[Tensor, "n d d"]:
        """Return the Monte Carlo standard error of a site's covariance, (N, D, D).

        Args:
            name: name of the site; see `covariance`, and `standard_error` on biased samples.
        """
        apart, covariance = (self.samples[name] - self.mean(name)).flatten(2), self.covariance(name)
        error = self._error(apart.unsqueeze(-1) * apart.unsqueeze(-2), covariance)
        if self.kind != "unweighted":
            return error
        return error.hypot(self._weighted().covariance(name) - covariance)

    def resample(self, num: int, name: str = "canvas", seed: int = 0) -> Tensor:
        """Draw samples of a site by weight, with replacement, so that they count alike.

        Args:
            num: how many for each image.
            name: the site.
            seed: of the draw; torch's global state is not used.

        Returns:
            (num, N, ...), with repeats where weights are uneven.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = self.weights.T.cpu().multinomial(num, True, generator=generator)
        values = self.samples[name]
        return torch.stack([values[row.to(values.device), i] for i, row in enumerate(rows)], 1)

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
        found: Any = 0.0
        for weights, tree in zip(self.weights, self.tree.split(self.weights.shape[1]), strict=True):
            shares = tree.contributions(depth).mean(2).clamp(min=0)
            intensity = shares.sum(1, keepdim=True)
            made = shares / intensity.clamp(min=1)
            every = torch.cat([made, 1 - intensity.clamp(max=1)], 1)
            found = found + every * weights.view(-1, 1, 1, 1)
        return found

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
        names = [name for name in self.samples if name != "canvas"]
        return {name: (self.mean(name), self.variance(name).clamp(min=0).sqrt()) for name in names}

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

        return html(repr(self), lambda: self._few(SHOWN, 40).plot())

    def _few(self, images: int, samples: int) -> Posterior:
        """The posterior of the first images, by as many samples, drawn by weight."""
        s, n = self.weights.shape
        rows = self.weights[:, :images].mT.cpu()
        generator = torch.Generator().manual_seed(0)
        drawn = rows.multinomial(samples, True, generator=generator).mT.to(self.weights.device)
        columns = torch.arange(drawn.shape[1], device=drawn.device)

        def few(value: Tensor) -> Tensor:
            return value.unflatten(0, (s, n))[drawn, columns].flatten(0, 1)

        each = ("log_evidence", "log_evidence_error", "effective_samples", "pareto_k")
        return replace(
            self,
            tree=self.tree.map(few),
            weights=torch.full_like(self.weights[:1, :images], 1 / samples).expand(samples, -1),
            log_weights=None if self.log_weights is None else self.log_weights[:, :images],
            log_likelihood=None,
            evidence=None if self.evidence is None else self.evidence.first(images),
            islands=1,
            doubtful=None if self.doubtful is None else self.doubtful[:images],
            r_hat={name: value[:images] for name, value in self.r_hat.items()},
            diagnostics={name: value[:images] for name, value in self.diagnostics.items()},
            **{name: getattr(self, name)[:images] for name in each},
        )

    def to_arviz(self) -> Any:
        """Return the posterior as ArviZ's `InferenceData`, which `to_netcdf` can write.

        Samples that count alike, those of chains and of the guide, are the group `posterior`.
        Weighted samples, as of importance and svi, are the group `proposal`, just as they were
        drawn: ArviZ has no weights, and would take the repeats that `resample` makes for
        independent samples, and the proposal's mean for the posterior's.

        A site has dots in its name, `a.0.2` for `a/0/2`, since NetCDF takes no slashes; the
        attribute `site` holds its own name. Dimensions are chain, draw and image, then program, or
        field (scale_x, ...), or channel, y and x. The group `sample_stats` has `log_weight` of each
        sample and, of each image, `effective_samples`, `pareto_k`, `trusted`, `log_evidence` and
        `log_evidence_error`. Where pixels are seen, the group `log_likelihood` has `x`.

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
        group = "posterior"
        if self.log_weights is not None and self.kind != "chains":  # whose weights are the fit's
            stats["log_weight"] = (every, draws(self.log_weights))
            group = "proposal" if self.kind == "weighted" else "posterior"
        enough = {"effective_samples": self.effective_samples.tolist()}
        groups = {group: _dataset(samples, **enough), "sample_stats": _dataset(stats)}
        if self.log_likelihood is not None:
            groups["log_likelihood"] = _dataset({"x": (every, draws(self.log_likelihood))})
        about = {"method": self.method, "divergences": self.divergences}
        return arviz.InferenceData(attrs={**about, "notes": "\n".join(self.notes)}, **groups)

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
        if self.islands > 1:
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
