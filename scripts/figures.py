"""Make the paper's figures of a trained model, with numbers beside them."""

from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt

from inference.cli import add_data_root, add_run, parser, run
from inference.data import DataName, load_data
from inference.evaluation.sample_quality import read_classifier
from inference.outputs import new_folder, unused, write_json
from inference.reproduction.artifacts import Clock
from inference.reproduction.figures import FIGURES, Asked
from inference.run import Run


def main() -> None:
    arguments = parser(
        "Make the paper's figures of a trained model, with numbers beside them.",
        "The folder holds figure-3.png (parses), figure-4a.png (the space of programs), "
        "figure-4b-*.png (samples of clusters), figure-4c-*.png (paths between them), "
        "figure-5.png (samples of the prior), figure-6-*.png (parses of other data sets), and "
        "figures.json with the numbers of each, and how many images these are of (those that end "
        "in _floor: of other test images instead of samples). Figure 6 with tuning: "
        "scripts/transfer.py.",
    )
    add_run(arguments)
    arguments.add_argument("--data", type=DataName | None, help="data set; by default the run's")
    add_data_root(arguments)
    figure = Literal["3", "4", "5", "6"]
    arguments.add_argument("--only", type=figure | None, help="make this figure alone")
    num = "test images for the numbers of figures 4 and 5, at most (of figure 5 half of all); "
    num += "those of figures 3 and 6 are of all"
    arguments.add_argument("--num", type=PositiveInt, default=2000, help=num)
    arguments.add_argument("--clusters", type=PositiveInt, default=10, help="of each level")
    arguments.add_argument(
        "--across", type=list[DataName], default=[], help="data sets of figure 6, as [omniglot]"
    )
    kept = "file that keeps the classifier of figure 5; learned and put there if there is none"
    arguments.add_argument("--classifier", type=str | None, help=kept)
    arguments.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    arguments.add_argument("--out", type=str, default="figures", help="folder to make")
    args = arguments.parse_args()
    unused(args.out)
    trained = Run(args.run)
    data = args.data or trained.data_name
    rnp, splits, training = trained.load(), trained.data(data, args.data_root), trained.training
    across = {
        name: load_data(name, args.data_root, training.get("binarize", False)).test
        for name in args.across
    }
    classifier = None if args.classifier is None else Path(args.classifier)
    if classifier is not None:
        read_classifier(classifier, splits.train, args.seed)  # what is wrong is said at once
    out, numbers, clock = new_folder(args.out), {}, Clock()
    how = (args.num, args.clusters, args.seed, training.get("rotated_classes", False))
    asked = Asked(rnp, splits, out, *how, across, classifier)
    with torch.no_grad():
        for name in FIGURES if args.only is None else [args.only]:
            numbers[name] = FIGURES[name](asked)
            made = clock.made(args.run, data=data, split="test", seed=args.seed)
            write_json(out / "figures.json", {**numbers, "made": made})
    print(out)


if __name__ == "__main__":
    run(main)
