"""Draw images from the prior of a trained model."""

import torch
from jsonargparse.typing import PositiveInt

from inference.cli import add_run, parser
from inference.outputs import new_picture
from inference.plotting import parse_figure
from pyro_rnp import load


def main() -> None:
    """Draw samples of the prior into a picture."""
    arguments = parser("Draw programs from the prior, run them, and look at the images.")
    add_run(arguments)
    arguments.add_argument("--num", type=PositiveInt, default=12, help="images to draw")
    arguments.add_argument("--seed", type=int, default=0, help="seed of the prior's samples")
    arguments.add_argument(
        "--out", type=str, default="samples.png", help=".png, .svg or .pdf to make"
    )
    args = arguments.parse_args()
    if args.num > 100:
        raise ValueError(
            f"A picture holds up to 100 samples, not {args.num}; in Python rnp.sample draws more."
        )
    rnp = load(args.run)
    out = new_picture(args.out)
    torch.manual_seed(args.seed)
    with torch.no_grad():
        parse_figure(rnp.sample(args.num), out)
    print(out)
