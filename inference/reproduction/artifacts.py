"""The small files that runs and commands leave, kept in one folder: all of a run but its weights.

The page of results is written from this folder, so it can be written anew, and held against the
numbers, on any machine. The small classifiers of figure 5 lie there too, so that later runs are
compared in the same features.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from inference.outputs import write_json
from inference.reproduction.recipes import portable
from inference.run import Run
from inference.system import hardware
from pyro_rnp.files import write

SETS = {"mnist": "MNIST", "omniglot": "Omniglot", "fashion": "Fashion-MNIST"}
"""Data sets by name; a run on one has its name, the flat VAE's has `-flat` behind."""
SAME_TEST = {"omniglot-alphabets": "omniglot"}
"""Data sets with the test images of one of `SETS`, with whose runs their runs are compared."""
FIGURE_NUMBERS, SCORE, TRANSFER = "figures.json", "score.json", "transfer.json"
"""The files of numbers that figures, scores of a run and comparisons of transfer leave."""
SCORES, TRANSFERS = "score-", "transfer-"
"""How names of scores of a run begin, and of comparisons of transfer."""
PART = ".part"
"""How names of folders end that are not whole yet."""


def collect_artifacts(runs: Path, artifacts: Path) -> None:
    """Copy the small files of all that has ended, under the same names, over those there.

    Of a run these are its configuration, metrics and curve, with the fingerprint of its weights;
    of `NAME-figures`, `score-*` and `transfer-*` the numbers, and the pictures with a palette.

    Args:
        runs: folder of runs, as `pyro-rnp reproduce` makes it; it need not exist.
        artifacts: folder to copy to.
    """
    for run in Run.ended_in(runs):
        run.describe(artifacts / run.path.name, portable(run.path), weights=run.fingerprint)
    for kind in (FIGURE_NUMBERS, SCORE, TRANSFER):
        for file in sorted(runs.glob(f"*/{kind}")):
            if file.parent.suffix != PART:
                _copy(file, artifacts / file.parent.name)


def prune_pictures(artifacts: Path, page: str) -> None:
    """Delete the pictures beside numbers that the page does not show.

    Args:
        artifacts: folder of artifacts.
        page: the page's text, in which paths of pictures start at that folder.
    """
    for kind in (FIGURE_NUMBERS, TRANSFER):
        for file in artifacts.glob(f"*/{kind}"):
            for picture in file.parent.glob("*.png"):
                if picture.relative_to(artifacts).as_posix() not in page:
                    picture.unlink()


def _copy(file: Path, to: Path) -> None:
    """Copy a file of numbers, and the pictures beside it."""
    to.mkdir(parents=True, exist_ok=True)
    write_json(to / file.name, json.loads(file.read_text()))
    for picture in file.parent.glob("*.png"):
        _shrink(picture, to / picture.name)


def _shrink(picture: Path, to: Path) -> None:
    """Write a picture with a palette of 256 colours, a third of the size."""
    with Image.open(picture) as full:
        # Other methods give rare colours, such as thin blue frames, to their neighbours.
        small = full.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=0)
    buffer = io.BytesIO()
    small.save(buffer, "png", optimize=True)
    write(to, buffer.getvalue())


def tested_on(run: Run) -> str:
    """The data set whose test images a run's scores are of: that of `SETS`, if it is one."""
    data = str(run.config.data)
    return SAME_TEST.get(data, data)


def ended_runs(artifacts: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and metrics of runs, by likelihood, then data set and name, flat VAEs last."""

    def order(run: Run) -> tuple[Any, ...]:
        config, data = run.config, tested_on(run)
        kinds = (config.binarize, list(SETS).index(data) if data in SETS else -1)
        return *kinds, config.model.program != "recursive", run.path.name

    for run in sorted(Run.ended_in(artifacts), key=order):
        yield run.path.name, run.metrics or {}


def figure_results(artifacts: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names of runs and the numbers of their figures, without those of other weights."""
    for name, metrics in ended_runs(artifacts):
        found = _read(artifacts / f"{name}-figures" / FIGURE_NUMBERS)
        if found is not None and found["made"]["weights"] == metrics["weights"]:
            yield name, found


def score_results(artifacts: Path) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Names of runs, flags of a score of each, and the score, without those of other weights."""
    files = [_read(path) for path in sorted(artifacts.glob(f"{SCORES}*/{SCORE}"))]
    for name, metrics in ended_runs(artifacts):
        for found in files:
            made = found["made"]
            if (made["of"], made["weights"]) == (name, metrics["weights"]):
                pairs = (flag.removeprefix("--").partition("=") for flag in made["asked"])
                yield name, {key: value for key, _, value in pairs}, found


def transfer_results(artifacts: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Comparisons of transfer, without those that tuned other weights than the runs have now."""
    now = {name: metrics["weights"] for name, metrics in ended_runs(artifacts)}
    for file in sorted(artifacts.glob(f"{TRANSFERS}*/{TRANSFER}")):
        found = _read(file)
        if found["made"].get("weights", {}).items() <= now.items():
            yield file.parent.name, found


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


class Clock:
    """Measures the time of a result from the moment that the clock is made."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def made(self, run: str | Path, **how: Any) -> dict[str, Any]:
        """The note of a result that says how it was made.

        Args:
            run: run folder, or the name of a shipped model, that gave the result.
            how: the settings of the command.

        Returns:
            `how`, `weights` (see `Run.fingerprint`), `seconds` so far and `hardware`.
        """
        seconds = time.monotonic() - self.began
        on = hardware(torch.device("cpu"))
        return {**how, "weights": Run(run).fingerprint, "seconds": seconds, "hardware": on}
