"""Change parts of parsed images and run the rest of the program."""

import torch

from inference.cli import add_images, add_out, add_run, chosen_images, named_images, parser, reading
from inference.data.image_files import read_images, warn_unexplained
from inference.outputs import new_folder, unused_folder, write_json
from inference.plotting import parse_figure
from inference.posterior import graft, intervene
from inference.posterior.interventions import EDITS, read_edit
from pyro_rnp import ParseTree, load
from pyro_rnp.affine import UNITS
from pyro_rnp.parse_tree import COUNTING, read_path


def main() -> None:
    """Edit the parts of parsed images into a picture and a JSON file."""
    arguments = parser(
        "Parse images, change parts (move, replace, remove), and run the rest of the program.",
        "The folder holds edit.png, in which the images as they were parsed stand left of what "
        "became of them, and edit.json with the trees after. Parts count from 0: 1 is the second "
        "part, 1/3 its fourth sub-part. Example: pyro-rnp edit RUN --images a.png --move 1:0.2,0 "
        "--remove 2 --put 0:b.png:3 moves part 1 to the right, takes part 2 away, and puts part 3 "
        "of b.png where part 0 of a.png was.",
    )
    add_run(arguments)
    add_images(arguments)
    for kind, (_, _, form) in EDITS.items():
        form = f"{form}; parts count from 0"
        arguments.add_argument(f"--{kind}", type=str, nargs="*", default=[], help=form)
    arguments.renamed = {"turn": "rotate"}
    arguments.add_argument(
        "--put", type=str, nargs="*", default=[], help="PART:FILE:PART, the last in place of the "
        "first; parts count from 0"
    )  # fmt: skip
    arguments.add_argument(
        "--react", type=bool, default=False, help="whether later parts may react to earlier ones"
    )
    add_out(arguments, "edits")
    args = arguments.parse_args()
    unused_folder(args.out)
    rnp = load(args.run)
    images = chosen_images(args, rnp.config, needed=True)
    with torch.no_grad():
        tree = rnp.parse(images)
        edits: dict[str, torch.Tensor] = {}
        for text in args.put:
            place, _, rest = text.partition(":")
            file, _, name = rest.rpartition(":")
            source = rnp.parse(read_images([file], rnp.config, **reading(args)))
            edits |= graft(source, read_path(name), read_path(place))
        for kind in EDITS:
            for text in getattr(args, kind):
                edits |= read_edit(rnp.config, tree, kind, text, edits)
        if not edits:
            raise ValueError(f"Nothing is changed; give one of --{', --'.join(EDITS)} or --put.")
        after = intervene(rnp, tree, edits, react=args.react)
        out = new_folder(args.out)
        n = len(images)
        pairs = torch.arange(2 * n).view(2, n).T.flatten()  # each image before and after, in turn
        both = ParseTree.join([tree, after]).map(lambda values: values[pairs])
        picture = out / f"edit.{args.format}"
        parse_figure(both, picture, images.repeat_interleave(2, 0), ["before", "after"] * n)
    trees = [after.to_dict(i) for i in range(len(images))]
    changed = {"changed": list(edits), "parts": COUNTING, "units": UNITS, "trees": trees}
    write_json(out / "edit.json", changed)
    print(f"{picture}, {out / 'edit.json'}")
    warn_unexplained(named_images(args), images, tree.canvas)
