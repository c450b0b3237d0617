"""Score a trained model on a data set."""

import json
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from inference.cli import add_data_root, parser, run
from inference.data import DataName, load_data
from inference.evaluation import evaluate
from pyro_rnp import load
from pyro_rnp.checkpoint import load_config


def main() -> None:
    arguments = parser("Score a trained model: means over images, as JSON.", evaluate.__doc__ or "")
    arguments.add_argument("run", type=str, help="run folder")
    arguments.add_argument("--data", type=DataName | None, help="data set; by default the run's")
    arguments.add_argument(
        "--split", type=Literal["train", "validation", "test"], default="test", help="which images"
    )
    arguments.add_argument("--seed", type=int, default=0, help="seed of the posterior samples")
    arguments.add_argument(
        "--particles",
        type=NonNegativeInt,
        default=0,
        help="samples an image of the importance-weighted bound, up to 5000; 0 leaves it out",
    )
    arguments.add_argument(
        "--num", type=PositiveInt | None, help="score the first so many images; by default all"
    )
    add_data_root(arguments)
    args = arguments.parse_args()
    trained_on = load_config(args.run)[1].get("training", {})
    root = args.data_root or trained_on.get("data_root")
    name, binarize = trained_on.get("data", "digits"), trained_on.get("binarize", False)
    images = getattr(load_data(args.data or name, root, binarize), args.split)[: args.num]
    scores = evaluate(load(args.run), images, seed=args.seed, particles=args.particles)
    print(json.dumps({f"{args.split}_{k}": v for k, v in scores.items()}, indent=2))


if __name__ == "__main__":
    run(main)
