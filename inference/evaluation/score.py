"""All scores of one trained model on one data set, as `pyro-rnp evaluate` prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from inference.evaluation.bounds import bounds_file
from inference.evaluation.calibration import agreement_metrics, calibration_metrics
from inference.evaluation.completion import completion_metrics
from inference.evaluation.metrics import TABLES, evaluate, write_per_image
from inference.evaluation.segmentation import segmentation_metrics
from inference.isolation import isolated
from inference.outputs import new_file, unused
from inference.posterior import ENGINES, Method, Side, half_mask
from inference.run import Run
from inference.system import keep_large_blocks

Split = Literal["train", "validation", "test"]


@isolated()
def score_run(
    run: str,
    data: str | None = None,
    split: Split = "test",
    seed: int = 0,
    guide: str | None = None,
    particles: int = 0,
    keep: str | None = None,
    num: int | None = None,
    hide: Side | None = None,
    methods: tuple[str, ...] = ("guide", "importance", "svi"),
    num_samples: int = 200,
    masked_guide: bool = False,
    log_likelihood: bool = False,
    calibrate: int = 0,
    reference: int = 0,
    segment: Method | None = None,
    per_image: str | None = None,
    data_root: str | None = None,
) -> dict[str, Any]:
    """Score a trained model: means over the images of one split.

    Args:
        run: run folder of a trained model, or the name of a shipped one.
        data: data set; by default the run's.
        split: which images.
        seed: seed of the posterior samples.
        guide: a guide in place of the run's that has its parameters, as refined:steps=50 for one
            that is diagonal: gradient steps on each image's own bound.
        particles: samples an image of the importance-weighted bound (5000 in most papers); 0: none.
        keep: folder for the bounds so far, from which the same command goes on if interrupted.
        num: images to score, the first of the split; all if none.
        hide: hide this half and add the squared error of its pixels (completion), as methods fill
            it in, and of the nearest training image; svi takes half a second an image and smc
            three, so choose num.
        methods: how to fill in what is hidden, of guide, importance, svi, smc, hmc and nuts, with
            options after the name, as importance:rounds=20.
        num_samples: samples of each image by which methods fill in what is hidden.
        masked_guide: take the guide that has seen masks, where one lies beside the weights, as that
            of mnist: methods that fill in what is hidden begin with it. All other scores are the
            same.
        log_likelihood: add to completion the log-likelihood of the hidden pixels given the seen
            ones, in nats, the difference of two log evidences, which takes twice the time.
        calibrate: also draw so many images from the model, hide that half, and add how often
            intervals of the methods hold the truth, and whether its ranks are uniform
            (calibration); 0: none.
        reference: also hold answers of the methods that count as trusted against two long runs of
            smc of so many samples (agreement), for which 1000 are enough; 0: none.
        segment: add how well the parts that most probably made each pixel agree with the true
            ones (segmentation), by this method of query; for the data set strokes.
        per_image: .csv or .npz file to make, with the scores of each image: index in the split,
            label, and each score whose mean is printed.
        data_root: folder of the data sets; by default the run's.

    Returns:
        `data`, `split` and `num`, which images were scored; the scores of `evaluate`, their names
        with the split in front, as `test_sse`; `completion`, `calibration`, `agreement` and
        `segmentation` where asked for.

    Raises:
        FileNotFoundError: if the run, its masked guide or the data are not there.
        FileExistsError: if the file for `per_image` exists.
        ValueError: if `particles` is negative, `num` is not positive, a method does not exist,
            `calibrate` or `reference` is asked for without `hide`, or the model and the images do
            not fit.
    """
    if particles < 0 or (num is not None and num < 1):
        raise ValueError(
            f"particles must be 0 or more and num 1 or more; got {particles} and {num}."
        )
    if (calibrate or reference) and hide is None:
        raise ValueError("calibrate and reference are about hidden pixels: hide is wanted too.")
    table = None if per_image is None else Path(per_image)
    if table is not None and table.suffix.lower() not in TABLES:
        raise ValueError(f"per_image must be a {' or '.join(TABLES)} file, got {per_image!r}.")
    if table is not None:
        unused(table)
    for method in methods:
        ENGINES.make(method)  # that there is none is said before anything is computed
    trained = Run(run)
    name = data or trained.data_name
    splits = trained.data(name, data_root)
    rnp = trained.load(guide, masked_guide=masked_guide)
    images = getattr(splits, split)[:num]
    found: dict[str, Any] = {}  # first the scores that may be refused
    if hide is not None:
        seen = half_mask(hide, rnp.config.image_size)
        options: dict[str, Any] = {"log_likelihood": log_likelihood, "seed": seed}
        options["num_samples"] = num_samples
        found["completion"] = completion_metrics(
            rnp, images.images, seen, splits.train, methods, **options
        )
        if calibrate:
            found["calibration"] = calibration_metrics(
                rnp, seen, methods, calibrate, seed=seed, num_samples=num_samples
            )
        if reference:
            found["agreement"] = agreement_metrics(
                rnp, images.images, seen, methods, reference, seed, num_samples=num_samples
            )
    if segment is not None:
        found["segmentation"] = segmentation_metrics(rnp, images, segment, seed=seed)
    file = None
    if keep is not None:
        file = bounds_file(keep, run, [data, split, num, particles, seed, guide])
    if particles:
        keep_large_blocks()
    scores = evaluate(
        rnp, images, seed=seed, particles=particles, keep=file, train=splits.train, per_image=True
    )
    each = scores.pop("per_image")
    if table is not None:
        write_per_image(new_file(table), each, images)
    of = {"data": name, "split": split, "num": len(images)}
    return of | {f"{split}_{name}": value for name, value in scores.items()} | found
