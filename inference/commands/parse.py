"""Take image files apart."""

from pathlib import Path

import torch

from inference.cli import add_out, add_reading, add_run, named_images, parser, reading
from inference.data.image_files import read_images, warn_unexplained
from inference.outputs import new_folder, unused_folder, write_json
from inference.plotting import parse_figure
from pyro_rnp import load
from pyro_rnp.affine import UNITS
from pyro_rnp.parse_tree import COUNTING


def main() -> None:
    """Parse image files into pictures and JSON files."""
    arguments = parser(
        "Take image files apart: for each a picture of its parse, and a JSON file of its tree "
        "with every action in its units. Parts count from 0: 1 is the second part, 1/3 its fourth "
        "sub-part."
    )
    add_run(arguments)
    arguments.add_argument("images", type=str, nargs="+", help="image files, or folders of them")
    add_out(arguments, "parses")
    add_reading(arguments)
    args = arguments.parse_args()
    unused_folder(args.out)
    rnp = load(args.run)
    names = named_images(args)
    files = [Path(name) for name in names]
    images = read_images(names, rnp.config, **reading(args))
    distinct = len({file.stem for file in files}) == len(files)
    with torch.no_grad():
        tree = rnp.parse(images)
    out = new_folder(args.out)
    for i, (file, image, one) in enumerate(zip(files, images, tree.split(1), strict=True)):
        name = file.stem if distinct else f"{i}-{file.stem}"
        picture = out / f"{name}.{args.format}"
        parse_figure(one, picture, image.unsqueeze(0))
        found = {"file": str(file), "parts": COUNTING, "units": UNITS, "tree": one.to_dict(0)}
        write_json(out / f"{name}.json", found)
        print(f"{file}: {picture}, {out / name}.json")
    warn_unexplained(names, images, tree.canvas)
