"""Make the paper's figures 3, 4 and 5 of a trained model, with numbers beside them."""

from itertools import pairwise
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt

from inference.cli import add_data_root, add_run, parser, run
from inference.data import DataName, data_of
from inference.fidelity import sample_numbers
from inference.figures import grid_figure, parse_figure, space_figure
from inference.outputs import new_folder, unused, write_json
from inference.parses import expected, parse_numbers
from inference.provenance import Clock
from inference.space import between, clusters, collect_programs, embed, sampled, space_numbers
from pyro_rnp import RNP, load

Figure = Literal["3", "4", "5"]


def parses(rnp: RNP, splits, args, out) -> dict:
    """Figure 3: parts and sub-parts of test images, drawn at each level."""
    some = splits.test.images[:12]
    tree = rnp.parse(some)
    above = [(f"level {k} alone", expected(tree, k)) for k in range(tree.level - 1, 0, -1)]
    parse_figure(tree, out / "figure-3.png", some, more=above)
    return parse_numbers(rnp, splits.test.images, seed=args.seed)


def space(rnp: RNP, splits, args, out) -> dict:
    """Figure 4: the space of programs, samples of its clusters, and paths between them."""
    found = collect_programs(rnp, splits.test[: args.num])
    train = collect_programs(rnp, splits.train[: 5 * args.num])
    numbers: dict = space_numbers(found, train, args.seed)
    top = int(found.levels.max())
    levels = found.levels.unique().flip(0).tolist()
    groups = {k: clusters(found, args.clusters, k, args.seed) for k in levels}
    shown = [(g.nearest, found.canvases[g.nearest]) for own in groups.values() for g in own]
    names = [f"z^{k}" for k in levels]
    plane = embed(found.programs, args.seed)
    space_figure(plane, top - found.levels, names, shown, out / "figure-4a.png")
    for k, own in groups.items():  # of a flat program there is level 0 alone
        rows = [(f"{i + 1}", sampled(rnp, g, 10, args.seed + i)) for i, g in enumerate(own)]
        grid_figure(rows, out / f"figure-4b-z{k}.png")
        if len(own) < 2:  # of one cluster there is nowhere to go
            continue
        paths = [between(rnp, a.centre, b.centre, 10, k) for a, b in pairwise(own)]
        rows = [(f"{i + 1} to {i + 2}", images) for i, (images, _) in enumerate(paths)]
        grid_figure(rows, out / f"figure-4c-z{k}.png")
        uneven = torch.tensor([value for _, value in paths])
        numbers[f"largest_over_mean_change_z{k}"] = float(uneven.mean())
    return numbers


def samples(rnp: RNP, splits, args, out) -> dict:
    """Figure 5: samples of the prior, with their parts."""
    torch.manual_seed(args.seed)
    parse_figure(rnp.sample(12), out / "figure-5.png")
    return sample_numbers(rnp, splits, args.num, args.seed)


FIGURES = {"3": parses, "4": space, "5": samples}


def main() -> None:
    arguments = parser(
        "Make the paper's figures of a trained model, with numbers beside them.",
        "The folder holds figure-3.png (parses), figure-4a.png (the space of programs), "
        "figure-4b-*.png (samples of clusters), figure-4c-*.png (paths between them), "
        "figure-5.png (samples of the prior), and figures.json with the numbers of each (those "
        "that end in _floor: of validation images instead of samples).",
    )
    add_run(arguments)
    arguments.add_argument("--data", type=DataName | None, help="data set; by default the run's")
    add_data_root(arguments)
    arguments.add_argument("--only", type=Figure | None, help="make this figure alone")
    num = "test images for the numbers of figures 4 and 5; those of figure 3 are of all"
    arguments.add_argument("--num", type=PositiveInt, default=2000, help=num)
    arguments.add_argument("--clusters", type=PositiveInt, default=10, help="of each level")
    arguments.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    arguments.add_argument("--out", type=str, default="figures", help="folder to make")
    args = arguments.parse_args()
    unused(args.out)
    rnp, splits = load(args.run), data_of(args.run, args.data, args.data_root)
    out, numbers, clock = new_folder(args.out), {}, Clock()
    with torch.no_grad():
        for figure in FIGURES if args.only is None else [args.only]:
            numbers[figure] = FIGURES[figure](rnp, splits, args, out)
            how = {"num": min(args.num, len(splits.test)), "seed": args.seed}
            write_json(out / "figures.json", {**numbers, "made": clock.made(args.run, **how)})
    print(out)


if __name__ == "__main__":
    run(main)
