"""Put a trained model among those that come with the project."""

from pathlib import Path

from inference.cli import add_run, parser
from inference.reproduction.pretrained import ship


def main() -> None:
    """Add a trained model to the pretrained ones."""
    arguments = parser(
        "Put a trained model among those that come with the project.",
        "pyro_rnp/weights/NAME then holds its weights and configuration, its metrics and curve, "
        "and its card; pyro_rnp.load(NAME) finds it, and so does every command.",
    )
    add_run(arguments)
    arguments.add_argument("--name", type=str, required=True, help="what to call it")
    arguments.add_argument(
        "--to", type=str | None, help="folder of such models; by default that of this checkout"
    )
    args = arguments.parse_args()
    print(ship(args.run, args.name, None if args.to is None else Path(args.to)))
