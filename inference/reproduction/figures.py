"""The paper's figures 3 to 6 of one trained model: pictures, and numbers beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch

from inference.data import ImageSet, Splits
from inference.evaluation import evaluate
from inference.evaluation.latent_space import (
    clusters,
    collect_programs,
    embed,
    interpolate,
    latent_space_metrics,
    sample_cluster,
)
from inference.evaluation.reconstruction import expected, reconstruction_metrics
from inference.evaluation.sample_quality import read_feature_classifier, sample_quality_metrics
from inference.isolation import isolated
from inference.outputs import new_folder, unused_folder, write_json
from inference.plotting import grid_figure, parse_figure, space_figure
from inference.reproduction.artifacts import FIGURE_NUMBERS, Clock
from inference.run import Run
from pyro_rnp import RNP

SHOWN = 12
"""Images of a picture."""


@dataclass(frozen=True)
class FigureInputs:
    """A model, its data, and the numbers of images and clusters that the figures use."""

    rnp: RNP
    """The model."""
    splits: Splits
    """The data set of the model."""
    out: Path
    """The folder for the pictures."""
    num: int = 2000
    """Test images for the numbers of figures 4 and 5, at most; those of figures 3 and 6 are of
    all."""
    clusters: int = 10
    """Clusters of programs of each level."""
    seed: int = 0
    """Seed of all that is drawn, and of the classifier's training."""
    rotated_classes: bool = False
    """Whether the model learned from images rotated by quarter turns too."""
    across: dict[str, ImageSet] = field(default_factory=dict)
    """Test images of other data sets."""
    classifier: Path | None = None
    """The file that keeps the classifier of figure 5, see `sample_quality_metrics`."""


def figure_3(given: FigureInputs) -> dict[str, Any]:
    """Draw figure 3: parts and sub-parts of test images, drawn at each level.

    Args:
        given: the model, its data and the folder for the picture, `figure-3.png`.

    Returns:
        The numbers of `reconstruction_metrics`, and `images`, the number of test images.
    """
    every = given.splits.test
    some = every[:SHOWN].images
    tree = given.rnp.parse(some)
    above = [(f"level {k} alone", expected(tree, k)) for k in range(tree.level - 1, 0, -1)]
    parse_figure(tree, given.out / "figure-3.png", some, more=above)
    numbers = reconstruction_metrics(given.rnp, every, seed=given.seed, train=given.splits.train)
    return {"images": len(every), **numbers}


def figure_4(given: FigureInputs) -> dict[str, Any]:
    """Draw figure 4: the space of programs, samples of its clusters, and paths between them.

    Args:
        given: the model, its data, the number of clusters of each level and the folder for the
            pictures, `figure-4a.png`, `figure-4b-zK.png` and `figure-4c-zK.png`.

    Returns:
        The numbers of `latent_space_metrics`; `images`, the number of test images that they are
        of, and `images_learned_from`, up to five times as many training images, for `class_probe`;
        and for each level `largest_over_mean_change_zK`, the mean of the paths' unevenness, see
        `interpolate`.
    """
    rnp, out, seed = given.rnp, given.out, given.seed
    test, learned = given.splits.test[: given.num], given.splits.train[: 5 * given.num]
    found = collect_programs(rnp, test)
    numbers: dict[str, Any] = {"images": len(test), "images_learned_from": len(learned)}
    numbers |= latent_space_metrics(found, collect_programs(rnp, learned), seed)
    top = int(found.levels.max())
    levels = found.levels.unique().flip(0).tolist()
    groups = {k: clusters(found, given.clusters, k, seed) for k in levels}
    shown = [
        (g.nearest, str(i + 1), found.canvases[g.nearest])
        for own in groups.values() for i, g in enumerate(own)
    ]  # fmt: skip
    names = [f"z^{k}" for k in levels]
    plane = embed(found.programs, seed)
    space_figure(plane, top - found.levels, names, shown, out / "figure-4a.png")
    for k, own in groups.items():  # of a flat program there is level 0 alone
        rows = [(f"{i + 1}", sample_cluster(rnp, g, 10, seed + i)) for i, g in enumerate(own)]
        grid_figure(rows, out / f"figure-4b-z{k}.png")
        if len(own) < 2:  # of one cluster there is nowhere to go
            continue
        paths = [interpolate(rnp, a.centre, b.centre, 10, k) for a, b in pairwise(own)]
        rows = [(f"{i + 1} to {i + 2}", images) for i, (images, _) in enumerate(paths)]
        grid_figure(rows, out / f"figure-4c-z{k}.png")
        uneven = torch.tensor([value for _, value in paths])
        numbers[f"largest_over_mean_change_z{k}"] = float(uneven.mean())
    return numbers


def figure_5(given: FigureInputs) -> dict[str, Any]:
    """Draw figure 5: samples of the prior, with their parts.

    Args:
        given: the model, its data and the folder for the picture, `figure-5.png`.

    Returns:
        The numbers of `sample_quality_metrics`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(given.seed)
        parse_figure(given.rnp.sample(SHOWN), given.out / "figure-5.png")
    how = (given.num, given.seed, given.rotated_classes, given.classifier)
    return dict(sample_quality_metrics(given.rnp, given.splits, *how))


def figure_6(given: FigureInputs) -> dict[str, Any]:
    """Draw figure 6 of a model that was not tuned: test images of other data sets.

    Args:
        given: the model, the other data sets (`across`) and the folder for the pictures,
            `figure-6-NAME.png`.

    Returns:
        For each data set NAME the squared error of an image (`NAME`), its standard error
        (`NAME_error`), the squared errors of a blank canvas (`NAME_blank`) and of the mean
        training image (`NAME_mean_image`), and the number of images (`NAME_images`).
    """
    numbers: dict[str, Any] = {}
    for name, data in given.across.items():
        some = data[:SHOWN].images
        parse_figure(given.rnp.parse(some), given.out / f"figure-6-{name}.png", some)
        scores = evaluate(given.rnp, data, seed=given.seed, train=given.splits.train)
        numbers |= {name: scores["sse"], f"{name}_error": scores.get("sse_error")}
        numbers |= {f"{name}_{k}": scores[f"sse_{k}"] for k in ("blank", "mean_image")}
        numbers[f"{name}_images"] = len(data)
    return numbers


DRAW: dict[str, Callable[[FigureInputs], dict[str, Any]]] = {
    "3": figure_3, "4": figure_4, "5": figure_5, "6": figure_6,
}  # fmt: skip
"""The function that draws each figure of the paper and returns its numbers."""


@isolated()
@torch.no_grad()
def make_figures(
    run: str,
    data: str | None = None,
    only: Literal["3", "4", "5", "6"] | None = None,
    num: int = 2000,
    clusters: int = 10,
    across: tuple[str, ...] = (),
    classifier: str | None = None,
    seed: int = 0,
    out: str = "figures",
    data_root: str | None = None,
) -> dict[str, Any]:
    """Make the paper's figures of a trained model, with numbers beside them.

    Args:
        run: run folder of a trained model, or the name of a shipped one.
        data: data set; by default the run's.
        only: make this figure alone.
        num: test images for the numbers of figures 4 and 5, at most (of figure 5 half of all);
            those of figures 3 and 6 are of all.
        clusters: clusters of each level in figure 4.
        across: data sets of figure 6, as [omniglot].
        classifier: file that keeps the classifier of figure 5; learned and put there if there is
            none.
        seed: seed of all that is drawn.
        out: folder to make.
        data_root: folder of the data sets; by default the run's.

    Returns:
        The numbers of each figure by its number, see `DRAW`, and `made`, how they came about. The
        folder holds them as figures.json, beside the pictures.

    Raises:
        FileExistsError: if `out` exists already.
        FileNotFoundError: if the run or the data are not there.
        ValueError: if `num` or `clusters` is not positive, the classifier's file cannot be used,
            or the model and the images do not fit.
    """
    if min(num, clusters) < 1:
        raise ValueError(f"num and clusters must be 1 or more; got {num} and {clusters}.")
    unused_folder(out)
    trained = Run(run)
    name = data or trained.data_name
    rnp, splits, training = trained.load(), trained.data(name, data_root), trained.training
    others: dict[str, ImageSet] = {n: trained.data(n, data_root).test for n in across}
    file = None if classifier is None else Path(classifier)
    if file is not None:
        read_feature_classifier(file, splits.train, seed)  # a wrong file is refused before any work
    folder, numbers, clock = new_folder(out), {}, Clock()
    how = (num, clusters, seed, training.get("rotated_classes", False))
    given = FigureInputs(rnp, splits, folder, *how, others, file)
    for figure in DRAW if only is None else [only]:
        numbers[figure] = DRAW[figure](given)
        made = clock.made(run, data=name, split="test", seed=seed)
        write_json(folder / FIGURE_NUMBERS, {**numbers, "made": made})
    return {**numbers, "made": made}
