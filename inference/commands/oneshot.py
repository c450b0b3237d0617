"""Tell characters apart by one example each, and draw more of one that is given."""

import json
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt
from tqdm import tqdm

from inference.cli import add_images, add_run, chosen_images, parser
from inference.evaluation import (
    class_log_likelihood,
    exemplars,
    read_episodes,
    standard_error,
    within_class_covariance,
)
from inference.evaluation.one_shot import RUNS
from inference.outputs import new_picture
from inference.plotting import exemplar_figure
from inference.run import Run
from pyro_rnp import load
from pyro_rnp.class_model import type_prior


def main() -> None:
    """Classify characters by one example each, or draw new exemplars of one."""
    arguments = parser(
        "Is it the same character? One-shot classification, and new exemplars of given drawings.",
        "With --runs, Omniglot's 20 runs of 20-way classification: accuracy as JSON. With --images "
        "or --data, a picture: each drawing, and beside it new ones of its character. The model "
        "must have learned what drawings of a character share, as the pretrained one-shot has, or "
        "one of pyro-rnp train --prior types --images_per_class 2. With --variation any model "
        "draws; best are those with random levels, as the pretrained omniglot-random.",
    )
    add_run(arguments)
    arguments.add_argument("--runs", type=str | None, help=f"Omniglot's all_runs.zip, from {RUNS}")
    add_images(arguments)
    arguments.add_argument(
        "--num_samples",
        type=NonNegativeInt,
        default=0,
        help="of each drawing's program; 0 takes the means of the posteriors alone, from which "
        "models with a contrast learn",
    )
    arguments.add_argument(
        "--variation",
        type=str | None,
        help="a data set with labels: new drawings vary as its training images vary within a "
        "class, and keep what is peculiar to the given one; by default they vary as the prior says",
    )
    arguments.add_argument(
        "--spread",
        type=NonNegativeFloat,
        default=0.5,
        help="with --variation, how far new drawings vary, in standard deviations within a class: "
        "with less they are more alike, and more of them are of the class",
    )
    arguments.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    arguments.add_argument(
        "--out", type=str, default="exemplars.png", help=".png, .svg or .pdf to make"
    )
    args = arguments.parse_args()
    rnp = load(args.run)
    if args.runs is not None or args.variation is None:
        type_prior(rnp)
    images = chosen_images(args, rnp.config)
    if args.runs is None and images is None:
        raise ValueError("There is nothing to tell apart; give --runs, --images or --data.")
    out = None if images is None else new_picture(args.out)
    covariance = None
    if out is not None and args.variation is not None:
        labelled = Run(args.run).data(args.variation, args.data_root).train
        covariance = within_class_covariance(rnp, labelled)
    if args.runs is not None:
        right, tests = [], 0
        for task in tqdm(read_episodes(Path(args.runs)), "runs", delay=5):
            gain = class_log_likelihood(rnp, task.tests, task.examples, args.num_samples, args.seed)
            right.append(float((gain.argmax(1).cpu() == task.truth).float().mean()))
            tests += len(task.truth)
        runs = torch.tensor(right)
        error = standard_error(runs) if len(runs) > 1 else None
        found = {"accuracy": float(runs.mean()), "error": error, "runs": right}
        print(json.dumps({"data": args.runs, "split": "test", "num": tests, **found}, indent=2))
    if out is not None:
        made = [
            exemplars(rnp, image.unsqueeze(0), 9, args.seed + i, covariance, args.spread).canvas
            for i, image in enumerate(tqdm(images, "exemplars", delay=5))
        ]
        exemplar_figure(images, torch.stack(made), out)
        print(out)
