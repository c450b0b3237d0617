"""Take images apart."""

from pathlib import Path

import torch

from inference.cli import add_images, add_out, add_run, chosen_images, named_images, parser
from inference.data.image_files import warn_unexplained
from inference.outputs import new_folder, unused_folder, write_json
from inference.plotting import parse_figure
from pyro_rnp import load
from pyro_rnp.affine import UNITS
from pyro_rnp.parse_tree import COUNTING


def main() -> None:
    """Parse images into pictures and JSON files."""
    arguments = parser(
        "Take images apart: for each a picture of its parse, and a JSON file of its tree "
        "with every action in its units. Without files or --data these are test images of the "
        "data set that the run learned from. Parts count from 0: 1 is the second part, 1/3 its "
        "fourth sub-part."
    )
    add_run(arguments)
    add_images(arguments, name="images")
    add_out(arguments, "parses")
    args = arguments.parse_args()
    unused_folder(args.out)
    rnp = load(args.run)
    images = chosen_images(args, rnp.config, needed=True)
    names = named_images(args)[: len(images)]
    stems = [Path(name).stem for name in names] if args.images else [*map(str, range(len(names)))]
    distinct = len(set(stems)) == len(stems)
    with torch.no_grad():
        tree = rnp.parse(images)
    out = new_folder(args.out)
    for i, (file, image, one) in enumerate(zip(names, images, tree.split(1), strict=True)):
        name = stems[i] if distinct else f"{i}-{stems[i]}"
        picture = out / f"{name}.{args.format}"
        parse_figure(one, picture, image.unsqueeze(0))
        found = {"file": file, "parts": COUNTING, "units": UNITS, "tree": one.to_dict(0)}
        write_json(out / f"{name}.json", found)
        print(f"{file}: {picture}, {out / name}.json")
    warn_unexplained(names, images, tree.canvas)
