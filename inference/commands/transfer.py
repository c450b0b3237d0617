"""How well a program language that was learned on some images explains others (Figure 6)."""

import json

from inference.cli import add_data_root, parser
from inference.reproduction.transfer import compare_transfer


def main() -> None:
    """Compare how models explain images that they did not learn from, and print JSON."""
    arguments = parser(
        "Train without some classes, tune the encoder alone on them, and compare with a model "
        "that was trained on everything, for as many images; then a flat VAE for equal time.",
        "The folder holds the runs, transfer.json with the squared error of unseen test images, of "
        "validation images of the training classes (seen) and of a blank canvas (blank), and "
        "pictures of unseen images as each model draws them, and of their parts. A run that "
        "is there is not trained again. Examples: pyro-rnp transfer --data mnist --unseen '[7,8]' "
        "--out DIR; pyro-rnp transfer --data omniglot --new omniglot-new --all omniglot-all "
        "--out DIR; of runs that have ended, pyro-rnp transfer --learned '[omniglot]' --data "
        "omniglot --new omniglot-new --out DIR.",
    )
    arguments.add_function_arguments(compare_transfer, skip={"data_root"})
    add_data_root(arguments)
    print(json.dumps(compare_transfer(**vars(arguments.parse_args())), indent=2))
