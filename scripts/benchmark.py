"""Time training steps against a literal port of the paper's algorithm."""

import platform

import torch
from jsonargparse.typing import PositiveInt

from inference.benchmark import LITERAL, compare
from inference.cli import parser, run
from inference.outputs import new_file, write_json


def main() -> None:
    arguments = parser(
        "Images per second of training steps, in turn, on random images: a literal port of the "
        "paper's algorithm that materialises every program's weights, and presets. Run it on a "
        "quiet machine."
    )
    arguments.add_argument("--presets", type=list[str], default=["mnist", "fast"], help="presets")
    arguments.add_argument(
        "--batch_sizes", type=list[PositiveInt], default=[64, 256], help="images a step"
    )
    arguments.add_argument("--steps", type=PositiveInt, default=3, help="steps in one timing")
    arguments.add_argument(
        "--repeats", type=PositiveInt, default=7, help="timings; medians are shown"
    )
    arguments.add_argument("--memory", type=bool, default=True, help="measure peak memory too")
    arguments.add_argument("--out", type=str | None, default=None, help="JSON file to make")
    args = arguments.parse_args()
    out = None if args.out is None else new_file(args.out)
    whats = [LITERAL, *(f"preset {name}" for name in args.presets)]
    rows = compare(whats, args.batch_sizes, args.steps, args.repeats, args.memory)
    print(f"{'':15} {'batch':>6} {'images/s':>9} {'ratio':>6} {'peak GiB':>9}")
    for row in rows:
        print(
            f"{row['what']:15} {row['batch_size']:6} {row['images_per_second']:9.1f} "
            f"{row['ratio']:6.2f} {row['peak_gib'] or float('nan'):9.2f}"
        )
    if out is not None:
        machine = {"processor": platform.processor(), "threads": torch.get_num_threads()}
        write_json(out, {"machine": machine, "torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    run(main)
