"""The paper's figures 3 to 6 of one trained model: pictures, and numbers beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from inference.data import ImageSet, Splits
from inference.evaluation.latent_space import (
    between,
    clusters,
    collect_programs,
    embed,
    sampled,
    space_numbers,
)
from inference.evaluation.metrics import evaluate
from inference.evaluation.reconstruction import expected, parse_numbers
from inference.evaluation.sample_quality import sample_numbers
from inference.plotting import grid_figure, parse_figure, space_figure
from pyro_rnp import RNP

SHOWN = 12
"""Images of a picture."""


@dataclass(frozen=True)
class Asked:
    """What figures are of, and where they go."""

    rnp: RNP
    splits: Splits
    out: Path
    num: int = 2000
    """Test images for the numbers of figures 4 and 5, at most; those of figures 3 and 6 are of
    all."""
    clusters: int = 10
    """Of each level."""
    seed: int = 0
    turned: bool = False
    """Whether the model learned from images turned by quarters too."""
    across: dict[str, ImageSet] = field(default_factory=dict)
    """Test images of other data sets."""
    classifier: Path | None = None
    """The file that keeps the classifier of figure 5, see `sample_numbers`."""


def parses(asked: Asked) -> dict[str, Any]:
    """Figure 3: parts and sub-parts of test images, drawn at each level.

    Numbers: those of `parse_numbers`, and `images`, how many they are of.
    """
    every = asked.splits.test.images
    some = every[:SHOWN]
    tree = asked.rnp.parse(some)
    above = [(f"level {k} alone", expected(tree, k)) for k in range(tree.level - 1, 0, -1)]
    parse_figure(tree, asked.out / "figure-3.png", some, more=above)
    numbers = parse_numbers(asked.rnp, every, seed=asked.seed, train=asked.splits.train)
    return {"images": len(every), **numbers}


def space(asked: Asked) -> dict[str, Any]:
    """Figure 4: the space of programs, samples of its clusters, and paths between them.

    Numbers: those of `space_numbers`; `images`, how many test images they are of, and
    `images_learned_from`, up to five times as many training images, for `class_probe`; and for
    each level `largest_over_mean_change_zK`, the mean of the paths' unevenness, see `between`.
    """
    rnp, out, seed = asked.rnp, asked.out, asked.seed
    test, learned = asked.splits.test[: asked.num], asked.splits.train[: 5 * asked.num]
    found = collect_programs(rnp, test)
    numbers: dict[str, Any] = {"images": len(test), "images_learned_from": len(learned)}
    numbers |= space_numbers(found, collect_programs(rnp, learned), seed)
    top = int(found.levels.max())
    levels = found.levels.unique().flip(0).tolist()
    groups = {k: clusters(found, asked.clusters, k, seed) for k in levels}
    shown = [
        (g.nearest, str(i + 1), found.canvases[g.nearest])
        for own in groups.values() for i, g in enumerate(own)
    ]  # fmt: skip
    names = [f"z^{k}" for k in levels]
    plane = embed(found.programs, seed)
    space_figure(plane, top - found.levels, names, shown, out / "figure-4a.png")
    for k, own in groups.items():  # of a flat program there is level 0 alone
        rows = [(f"{i + 1}", sampled(rnp, g, 10, seed + i)) for i, g in enumerate(own)]
        grid_figure(rows, out / f"figure-4b-z{k}.png")
        if len(own) < 2:  # of one cluster there is nowhere to go
            continue
        paths = [between(rnp, a.centre, b.centre, 10, k) for a, b in pairwise(own)]
        rows = [(f"{i + 1} to {i + 2}", images) for i, (images, _) in enumerate(paths)]
        grid_figure(rows, out / f"figure-4c-z{k}.png")
        uneven = torch.tensor([value for _, value in paths])
        numbers[f"largest_over_mean_change_z{k}"] = float(uneven.mean())
    return numbers


def samples(asked: Asked) -> dict[str, Any]:
    """Figure 5: samples of the prior, with their parts; see `sample_numbers`."""
    with torch.random.fork_rng():
        torch.manual_seed(asked.seed)
        parse_figure(asked.rnp.sample(SHOWN), asked.out / "figure-5.png")
    how = (asked.num, asked.seed, asked.turned, asked.classifier)
    return dict(sample_numbers(asked.rnp, asked.splits, *how))


def elsewhere(asked: Asked) -> dict[str, Any]:
    """Figure 6, nothing tuned: test images of other data sets, their squared error by name.

    Beside it, with `_error`, its standard error, with `_blank` the squared error of no ink at all,
    with `_mean_image` that of the mean of the images that the model learned from, and with
    `_images` how many images it is of.
    """
    numbers: dict[str, Any] = {}
    for name, data in asked.across.items():
        some = data.images[:SHOWN]
        parse_figure(asked.rnp.parse(some), asked.out / f"figure-6-{name}.png", some)
        scores = evaluate(asked.rnp, data, seed=asked.seed, train=asked.splits.train)
        numbers |= {name: scores["sse"], f"{name}_error": scores.get("sse_error")}
        numbers |= {f"{name}_{k}": scores[f"sse_{k}"] for k in ("blank", "mean_image")}
        numbers[f"{name}_images"] = len(data)
    return numbers


FIGURES: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "3": parses, "4": space, "5": samples, "6": elsewhere,
}  # fmt: skip
