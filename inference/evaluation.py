"""Figures that say how well a model explains images."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.distributions import kl_divergence

from inference.data import ImageSet
from pyro_rnp import RNP, ParseTree
from pyro_rnp.checks import check_images


@torch.no_grad()
def evaluate(rnp: RNP, data: ImageSet, batch_size: int = 500, seed: int = 0) -> dict[str, float]:
    """Means over images, of one posterior sample each unless said.

    Returns:
        `sse` squared error summed over an image's pixels; `sse_mean` the same at the posterior
        mean; `mse` squared error per pixel; `kl` KL(q(z^K|x) || p(z^K)) in nats; `elbo` the
        evidence lower bound in nats, without the part term; `explained` the share of the images'
        squared intensity, 1 - SSE / sum of x^2. Where the true segments are known also
        `ari_parts` and, from two levels on, `ari_subparts`, see `adjusted_rand`.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    check_images(data.images, rnp.config)
    totals: dict[str, float] = {}
    devices = [rnp.device] if rnp.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for start in range(0, len(data), batch_size):
            batch = data[start : start + batch_size]
            for name, value in _totals(rnp, batch).items():
                totals[name] = totals.get(name, 0.0) + value
    power = totals.pop("power")
    means = {name: total / len(data) for name, total in totals.items()}
    means["mse"] = means["sse"] / data.images[0].numel()
    means["explained"] = 1 - totals["sse"] / power if power else float("nan")
    return means


def _totals(rnp: RNP, batch: ImageSet) -> dict[str, float]:
    x = batch.images.to(rnp.device)
    posterior = rnp.guide.posterior(x)
    sampled = rnp.model.recursion(posterior.rsample())
    at_mean = rnp.model.recursion(posterior.mean)
    kl = kl_divergence(posterior, rnp.model.prior().expand(posterior.batch_shape))
    log_likelihood = rnp.model.likelihood(sampled.canvas).log_prob(x)
    totals = {
        "sse": (sampled.canvas - x).square().sum(),
        "sse_mean": (at_mean.canvas - x).square().sum(),
        "kl": kl.sum(),
        "elbo": (log_likelihood - kl).sum(),
        "power": x.square().sum(),
    }
    if batch.segments is not None:
        for depth, name in ((1, "ari_parts"), (2, "ari_subparts")):
            if depth <= rnp.config.depth:
                totals[name] = adjusted_rand(at_mean, batch.segments[:, depth - 1], depth).sum()
    return {name: float(value) for name, value in totals.items()}


def segment(tree: ParseTree, depth: int) -> Int[Tensor, "n h w"]:
    """Each pixel's strongest part (depth 1) or sub-part (depth 2, numbered through all parts)."""
    return tree.contributions(depth).sum(2).argmax(1)


def adjusted_rand(tree: ParseTree, truth: Int[Tensor, "n h w"], depth: int) -> Float[Tensor, "n"]:
    """Adjusted Rand index of a parse against the true segments, over the pixels that have one.

    1 is the same partition, 0 what chance gives. Pixels with truth -1 do not count.
    """
    found = segment(tree, depth).cpu()
    scores = [
        adjusted_rand_score(t[t >= 0].numpy(), f[t >= 0].numpy())
        for t, f in zip(truth.cpu(), found, strict=True)
    ]
    return torch.tensor(scores)
