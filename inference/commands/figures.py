"""Make the paper's figures of a trained model, with numbers beside them."""

from inference.cli import add_data_root, add_run, parser
from inference.reproduction.figures import make_figures


def main() -> None:
    """Draw the paper's figures of a trained model."""
    arguments = parser(
        "Make the paper's figures of a trained model, with numbers beside them.",
        "The folder holds figure-3.png (parses), figure-4a.png (the space of programs), "
        "figure-4b-*.png (samples of clusters), figure-4c-*.png (paths between them), "
        "figure-5.png (samples of the prior), figure-6-*.png (parses of other data sets), and "
        "figures.json with the numbers of each, and how many images these are of (those that end "
        "in _floor: of other test images instead of samples). Figure 6 with tuning: "
        "pyro-rnp transfer.",
    )
    add_run(arguments)
    arguments.add_function_arguments(make_figures, skip={"run", "data_root"})
    add_data_root(arguments)
    args = arguments.parse_args()
    make_figures(**vars(args))
    print(args.out)
