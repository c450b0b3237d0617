"""How well a program language that was learned on some images explains others (Figure 6)."""

import json
import shlex
from pathlib import Path

import torch

from inference.cli import add_data_root, parser, run, train_config
from inference.data import DataName, load_data
from inference.outputs import write_json
from inference.reproduction.transfer import as_many, by_program, cases, seconds, transfer
from inference.run import Run
from inference.system import hardware


def main() -> None:
    arguments = parser(
        "Train without some classes, tune the encoder alone on them, and compare with a model "
        "that was trained on everything, for as many images; then a flat VAE for equal time.",
        "The folder holds the runs, transfer.json with the squared error of unseen test images, of "
        "validation images of what was learned from (seen) and of no ink at all (blank), and "
        "pictures of unseen images as each model draws them, and of their parts. What "
        "is there is not trained again. Examples: transfer.py --data mnist --unseen '[7,8]' --out "
        "DIR; transfer.py --data omniglot --new omniglot-new --all omniglot-all --out DIR; of what "
        "has learned already, transfer.py --learned '[omniglot]' --data omniglot --new "
        "omniglot-new --out DIR.",
    )
    arguments.add_argument("--data", type=DataName, default="digits", help="what to learn from")
    arguments.add_argument(
        "--unseen", type=list[int] | None, help="classes, each of which is left out in turn"
    )
    arguments.add_argument("--new", type=DataName | None, help="a data set of unseen ones instead")
    arguments.add_argument(
        "--all", type=DataName | None, help="a data set of both, to train on everything"
    )
    arguments.add_argument(
        "--learned",
        type=list[str],
        help="runs that learned from --data alone, at most one of each --program, to tune on --new "
        "and compare; nothing else is trained then",
    )
    arguments.add_argument(
        "--across", type=list[DataName], default=[], help="data sets to score too, nothing tuned"
    )
    add_data_root(arguments)
    arguments.add_argument("--flags", type=str, default="", help="flags of training")
    arguments.add_argument("--tune_flags", type=str, default="", help="flags of tuning")
    arguments.add_argument("--out", type=str, default="runs/transfer", help="folder for the runs")
    args = arguments.parse_args()
    if args.all is not None and args.new is None:
        raise ValueError("--all goes with --new; with --unseen, all is --data.")
    if args.learned is not None and (args.new is None or args.all or args.flags):
        raise ValueError("--learned goes with --new, and without --all and --flags.")
    learned = by_program(args.learned or [], args.data)
    where = [] if args.data_root is None else ["--data-root", args.data_root]
    plain = [*where, *shlex.split(args.flags)]
    base, tune = [*plain, f"--data={args.data}"], [*where, *shlex.split(args.tune_flags)]
    configs = [Run(run).config for run in learned.values()] or [train_config(base)]
    binarize = configs[0].binarize
    found = cases(args.data, args.unseen, args.new, args.data_root, binarize)
    everything = [*plain, f"--data={args.all or args.data}"]
    if args.unseen or args.all is not None:
        everything = as_many(base, found[0].left, everything)
    else:
        everything = None
    across = {name: load_data(name, args.data_root, binarize).test for name in args.across}
    out, script = Path(args.out), Path(__file__).with_name("train.py")
    told = [
        {"data": args.data, **transfer(case, out, base, tune, everything, across, script, learned)}
        for case in found
    ]
    said = ("data", "unseen", "new", "all", "across", "flags", "tune_flags", "learned")
    values = {name: getattr(args, name) for name in said if getattr(args, name)}
    if learned:
        values["learned"] = [run.name for run in learned.values()]
    made = {
        "hardware": hardware(torch.device("cpu")),
        "seconds": seconds(out),
        "weights": {run.name: Run(run).fingerprint for run in learned.values()},
    }
    texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in values.items()}
    flags = shlex.join(f"--{name}={text}" for name, text in texts.items())
    write_json(out / "transfer.json", {"flags": flags, "cases": told, "made": made})
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    run(main)
