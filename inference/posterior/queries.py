"""Questions to a trained model: what follows from pixels, from parts, or from nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor

from inference.isolation import frozen
from inference.posterior.engines import fit, nuts
from inference.posterior.evidence import TOLERANCE, read_evidence
from inference.posterior.log_density import LogDensity
from inference.posterior.posterior import Method, Posterior, chain_size, importance_weights, mixing
from pyro_rnp import RNP
from pyro_rnp.checks import Images


@torch.no_grad()
def query(
    rnp: RNP,
    images: Images | None = None,
    *,
    given: Mapping[str, Tensor] | None = None,
    mask: Images | None = None,
    method: Method = "svi",
    num_samples: int = 200,
    num_images: int | None = None,
    steps: int = 200,
    warmup: int = 100,
    chains: int = 4,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """The posterior given pixels and sites, by name.

    Several threads may ask at the same time. They take turns, since Pyro has one stack of handlers
    in a process; a thread that runs Pyro by itself meanwhile must hold `pyro_rnp.contract.PYRO`.

    Args:
        images: (N, C, H, W) in [0, 1], whatever is there where the mask hides; None for a
            question without an image.
        given: sites, as `z/1` or `a/0`, to values, (N, d) or (d,) for all: programs of |z|
            numbers, actions of six in the units of `pyro_rnp.affine`. Random sites are held
            exactly; those that the model determines softly, within `tolerance`.
        mask: what is seen, True or 1: (H, W), (N, H, W) or (N, C, H, W); None for all.
        method: `guide`, its own samples as they are; `importance`, the same weighted; `svi`, a
            normal fitted for each image, from where the guide says, and weighted; `nuts`, from
            there, in coordinates where that normal is a standard one.
        num_samples: S; of nuts in all chains together.
        num_images: N of a question without an image and with values for all.
        steps: of svi, and before nuts.
        warmup: of nuts.
        chains: of nuts.
        tolerance: standard deviation of a determined site around what is given, as a share of the
            range of its numbers.
        seed: of all that is drawn; the caller's random state stays as it was.
        progress: whether to show a bar where it takes more than five seconds.

    Raises:
        ValueError: in one sentence, if a site does not exist or a value, the mask or the images
            are not what the model has; or if memory does not hold so many samples.
    """
    for name, number in {"num_samples": num_samples, "chains": chains, "warmup": warmup}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}.")
    if method == "nuts" and num_samples < 4 * chains:
        raise ValueError(f"nuts needs 4 samples a chain: num_samples of {4 * chains} or more.")
    evidence = read_evidence(rnp, images, dict(given or {}), mask, num_images, tolerance)
    with frozen(rnp, seed), pyro.validation_enabled(False):
        density = LogDensity(rnp, evidence, progress)
        density.check_memory(num_samples)
        notes = evidence.notes(rnp.config)
        r_hat: dict[str, Tensor] = {}
        diverged = 0
        if method in ("guide", "importance") and _is_point(rnp):
            raise ValueError(
                "A guide that is a point, as map, has no density to weigh samples with; use svi or "
                "nuts, or rnp.parse for the point itself."
            )
        if method == "guide" and density.size and evidence.soft:
            raise ValueError(
                f"The guide cannot hold {', '.join(evidence.soft)}, which this model determines; "
                "use importance, svi or nuts."
            )
        if not density.size:
            log_weights, tree = density.visit(evidence.images.new_zeros(1, len(evidence.images), 0))
        elif method in ("guide", "importance"):
            _, log_q, log_p, tree = density.propose(num_samples)
            log_weights = log_p - log_q
        else:
            fitted = fit(density, steps)
            u, log_q = fitted.draw(num_samples)
            log_p, tree = density.visit(u)
            log_weights = log_p - log_q
        found = importance_weights(log_weights, exact=not density.size)
        poor = found.poor()
        if method == "guide" and density.size:
            if evidence.hard:
                notes.append(
                    f"The guide has not looked at {', '.join(evidence.hard)}; only what it draws "
                    "after them can follow."
                )
            weights = torch.full_like(found.weights, 1 / len(found.weights))
            found = found._replace(weights=weights)
        elif method == "nuts" and density.size:
            if poor:
                notes.append(f"The log evidence, from the fit before the chains: {poor}")
            u, diverged = nuts(density, fitted, num_samples, warmup, chains)
            _, tree = density.visit(u.flatten(0, 1))
            r_hat = {
                name: split_gelman_rubin(values, 0, 1).amax(-1)
                for name, values in density.apart(u).items()
            }
            notes += mixing(r_hat, diverged, u.shape[1])
            size = u.shape[0] * u.shape[1]
            found = found._replace(
                weights=u.new_full((size, u.shape[2]), 1 / size),
                effective_samples=chain_size(u).amin(-1),
                pareto_k=torch.zeros_like(found.pareto_k),
            )
            poor = found.poor()
        log_likelihood = density.log_likelihood(tree)
    if poor:
        notes.append(poor)
    return Posterior(
        method=method,
        tree=tree,
        log_weights=log_weights if density.size else None,
        log_likelihood=log_likelihood,
        r_hat=r_hat,
        divergences=diverged,
        chains=chains if r_hat else 1,
        notes=tuple(notes),
        **found._asdict(),
    )


def _is_point(rnp: RNP) -> bool:
    c = rnp.config
    blank = next(rnp.parameters()).new_zeros(1, c.channels, c.image_size, c.image_size)
    return isinstance(rnp.guide.posterior(blank), dist.Delta)
