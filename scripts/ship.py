"""Put a trained model among those that come with the project."""

from pathlib import Path

from inference.cli import add_run, parser, run
from inference.shipping import ship
from pyro_rnp.checkpoint import SHIPPED


def main() -> None:
    arguments = parser(
        "Put a trained model among those that come with the project.",
        "pyro_rnp/weights/NAME then holds its weights and configuration, its metrics and curve, "
        "and its card; pyro_rnp.load(NAME) finds it, and so does every command.",
    )
    add_run(arguments)
    arguments.add_argument("--name", type=str, required=True, help="what to call it")
    arguments.add_argument("--to", type=str, default=str(SHIPPED), help="folder of such models")
    args = arguments.parse_args()
    print(ship(args.run, args.name, Path(args.to)))


if __name__ == "__main__":
    run(main)
