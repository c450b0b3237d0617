"""Train variants of a model one after the other, for equal time, and put them in a table."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from inference.cli import bundled, parser, train_config
from inference.data import load_data
from inference.evaluation import evaluate
from inference.objectives import OBJECTIVES, check
from inference.outputs import markdown, write_json
from inference.reproduction.recipes import trained
from pyro_rnp import RNP, load

COLUMNS = {
    "test_elbo": "ELBO",
    "iw_bound": "IW bound, some",
    "elbo": "ELBO, the same",
    "test_sse": "`test_sse`",
    "test_sse_mean_image": "mean image",
    "test_sse_blank": "blank",
    "test_kl": "KL",
    "ms_per_step": "ms a step",
    "images_seen": "images seen",
}


def main() -> None:
    """Train variants and write a table of their scores."""
    arguments = parser(
        "Train variants of a model one after the other, for equal time, and put them in a table.",
        "Its columns: ELBO, test_sse and KL of all test images, and test_sse of the mean training "
        "image and of a blank canvas; the importance-weighted bound of the first --num, and the "
        "ELBO of the same. A variant that has been trained is not trained again, so an interrupted "
        "comparison goes on where it stopped. Nothing else should run beside it.",
    )
    file = (
        "text file with the flags of pyro-rnp train that make a variant, one a line; an empty "
        "line is the model without changes, # begins a comment; pieces: the package's own list"
    )
    arguments.add_argument("variants", type=str, help=file)
    arguments.add_argument("--flags", type=str, default="", help="flags that all of them have")
    arguments.add_argument("--out", type=str, default="runs/compared", help="folder for the runs")
    particles = "samples of the IW bound; 0: none"
    arguments.add_argument("--particles", type=NonNegativeInt, default=100, help=particles)
    arguments.add_argument("--num", type=PositiveInt, default=1000, help="test images for it")
    args = arguments.parse_args()
    text = Path(bundled(args.variants, ".txt")).read_text()
    written = [line for line in text.splitlines() if line[:1] != "#"]
    lines = list(dict.fromkeys(line.partition(" #")[0].strip() for line in written))
    for line in lines:  # a mistake in the last line is told before the first is trained
        config = train_config(shlex.split(f"{args.flags} {line}"))
        if config.out is not None or config.resume is not None:
            raise ValueError(f"A variant has no --out and no --resume: {line}.")
        size = (config.images_per_class, config.model.channels, *2 * [config.model.image_size])
        check(OBJECTIVES.make(config.objective), RNP(config.model), torch.zeros(size), size[0])
    rows = [_row(line, args) for line in lines]
    write_json(Path(args.out) / "table.json", rows)
    data = ", ".join({found["data"]: None for found in rows})
    print(f"All test images of {data}; IW bound and the ELBO beside it: the first {args.num}.\n")
    print(_table(rows))


def _row(line: str, args: Any) -> dict[str, Any]:
    """The results of one variant, which is trained if its run folder is not there."""
    folder = Path(args.out) / (re.sub(r"[^\w.=,:+-]+", "_", line.strip("- ")) or "as-it-is")
    flags = shlex.split(f"{args.flags} {line}")
    config = train_config(flags)
    metrics = trained(folder, flags)
    if args.particles and "test_elbo" in metrics:
        scores = folder / f"iw_bound-{args.particles}-{args.num}.json"
        if not scores.exists():
            data = load_data(config.data, config.data_root, config.binarize, config.classes).test
            found = evaluate(load(folder), data[: args.num], particles=args.particles)
            names = [f"{name}{error}" for name in ("iw_bound", "elbo") for error in ("", "_error")]
            write_json(scores, {name: found.get(name) for name in names})
        metrics |= json.loads(scores.read_text())
    ms = 1e3 * metrics["seconds"] * config.batch_size / metrics["images_seen"]
    return {"variant": line, "data": config.data, **metrics, "ms_per_step": ms}


def _table(rows: list[dict]) -> str:
    """The rows as Markdown; what a variant does not have is left empty."""
    lines = []
    for found in rows:
        cells = [f"`{found['variant']}`" if found["variant"] else "as it is"]
        for column in COLUMNS:
            value, error = found.get(column), found.get(f"{column}_error")
            digits = ",.1f" if isinstance(value, float) else ","
            cell = "" if value is None else format(value, digits)
            cells.append(cell + (f" ± {error:.1f}" if error is not None else ""))
        lines.append(cells)
    return markdown(["variant", *COLUMNS.values()], lines)
