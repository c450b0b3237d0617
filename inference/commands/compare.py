"""Train variants of a model one after the other, for equal time, and put them in a table."""

from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from inference.cli import bundled, parser
from inference.reproduction.comparison import compare_variants, read_variants


def main() -> None:
    """Train variants and write a table of their scores."""
    arguments = parser(
        "Train variants of a model one after the other, for equal time, and put them in a table.",
        "The folder holds a run for each variant; table.md and table.json; curves.json, the scores "
        "of the validation images during training, and curves.png, a picture of both. "
        "The table's columns: ELBO, test_sse and KL of all test images, with standard errors over "
        "the images, and test_sse of the mean training "
        "image and of a blank canvas; the importance-weighted bound of the first --num, and the "
        "ELBO of the same. A variant that has been trained is not trained again, so an interrupted "
        "comparison goes on where it stopped. Nothing else should run beside it.",
    )
    file = (
        "text file with the flags of pyro-rnp train that make a variant, one a line, with a name "
        "in front or without: flow: --prior flow; an empty "
        "line is the model without changes, # begins a comment; pieces: the package's own list"
    )
    arguments.add_argument("variants", type=str, help=file)
    arguments.add_argument(
        "--flags",
        type=str,
        default="",
        help="flags that all of them have, in quotes: --flags='--data drawings --minutes 4'",
    )
    arguments.add_argument("--out", type=str, default="runs/compared", help="folder for the runs")
    particles = "samples of the IW bound; 0: none"
    arguments.add_argument("--particles", type=NonNegativeInt, default=100, help=particles)
    arguments.add_argument("--num", type=PositiveInt, default=1000, help="test images for it")
    args = arguments.parse_args()
    out = Path(args.out)
    text = Path(bundled(args.variants, ".txt")).read_text()
    variants = read_variants(text, args.flags, out)  # a wrong line is told before any is trained
    print(compare_variants(variants, out, args.particles, args.num), end="")
