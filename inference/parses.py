"""How a model takes images apart, in numbers (the paper's Figure 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from inference.evaluation import evaluating
from pyro_rnp import RNP


@contextmanager
def levels(rnp: RNP, number: int) -> Iterator[None]:
    """Run so many levels from the top; parts below are drawn as their parents expect them."""
    before, rnp.model.recursion.levels = rnp.model.recursion.levels, number
    try:
        yield
    finally:
        rnp.model.recursion.levels = before


@torch.no_grad()
def parse_numbers(
    rnp: RNP, images: Float[Tensor, "n c h w"], batch_size: int = 500, seed: int = 0
) -> dict[str, float | list[float]]:
    """Means over images, of one posterior sample each.

    Returns:
        `sse_level_k` the squared error of an image, summed over pixels, where k levels of the
        program run and the parts below are their parents' own decodings; k = K is the whole
        program. `explained_by_step` the share of the images' squared intensity that each step of
        the top program explains beyond those before it; they add up to what the canvas explains.
        `overlap` the share of ink that lies where another part has more: 0 where parts are apart.
        A flat program has `sse_level_0` alone.
    """
    depth = rnp.config.depth
    errors = {f"sse_level_{k}": 0.0 for k in range(min(1, depth), depth + 1)}
    steps = torch.zeros(rnp.config.steps[0])
    power = ink = covered = 0.0
    with evaluating(rnp), torch.random.fork_rng():
        torch.manual_seed(seed)
        for x in images.split(batch_size):
            x = x.to(rnp.device)
            for k in range(min(1, depth), depth + 1):
                with levels(rnp, k):
                    tree = rnp.parse(x, sample=True)
                errors[f"sse_level_{k}"] += float((tree.canvas - x).square().sum())
            if not depth:
                continue
            shares = tree.contributions(1)  # of the whole program
            so_far = torch.cat([torch.zeros_like(shares[:, :1]), shares.cumsum(1)], 1)
            left = (x.unsqueeze(1) - so_far).square().sum((0, 2, 3, 4))
            steps += (left[:-1] - left[1:]).cpu()
            power += float(x.square().sum())
            ink += float(shares.sum())
            covered += float((shares.sum(1) - shares.amax(1)).sum())
    found: dict[str, float | list[float]] = {k: v / len(images) for k, v in errors.items()}
    if depth:
        found["explained_by_step"] = (steps / power).tolist()
        found["overlap"] = covered / ink
    return found
