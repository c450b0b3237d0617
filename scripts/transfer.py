"""How well a program language that was learned on some images explains others (Figure 6)."""

import json
import shlex
from pathlib import Path

import torch

from inference.cli import add_data_root, parser, run
from inference.data import DataName, data_of, load_data
from inference.evaluation import evaluate
from inference.figures import parse_figure
from inference.outputs import write_json
from inference.runs import trained
from pyro_rnp import load

PROGRAMS = ("recursive", "flat")


def main() -> None:
    arguments = parser(
        "Train without some classes, tune the encoder alone on them, and compare with a model "
        "that was trained on everything; the same for a flat VAE.",
        "The folder holds the runs, transfer.json with the squared error of unseen test images "
        "(one posterior sample), and a picture of unseen images taken apart by each model. What "
        "is there is not trained again. Examples: transfer.py --data mnist --unseen '[7]' --out "
        "DIR; transfer.py --data omniglot --new omniglot-new --all omniglot-all --out DIR.",
    )
    arguments.add_argument("--data", type=DataName, default="digits", help="what to learn from")
    arguments.add_argument("--unseen", type=list[int] | None, help="classes that are left out")
    arguments.add_argument("--new", type=DataName | None, help="a data set of unseen ones instead")
    arguments.add_argument(
        "--all", type=DataName | None, help="a data set of both, to train on everything"
    )
    arguments.add_argument(
        "--across", type=list[DataName], default=[], help="data sets to score too, nothing tuned"
    )
    add_data_root(arguments)
    arguments.add_argument("--flags", type=str, default="", help="flags of training")
    arguments.add_argument("--tune_flags", type=str, default="", help="flags of tuning")
    arguments.add_argument("--out", type=str, default="runs/transfer", help="folder for the runs")
    args = arguments.parse_args()
    if (args.unseen is None) == (args.new is None):
        raise ValueError("Say which images are unseen: --unseen or --new.")
    if args.all is not None and args.new is None:
        raise ValueError("--all goes with --new; with --unseen, all is --data.")
    rows = [row for program in PROGRAMS for row in transferred(program, args)]
    said = ("data", "unseen", "new", "all", "across", "flags", "tune_flags")
    values = {name: getattr(args, name) for name in said if getattr(args, name)}
    flags = shlex.join(f"--{name}={value}" for name, value in values.items())
    write_json(Path(args.out) / "transfer.json", {"flags": flags, "rows": rows})
    print(json.dumps(rows, indent=2))


def transferred(program: str, args) -> list[dict]:
    """What a model makes of unseen images before tuning, after it, and if it has seen all."""
    out, script = Path(args.out), Path(__file__).with_name("train.py")
    where = [] if args.data_root is None else ["--data-root", args.data_root]
    base = [*where, f"--program={program}", f"--data={args.data}", *shlex.split(args.flags)]
    tune = [*where, "--learn=guide", *shlex.split(args.tune_flags)]
    without, tuned, all_ = (out / f"{program}-{x}" for x in ("without", "tuned", "all"))
    if args.unseen is None:
        runs = {without: base, tuned: [*tune, f"--data={args.new}"]}
        if args.all is not None:
            runs[all_] = [*base, f"--data={args.all}"]
    else:
        labels = load_data(args.data, args.data_root).test.labels.unique().tolist()
        if not set(args.unseen) < set(labels):
            raise ValueError(
                f"--unseen takes some of the classes {min(labels)} to {max(labels)}, not all; got "
                f"{args.unseen}."
            )
        seen = [label for label in labels if label not in args.unseen]
        runs = {
            without: [*base, f"--classes={seen}"],
            tuned: [*tune, f"--data={args.data}", f"--classes={args.unseen}"],
            all_: base,
        }
    rows = []
    for folder, flags in runs.items():
        start = [f"--start={without}"] if folder == tuned else []
        trained(folder, [*flags, *start], script)
        rnp, row = load(folder), {"model": folder.name}
        unseen = data_of(folder, args.new or args.data, args.data_root).test
        if args.unseen is not None:
            unseen = unseen[torch.isin(unseen.labels, torch.tensor(args.unseen)).nonzero()[:, 0]]
        row["unseen"] = evaluate(rnp, unseen)["sse"]
        for name in args.across:
            row[name] = evaluate(rnp, data_of(folder, name, args.data_root).test)["sse"]
        some = unseen.images[:12]
        with torch.no_grad():
            parse_figure(rnp.parse(some), out / f"{folder.name}.png", some)
        rows.append(row)
    return rows


if __name__ == "__main__":
    run(main)
