"""Time training, parsing and sampling against other models and the processor's own rate."""

import torch
from jsonargparse.typing import PositiveInt

from inference.cli import parser
from inference.evaluation.benchmark import (
    HEADER,
    TASKS,
    Task,
    compare,
    earlier,
    line,
    machine,
    scaling,
    subjects,
)
from inference.outputs import new_folder, write_json
from inference.plotting import scaling_figure


def main() -> None:
    """Time models, and print a table."""
    arguments = parser(
        "Time models on random images, medians of timings in turn: presets; a literal port of the "
        "paper's algorithm that materialises every program's weights (ratio 1, in images per "
        "second); random levels; flat VAEs with the same encoders; an encoder alone; Pyro's own "
        "SVI on a flat VAE, and on the models of Pyro's examples/vae and examples/air. `to flat` "
        "is the time over that of the flat VAE of the same preset. The roofline is the share of "
        "the rate of a large matrix product, timed in the same turns. Run it on a quiet machine."
    )
    arguments.add_argument(
        "--presets", type=list[str], default=["mnist", "omniglot", "fast"], help="presets"
    )
    arguments.add_argument(
        "--compiled",
        type=list[str],
        default=[],
        help="presets that are timed compiled too, which takes some minutes for each",
    )
    arguments.add_argument(
        "--batch_sizes", type=list[PositiveInt], default=[64, 256], help="images a step"
    )
    arguments.add_argument(
        "--tasks", type=list[Task], default=list(TASKS), help="what is timed: train, parse, sample"
    )
    arguments.add_argument(
        "--repeats", type=PositiveInt, default=7, help="timings; medians are shown"
    )
    arguments.add_argument("--memory", type=bool, default=True, help="measure peak memory too")
    arguments.add_argument(
        "--before",
        type=str | None,
        default=None,
        help="benchmark.json of an earlier benchmark, whose ratios are shown beside",
    )
    arguments.add_argument(
        "--scaling",
        type=str | None,
        default=None,
        help="instead, a preset whose cost is shown as depth, parts, sizes and batch grow",
    )
    arguments.add_argument(
        "--out", type=str | None, default=None, help="folder to make for the JSON file and plot"
    )
    args = arguments.parse_args()
    if args.scaling is not None and args.before is not None:
        raise ValueError("--before compares models; leave it out with --scaling.")
    whats = subjects(args.presets, args.compiled)
    before = {} if args.before is None else earlier(args.before)
    out = None if args.out is None else new_folder(args.out)
    if args.scaling is not None:
        rows = scaling(args.scaling, args.repeats)
        print(f"{'':24} {'value':>5} {'batch':>5} {'nodes':>5} {'ms/image':>8} {'MiB/image':>9}")
        for row in rows:
            print(
                f"{row['sweep']:24} {row['value']:5} {row['batch_size']:5} {row['nodes']:5} "
                f"{row['ms_per_image']:8.2f} {row['mib_per_image']:9.2f}"
            )
        if out is not None:
            scaling_figure(rows, out / "scaling.png")
    else:
        rows = compare(whats, args.batch_sizes, args.repeats, args.memory, args.tasks)
        print(HEADER)
        for row in rows:
            row["before"] = before.get((row["what"], row["task"], row["batch_size"]))
            print(line(row))
        rates = sorted({round(row["product"]) for row in rows})
        print(f"Large matrix product: {', '.join(map(str, rates))} GFLOP/s in the turns above.")
    if out is not None:
        write_json(
            out / "benchmark.json", {"machine": machine(), "torch": torch.__version__, "rows": rows}
        )
        print(out)
