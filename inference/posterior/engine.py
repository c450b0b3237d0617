"""The contract of a query's engines: from a log-density to weighted samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from inference.posterior.log_density import LogDensity
from inference.posterior.weights import importance_weights
from pyro_rnp.registry import Registry

Method = Literal["guide", "importance", "svi", "smc", "hmc", "nuts"]
"""Names of the engines that come with the project."""
Kind = Literal["weighted", "unweighted", "chains"]
"""Of samples: `weighted` samples of a proposal; samples of a proposal that count alike although
weights say otherwise (`unweighted`); draws of Markov `chains`, which depend on each other."""

ENGINES: Registry[Engine] = Registry("engine")
"""Engines by name. `@ENGINES.add("mine")` adds an `Engine`, which `query(method="mine")` then uses;
options follow the name, as in `mine:temperatures=20`."""


@dataclass(frozen=True)
class Settings:
    """The numbers that `query` passes on to its engine; see there."""

    num_samples: int = 200
    steps: int = 200
    warmup: int = 100
    chains: int = 4


@dataclass(frozen=True, kw_only=True, repr=False)
class Samples:
    """S weighted samples of the posterior of each of N images, from one engine."""

    u: Float[Tensor, "s n d"]
    """The samples, as vectors of `LogDensity`. The trees of all samples would take a thousand times
    the memory; `Posterior` runs them when it is asked about sites."""
    weights: Float[Tensor, "s n"]
    """The weight of each sample; weights add up to 1 over the samples of an image."""
    kind: Kind = "weighted"
    log_weights: Float[Tensor, "r n"] | None
    """log p(u, evidence) - log q(u) of the R samples of a proposal q that the log evidence comes
    from, in nats. For nuts these are samples of the fitted normal, for hmc the islands that chains
    start from, else the samples here (R = S); for smc the log evidence of its own island stands at
    each sample. None where nothing is random."""
    log_evidence: Float[Tensor, "n"]
    """Estimate of log p(evidence), in nats."""
    log_evidence_error: Float[Tensor, "n"]
    """Standard error of the log evidence, in nats."""
    effective_samples: Float[Tensor, "n"]
    """1 / sum of squared weights; of chains the smallest over all numbers of u, of islands the
    smallest over the sites. For method guide, whose samples count alike, the number that weighting
    them would leave."""
    pareto_k: Float[Tensor, "n"]
    """Shape of the tail of the weights (Vehtari et al., 2024): above 0.7 neither the weights nor
    errors computed from them are reliable. NaN of fewer than 21 samples, where it is not known; 0
    where all weights are alike, and for chains and islands."""
    r_hat: dict[str, Float[Tensor, "n"]] = field(default_factory=dict)
    """Split r-hat of each random site, the largest over its numbers; of chains alone."""
    divergences: int = 0
    """Transitions of nuts that diverged, of all images together, which move as one state."""
    chains: int = 1
    """Chains, whose draws follow each other in S."""
    islands: int = 0
    """Populations of particles, independent of each other: sample s is of island s % islands.
    Errors come from their spread; 0: samples are no particles of islands."""
    doubtful: Bool[Tensor, "n"] | None = None
    """Images whose samples the engine does not trust for a reason of its own, which a note says."""
    diagnostics: dict[str, Float[Tensor, "n"]] = field(default_factory=dict)
    """Further numbers of each image by name, as the engine describes them."""
    notes: tuple[str, ...] = ()
    """Reasons not to trust the samples, a sentence each."""


class Engine(ABC):
    """Draws samples of a posterior, for N images at once.

    A new engine is one file: a subclass with `name`, `sample` and, if it is not valid for every
    density, `check`. It reaches the model through `LogDensity` alone: `visit` gives
    log p(u, evidence) of samples, `log_joint` gives it with its gradient, `propose` gives samples
    of the guide, and `fit_normal` of `inference.posterior.variational` a normal to start from.
    Random numbers come from torch's global state, which `query` seeds. What the posterior does with
    the samples u, (S, N, D), is no concern of an engine: it returns them with their weights.

    An engine is used only where something is random (`density.size` is at least 1), with gradients
    off (`torch.enable_grad` switches them on) and Pyro's validation off.
    """

    name: str
    """How `Posterior.method` calls it."""

    def check(self, density: LogDensity, settings: Settings) -> None:  # noqa: B027
        """Raise if the engine is not valid for a density, before anything is drawn.

        Args:
            density: log p(u, evidence) of u, (N, D).
            settings: numbers of samples, steps and chains.

        Raises:
            ValueError: in one sentence that says what else to do.
        """

    @abstractmethod
    def sample(self, density: LogDensity, settings: Settings) -> Samples:
        """Draw `settings.num_samples` samples for each image.

        Args:
            density: log p(u, evidence) of u, (N, D).
            settings: numbers of samples, steps and chains; an engine uses those that it needs.
        """


def determined(density: LogDensity) -> Samples:
    """Return the one sample there is where the evidence holds every random site."""
    images = density.evidence.images
    u = images.new_zeros(1, len(images), 0)
    found = importance_weights(density.visit(u), exact=True)
    notes = tuple(filter(None, [found.poor()]))
    return Samples(u=u, log_weights=None, notes=notes, **found._asdict())


def engine(method: str | Engine) -> Engine:
    """Return an engine, given itself or its name with options.

    Raises:
        TypeError: if `method` is neither.
        ValueError: if there is no engine of that name, or it has no such option.
    """
    if isinstance(method, Engine):
        return method
    if not isinstance(method, str):
        raise TypeError(f"method must be an engine or its name, as smc, got {method!r}.")
    if method.partition(":")[0] not in ENGINES.pieces:
        raise ValueError(f"method must be one of {', '.join(ENGINES.pieces)}, got {method!r}.")
    found: Any = ENGINES.make(method)
    return found
