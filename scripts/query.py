"""Ask a trained model what follows from pixels or parts that are given."""

import json
from pathlib import Path

import torch
from jsonargparse.typing import PositiveInt

from inference.answer import Method
from inference.cli import add_data_root, parser, run
from inference.data import DataName, load_data
from inference.figures import answer_figure
from inference.given import Side, hiding
from inference.images import read_image
from inference.outputs import new_folder, unused, write_json
from inference.posterior import query
from pyro_rnp import load
from pyro_rnp.checkpoint import load_config


def main() -> None:
    arguments = parser(
        "Ask a trained model what follows from what is given: pixels, parts, both or nothing.",
        "The folder holds query.png, a column an image, and query.json: notes, log evidence (nats) "
        "and effective samples of each image, and mean and standard deviation of every site. "
        "Examples: complete digits whose right half is hidden: query.py RUN --data mnist "
        "--hide right; draw digits whose first part is where that of a.png is: parse.py RUN a.png, "
        'then query.py RUN --given given.json with {"a/0": [six numbers of the parse]}.',
    )
    arguments.add_argument("run", type=str, help="run folder of a trained model")
    arguments.add_argument("--images", type=str, nargs="*", default=[], help="image files")
    arguments.add_argument("--data", type=DataName | None, help="a data set to ask about instead")
    arguments.add_argument(
        "--num", type=PositiveInt, default=8, help="how many of its test images; or, without "
        "images, how many answers"
    )  # fmt: skip
    add_data_root(arguments)
    arguments.add_argument("--hide", type=Side | None, help="half that is not seen")
    arguments.add_argument("--mask", type=str | None, help="image file: white where it is seen")
    arguments.add_argument("--given", type=str | None, help="JSON file: sites to lists of numbers")
    arguments.add_argument("--method", type=Method, default="svi", help="see inference.posterior")
    arguments.add_argument("--num_samples", type=PositiveInt, default=200, help="of each image")
    arguments.add_argument("--steps", type=PositiveInt, default=200, help="of svi")
    arguments.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    arguments.add_argument("--out", type=str, default="answers", help="folder to make")
    args = arguments.parse_args()
    unused(args.out)
    rnp, images, mask = load(args.run), None, None
    if args.images:
        images = torch.stack([read_image(Path(name), rnp.config) for name in args.images])
    elif args.data is not None:
        root = args.data_root or load_config(args.run)[1].get("training", {}).get("data_root")
        images = load_data(args.data, root).test[: args.num].images
    if args.mask is not None:
        mask = read_image(Path(args.mask), rnp.config).mean(0) >= 0.5
    elif args.hide is not None:
        mask = hiding(args.hide, rnp.config.image_size)
    given = {} if args.given is None else read_sites(Path(args.given))
    answer = query(
        rnp,
        images,
        given=given,
        mask=mask,
        method=args.method,
        num_samples=args.num_samples,
        num_images=None if images is not None else args.num,
        steps=args.steps,
        seed=args.seed,
    )
    out = new_folder(args.out)
    seen = None if mask is None else mask.expand(images.shape)
    answer_figure(answer, out / "query.png", images, seen)
    rows = [answer.to_dict(i) for i in range(len(answer.log_evidence))]
    write_json(out / "query.json", {"notes": answer.notes, "method": answer.method, "images": rows})
    print(*answer.notes, f"{out / 'query.png'}, {out / 'query.json'}", sep="\n")


def read_sites(path: Path) -> dict[str, torch.Tensor]:
    """Sites and their values from a JSON file."""
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} must hold sites and their numbers, {{"a/0": [...]}}.')
    values = {}
    for name, value in found.items():
        try:
            values[name] = torch.tensor(value, dtype=torch.float)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{path}: {name} must be a list of numbers.") from None
    return values


if __name__ == "__main__":
    run(main)
