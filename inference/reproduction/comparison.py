"""Variants of a model that are trained one after the other, and their scores in one table."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.cli import sentence, train_config
from inference.config import TrainConfig
from inference.evaluation import evaluate
from inference.objectives import OBJECTIVES, check
from inference.outputs import markdown, write_json
from inference.plotting import comparison_figure
from inference.reproduction.recipes import check_flags, trained
from inference.run import Run
from pyro_rnp import RNP
from pyro_rnp.files import write

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


@dataclass(frozen=True)
class Variant:
    """One line of a comparison."""

    name: str
    """As the table has it: the name before the colon, or the flags."""
    flags: list[str]
    """Those of `pyro-rnp train`."""
    folder: Path
    """The run folder."""

    @property
    def config(self) -> TrainConfig:
        """The configuration that the flags ask for."""
        return train_config(self.flags)


def read_variants(text: str, flags: str, out: Path) -> list[Variant]:
    """Read the lines of a comparison, and refuse wrong ones.

    Args:
        text: a variant a line, as flags or as `name: flags`; an empty line is the model without
            changes, # begins a comment.
        flags: those that all variants have.
        out: the folder of the runs.

    Raises:
        ValueError: if a line is wrong, two have one name, or there is none.
    """
    written = [line for line in text.splitlines() if line[:1] != "#"]
    lines = dict.fromkeys(re.sub(r"(^|\s)#.*", "", line).strip() for line in written)
    variants: dict[Path, Variant] = {}
    loaded: set[str] = set()
    for line in lines:
        named = re.fullmatch(r"([^-:\s][^:]*):(?:\s+(.*))?", line)
        name, own = (named[1].strip(), named[2] or "") if named else (line, line)
        folder = out / (re.sub(r"[^\w.=,:+-]+", "_", name.strip("- ")) or "as-it-is")
        try:
            if folder in variants:
                raise ValueError(f"{variants[folder].name!r} would be in the same folder")
            variant = Variant(name, shlex.split(f"{flags} {own}"), folder)
            _check(variant, loaded)
        except Exception as error:
            if (told := sentence(error)) is None:
                raise
            raise ValueError(f"The variant {line!r} is wrong: {told}") from error
        variants[folder] = variant
    if not variants:
        raise ValueError("There are no variants; a line of flags makes one.")
    return [*variants.values()]


def _check(variant: Variant, loaded: set[str]) -> None:
    """Find what would end a variant's training at its beginning, and load each data set once."""
    config = variant.config
    if config.out is not None or config.resume is not None:
        raise ValueError("A variant has no --out and no --resume.")
    check_flags(variant.folder, config)
    size = (config.images_per_class, config.model.channels, *2 * [config.model.image_size])
    check(OBJECTIVES.make(config.objective), RNP(config.model), torch.zeros(size), size[0])
    own = ("data", "data_root", "binarize", "classes", "size", "channels", "invert")
    data = repr([getattr(config, name) for name in own])
    if data not in loaded:
        splits = config.load_data()
        if config.classes is not None:
            splits.of(config.classes)
        loaded.add(data)


def compare_variants(
    variants: Sequence[Variant], out: Path, particles: int = 100, num: int = 1000
) -> str:
    """Train variants, as far as they are not trained yet, and write their table and curves.

    The folder `out` then holds `table.md`, `table.json`, `curves.json` and `curves.png`.

    Args:
        variants: as `read_variants` gives them.
        out: the folder of the runs.
        particles: samples of the importance-weighted bound; 0: none.
        num: test images for it.

    Returns:
        The text of `table.md`.

    Raises:
        ValueError: as `inference.reproduction.recipes.trained`.
        Interrupted: if SIGINT or SIGTERM came; the same call goes on.
    """
    rows = [_row(variant, particles, num) for variant in variants]
    data = ", ".join({found["data"]: None for found in rows})
    note = f"All test images of {data}; IW bound and the ELBO beside it: the first {num}."
    text = f"{note}\n\n{_table(rows)}\n"
    runs = {variant.name: Run(variant.folder) for variant in variants}
    write_json(out / "table.json", rows)
    write_json(out / "curves.json", {name: run.curve for name, run in runs.items()})
    write(out / "table.md", text.encode())
    comparison_figure(runs, out / "curves.png")
    return text


def _row(variant: Variant, particles: int, num: int) -> dict[str, Any]:
    """The results of one variant, which is trained if its run has not ended."""
    config, run = variant.config, Run(variant.folder, shipped=False)
    metrics = trained(variant.folder, variant.flags)
    if particles and "test_elbo" in metrics:
        scores = variant.folder / f"iw_bound-{particles}-{num}.json"
        if not scores.exists():
            data = run.data(root=config.data_root)
            some = data if config.classes is None else data.of(config.classes)
            found = evaluate(run.load(), some.test[:num], particles=particles)
            names = [f"{name}{error}" for name in ("iw_bound", "elbo") for error in ("", "_error")]
            write_json(scores, {name: found.get(name) for name in names})
        metrics |= json.loads(scores.read_text())
    ms = 1e3 * metrics["seconds"] * config.batch_size / metrics["images_seen"]
    flags = shlex.join(variant.flags)
    row = {"variant": variant.name, "flags": flags, "data": config.data}
    return {**row, **metrics, "ms_per_step": ms}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown; what a variant does not have is left empty."""
    lines = []
    for found in rows:
        name = found["variant"]
        cells = ["as it is" if not name else f"`{name}`" if name[0] == "-" else name]
        for column in COLUMNS:
            value, error = found.get(column), found.get(f"{column}_error")
            digits = ",.1f" if isinstance(value, float) else ","
            cell = "" if value is None else format(value, digits)
            cells.append(cell + (f" ± {error:.1f}" if error is not None else ""))
        lines.append(cells)
    return markdown(["variant", *COLUMNS.values()], lines)
