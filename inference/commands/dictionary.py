"""Look at what parts a model knows, how often it uses each, and which are alike."""

from typing import Literal, get_args

from jsonargparse.typing import PositiveInt

from inference.cli import add_images, add_out, add_run, chosen_images, parser
from inference.evaluation import PartLocation, build_dictionary, collect_parts
from inference.evaluation.part_dictionary import By
from inference.outputs import new_folder, unused_folder, write_json
from inference.plotting import dictionary_figure
from pyro_rnp import load
from pyro_rnp.parse_tree import COUNTING, read_path


def main() -> None:
    """Sort the parts of parsed images into a picture and a JSON file."""
    arguments = parser(
        "Parse images, and sort their parts into a dictionary of primitives.",
        "The folder holds dictionary.png, a row a primitive, the most used first: the share of "
        "parts that it stands for, its mean, and its most typical parts; and dictionary.json with "
        "the same in numbers. With --nearest also the parts that are most like one.",
    )
    add_run(arguments)
    add_images(arguments, num=1000)
    arguments.add_argument("--count", type=PositiveInt, default=16, help="primitives")
    arguments.add_argument("--depth", type=PositiveInt, default=1, help="1: parts, 2: sub-parts")
    arguments.add_argument(
        "--by", type=Literal[get_args(By)], default="canvas", help="canvas: parts are alike that "
        "draw alike in their own frames; program: that have like programs"
    )  # fmt: skip
    arguments.add_argument(
        "--nearest",
        type=str | None,
        help="IMAGE:PART, as 0:1 or, with --depth 2, 0:1/3: list the parts most like it; "
        "images and parts count from 0",
    )
    arguments.add_argument("--seed", type=int, default=0, help="of k-means")
    add_out(arguments, "dictionary")
    args = arguments.parse_args()
    unused_folder(args.out)
    rnp = load(args.run)
    images = chosen_images(args, rnp.config, needed=True)
    parts = collect_parts(rnp, images, args.depth)
    result: dict = {"parts": len(parts), "numbering": f"images and parts: {COUNTING}"}
    if args.nearest is not None:
        image, _, name = args.nearest.partition(":")
        if not image.isdigit():
            raise ValueError(
                f"--nearest takes IMAGE:PART, as 0:1, both from 0; got {args.nearest!r}."
            )
        near = parts.nearest(PartLocation(int(image), read_path(name)), by=args.by)
        result["nearest"] = [{"place": place, "distance": distance} for place, distance in near]
    found = build_dictionary(parts, args.count, args.by, args.seed)
    result["usage"] = found.usage.tolist()
    result["typical"] = [[parts.place(int(i)) for i in row[:10]] for row in found.members]
    out = new_folder(args.out)
    picture = out / f"dictionary.{args.format}"
    dictionary_figure(found, parts, picture)
    write_json(out / "dictionary.json", result)
    print(f"{picture}, {out / 'dictionary.json'}")
