"""Time training, parsing and sampling against other models and the processor's own rate."""

import os
import platform

import torch
from jsonargparse.typing import PositiveInt

from inference.cli import parser
from inference.evaluation.benchmark import compare, scaling, subjects
from inference.outputs import new_folder, write_json
from inference.plotting import scaling_figure

HEADER = (
    f"{'':20} {'task':7} {'batch':>5} {'images/s':>9} {'ratio':>6} {'GFLOP/image':>11} "
    f"{'roofline':>8} {'peak GiB':>8}"
)


def main() -> None:
    """Time models, and print a table."""
    arguments = parser(
        "Images per second on random images, medians of timings in turn: presets; a literal port "
        "of the paper's algorithm that materialises every program's weights (ratio 1); a flat VAE "
        "with the same encoder; the encoder alone. The roofline is the share of the rate of a "
        "large matrix product, timed in the same turns. Run it on a quiet machine."
    )
    arguments.add_argument(
        "--presets", type=list[str], default=["mnist", "omniglot", "fast"], help="presets"
    )
    arguments.add_argument(
        "--batch_sizes", type=list[PositiveInt], default=[64, 256], help="images a step"
    )
    arguments.add_argument(
        "--repeats", type=PositiveInt, default=7, help="timings; medians are shown"
    )
    arguments.add_argument("--memory", type=bool, default=True, help="measure peak memory too")
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
    whats = subjects(args.presets)
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
        rows = compare(whats, args.batch_sizes, args.repeats, args.memory)
        print(HEADER)
        for row in rows:
            print(
                f"{row['what']:20} {row['task']:7} {row['batch_size']:5} "
                f"{row['images_per_second']:9.1f} {row['ratio']:6.2f} "
                f"{row['gflop_per_image']:11.3f} {row['roofline']:8.0%} "
                f"{row['peak_gib'] or float('nan'):8.2f}"
            )
        rates = sorted({round(row["product"]) for row in rows})
        print(f"Large matrix product: {', '.join(map(str, rates))} GFLOP/s in the turns above.")
    if out is not None:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        }
        write_json(
            out / "benchmark.json", {"machine": machine, "torch": torch.__version__, "rows": rows}
        )
        print(out)
