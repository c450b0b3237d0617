"""Engines that sample from the guide: its samples as they are, and weighted by the model."""

from __future__ import annotations

import torch
from pyro.distributions import Delta

from inference.posterior.adaptation import rounds_of_importance
from inference.posterior.engine import ENGINES, Engine, Samples, Settings
from inference.posterior.log_density import LogDensity
from inference.posterior.weights import REMEDY, importance_weights
from pyro_rnp import RNP
from pyro_rnp.arguments import whole


class _FromGuide(Engine):
    """An engine that needs the density of the guide's samples."""

    def check(self, density: LogDensity, settings: Settings) -> None:
        if is_point(density.rnp):
            raise ValueError(
                "A guide that is a point, as map, has no density to weigh samples with; use smc, "
                "svi, hmc or nuts, or rnp.parse for the point itself."
            )


@ENGINES.add("guide")
class GuideEngine(_FromGuide):
    """Samples of the guide as they are: amortised inference, with weights for its error alone.

    It is valid as far as the guide is close to the posterior. Random sites that are given are held,
    but sites that the guide draws before them do not learn of them, of which a note tells. The log
    evidence, effective samples and Pareto k are those of `ImportanceEngine`.

    Raises:
        ValueError: if the guide is a point, or a site is given that the model determines, which no
            sample of a guide can hold.
    """

    name = "guide"

    def check(self, density: LogDensity, settings: Settings) -> None:
        super().check(density, settings)
        if density.size and (soft := density.evidence.soft):
            raise ValueError(
                f"The guide cannot hold {', '.join(soft)}, which this model determines; "
                "use smc, importance, svi, hmc or nuts."
            )

    def sample(self, density: LogDensity, settings: Settings) -> Samples:
        u, log_q, log_p = density.propose(settings.num_samples)
        log_weights = log_p - log_q
        found = importance_weights(log_weights)
        notes = []
        if hard := density.evidence.hard:
            notes.append(
                f"The guide has not looked at {', '.join(hard)}; only what it draws "
                "after them can follow."
            )
        better = "take method='importance' with more num_samples, or method='smc'"
        notes += filter(None, [found.poor(better)])
        found = found._replace(weights=torch.full_like(found.weights, 1 / len(found.weights)))
        return Samples(
            kind="unweighted",
            u=u,
            log_weights=log_weights,
            notes=tuple(notes),
            **found._asdict(),
        )


@ENGINES.add("importance")
class ImportanceEngine(_FromGuide):
    """Self-normalised importance sampling with the guide as proposal.

    Where no pixel is seen the proposal is the prior. Where pixels are hidden, nine tenths of the
    samples are of the guide that has seen masks and one tenth of the prior, if the model has such a
    guide; else hidden pixels are first filled in with the model's own expectation, since a guide
    reads whole images; see `LogDensity.fill_hidden`.

    With `rounds` as many samples as are wanted first adapt a proposal in rounds, each around the
    samples before it, the first of which are of the guide; the answer is new samples of what comes
    of it, see `rounds_of_importance`. That needs no gradients, takes twice the time, and more
    samples are effective where the guide is far from right: take twenty rounds and `num_samples` of
    800 or more. Mass that no sample met stays unknown, so that the log evidence may still be lower
    than the truth by more than it states.

    It is valid for every guide that has a density, and for all evidence. Estimates are consistent
    in the number of samples if the guide is nowhere far narrower than the posterior, which Pareto k
    tells; the log evidence is then a lower bound in expectation.

    Source: Burda et al., "Importance weighted autoencoders", 2016; Rezende et al., "Stochastic
    backpropagation", 2014, for hidden pixels.

    Args:
        rounds: how many rounds adapt the proposal; by default 0, samples are of the guide.

    Raises:
        ValueError: if the guide is a point, or there are fewer samples than rounds.
    """

    name = "importance"

    def __init__(self, *, rounds: int = 0) -> None:
        whole(0, rounds=rounds)
        self.rounds = rounds

    def check(self, density: LogDensity, settings: Settings) -> None:
        super().check(density, settings)
        if self.rounds > settings.num_samples:
            raise ValueError(
                f"rounds must be at most num_samples, {settings.num_samples}, got {self.rounds}."
            )

    def sample(self, density: LogDensity, settings: Settings) -> Samples:
        num = settings.num_samples
        if self.rounds:
            u, log_weights = rounds_of_importance(density, num, self.rounds)
        else:
            u, log_q, log_p = density.propose(num, num // 10)
            log_weights = log_p - log_q
        found = importance_weights(log_weights)
        notes = tuple(filter(None, [found.poor(REMEDY)]))
        return Samples(u=u, log_weights=log_weights, notes=notes, **found._asdict())


def is_point(rnp: RNP) -> bool:
    """Whether a guide gives one program for an image instead of a distribution, as `map` does."""
    c = rnp.config
    blank = next(rnp.parameters()).new_zeros(1, c.channels, c.image_size, c.image_size)
    return isinstance(rnp.guide.posterior(blank), Delta)
