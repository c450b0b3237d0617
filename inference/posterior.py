"""Questions to a trained model: what follows from pixels, from parts, or from nothing at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from inference.answer import ENOUGH, HEAVY, Answer, Method, mixing, tail, weighted
from inference.engines import fit, nuts
from inference.given import TOLERANCE, what_is_known
from inference.target import Target, at_rest
from pyro_rnp import RNP


@torch.no_grad()
def query(
    rnp: RNP,
    images: Float[Tensor, "n c h w"] | None = None,
    *,
    given: Mapping[str, Tensor] | None = None,
    mask: Tensor | None = None,
    method: Method = "svi",
    num_samples: int = 200,
    num_images: int | None = None,
    steps: int = 200,
    warmup: int = 100,
    chains: int = 4,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: bool = True,
) -> Answer:
    """The posterior given pixels and sites, by name.

    Args:
        images: (N, C, H, W) in [0, 1]; None for a question without an image.
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
            are not what the model has.
    """
    for name, number in {"num_samples": num_samples, "chains": chains, "warmup": warmup}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}.")
    if method == "nuts" and num_samples < 4 * chains:
        raise ValueError(f"nuts needs 4 samples a chain: num_samples of {4 * chains} or more.")
    known = what_is_known(rnp, images, dict(given or {}), mask, num_images, tolerance)
    devices = [rnp.device] if rnp.device.type == "cuda" else []
    with torch.random.fork_rng(devices), at_rest(rnp), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        target = Target(rnp, known)
        notes = known.notes(rnp.config)
        r_hat: dict[str, Tensor] = {}
        if method in ("guide", "importance") and _is_point(rnp):
            raise ValueError(
                "A guide that is a point, as map, has no density to weigh samples with; use svi or "
                "nuts, or rnp.parse for the point itself."
            )
        if not target.size:
            u, log_q = torch.zeros(1, len(known.images), 0, device=rnp.device), None
        elif method == "guide" and known.soft:
            raise ValueError(
                f"The guide cannot hold {', '.join(known.soft)}, which this model determines; use "
                "importance, svi or nuts."
            )
        elif method in ("guide", "importance"):
            u, log_q = target.propose(num_samples)
        else:
            fitted = fit(target, steps, progress)
            u, log_q = fitted.draw(num_samples)
        log_p, tree = target.visit(u)
        log_weights = None if log_q is None else log_p - log_q
        weights, evidence, error, enough = weighted(log_p if log_weights is None else log_weights)
        if method == "guide" and log_weights is not None:
            if known.hard:
                notes.append(
                    f"The guide has not looked at {', '.join(known.hard)}; only what it draws "
                    "after them can follow."
                )
            weights = torch.full_like(weights, 1 / len(weights))
        elif method == "nuts" and target.size:
            u, diverged = nuts(target, fitted, num_samples, warmup, chains, progress)
            _, tree = target.visit(u.flatten(0, 1))
            weights = tree.program.new_full((u.shape[0] * u.shape[1], u.shape[2]), 1.0)
            weights = weights / len(weights)
            enough = effective_sample_size(u, 0, 1).amin(-1)
            r_hat = {
                name: split_gelman_rubin(values, 0, 1).amax(-1)
                for name, values in target.apart(u).items()
            }
            notes += mixing(r_hat, diverged, u.shape[0] * u.shape[1])
    tails = torch.zeros_like(enough)
    if log_weights is None:
        enough = torch.full_like(enough, math.inf)
    elif method in ("guide", "importance"):
        tails = torch.tensor([tail(row) for row in log_weights.T.cpu()]).to(enough)
    poor = int((~((enough >= ENOUGH) & (tails <= HEAVY))).sum())
    if poor:
        notes.append(
            f"{poor} of {len(enough)} answers are not to be trusted: fewer than {ENOUGH:g} "
            f"effective samples of {len(weights)} (the least has {float(enough.min()):.1f}), or "
            f"weights with a tail of Pareto k above {HEAVY} (the worst has "
            f"{float(tails.max()):.2f})."
        )
    chains = chains if method == "nuts" and target.size else 1
    return Answer(
        method,
        tree,
        weights,
        log_weights,
        evidence,
        error,
        enough,
        tails,
        r_hat,
        chains,
        tuple(notes),
    )


def _is_point(rnp: RNP) -> bool:
    c = rnp.config
    blank = torch.zeros(1, c.channels, c.image_size, c.image_size, device=rnp.device)
    return isinstance(rnp.guide.posterior(blank), dist.Delta)
