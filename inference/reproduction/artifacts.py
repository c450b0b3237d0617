"""What a page of results is made of, kept beside it: all that runs left but their weights.

A folder of runs is large and of one machine; what is kept of it is small, so the page can be
written anew, and held against what it is made of, wherever the project is. Beside it lie the small
classifiers of figure 5, so that what is trained elsewhere is compared in the same features.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from inference.outputs import write_json
from inference.reproduction.recipes import RUN, describe
from inference.run import fingerprint, training_of
from inference.system import hardware
from pyro_rnp.files import write

SETS = {"mnist": "MNIST", "omniglot": "Omniglot", "fashion": "Fashion-MNIST"}
"""Names of runs, those with `-flat` behind are of the flat VAE, and what they learned from."""
FIGURES = "figures.json"
SCORE, TRANSFER = "score.json", "transfer.json"
SCORES, TRANSFERS = "score-", "transfer-"
"""How names of scores of a run begin, and of comparisons of transfer."""
PART = ".part"
"""How names of folders end that are not whole yet."""


def keep(runs: Path, kept: Path) -> None:
    """Copy the small files of what has ended, under the same names, over what is there.

    Of a run its configuration, metrics and curve, and a fingerprint of its weights; of
    `NAME-figures`, `score-*` and `transfer-*` the numbers, and the pictures with a palette.

    Args:
        runs: folder of runs, as `scripts/reproduce.py` makes it; nothing is kept if there is none.
    """
    for file in sorted(runs.glob(f"*/{RUN}")):
        describe(file.parent, kept / file.parent.name, weights=fingerprint(file.parent))
    for kind in (FIGURES, SCORE, TRANSFER):
        for file in sorted(runs.glob(f"*/{kind}")):
            if file.parent.suffix != PART:
                _copy(file, kept / file.parent.name)


def prune(kept: Path, page: str) -> None:
    """Delete the pictures beside numbers that are kept, where the page does not show them."""
    for kind in (FIGURES, TRANSFER):
        for file in kept.glob(f"*/{kind}"):
            for picture in file.parent.glob("*.png"):
                if picture.relative_to(kept).as_posix() not in page:
                    picture.unlink()


def _copy(file: Path, to: Path) -> None:
    """A file of numbers, and the pictures beside it."""
    to.mkdir(parents=True, exist_ok=True)
    write_json(to / file.name, json.loads(file.read_text()))
    for picture in file.parent.glob("*.png"):
        _shrink(picture, to / picture.name)


def _shrink(picture: Path, to: Path) -> None:
    """A picture with a palette, a third of the size: every third grey, and the colours there are.

    Colours have their own part of it, since faint ink that borrows one looks tinted.
    """
    with Image.open(picture) as full:
        pixels = np.asarray(full.convert("RGB"))
    greys = np.repeat(np.arange(0, 256, 3), 3)
    palette, numbers = [*greys], pixels[..., 0] // 3
    coloured = np.ptp(pixels, axis=-1) > 0
    if coloured.any():
        first = len(greys) // 3
        row = Image.fromarray(pixels[coloured][None])
        # Other methods give rare colours, such as thin blue frames, to their neighbours.
        found = row.quantize(256 - first, Image.Quantize.MAXCOVERAGE)
        palette += (found.getpalette() or [])[: 3 * (256 - first)]
        numbers[coloured] = first + np.asarray(found)[0]
    small = Image.frombytes("P", pixels.shape[1::-1], numbers.tobytes())
    small.putpalette(palette)
    buffer = io.BytesIO()
    small.save(buffer, "png", optimize=True)
    write(to, buffer.getvalue())


def ended(kept: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs with their metrics, by likelihood, then data set and name, flat VAEs last."""

    def order(run: Path) -> tuple[Any, ...]:
        config = training_of(run)
        kinds = (config.binarize, list(SETS).index(config.data) if config.data in SETS else -1)
        return *kinds, config.model.program != "recursive", run.name

    for run in sorted((file.parent for file in kept.glob(f"*/{RUN}")), key=order):
        yield run.name, _read(run / RUN)


def figures(kept: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs and the numbers of their figures, but those of other weights."""
    for name, metrics in ended(kept):
        found = _read(kept / f"{name}-figures" / FIGURES)
        if found is not None and found["made"]["weights"] == metrics["weights"]:
            yield name, found


def scores(kept: Path) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Runs with what was asked about each and found; what is of other weights is left out."""
    files = [_read(path) for path in sorted(kept.glob(f"{SCORES}*/{SCORE}"))]
    for name, metrics in ended(kept):
        for found in files:
            made = found["made"]
            if (made["of"], made["weights"]) == (name, metrics["weights"]):
                pairs = (flag.removeprefix("--").partition("=") for flag in made["asked"])
                yield name, {key: value for key, _, value in pairs}, found


def transfers(kept: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What `scripts/transfer.py` left, but what is of other weights of the runs that it tuned."""
    now = {name: metrics["weights"] for name, metrics in ended(kept)}
    for file in sorted(kept.glob(f"{TRANSFERS}*/{TRANSFER}")):
        found = _read(file)
        if found["made"].get("weights", {}).items() <= now.items():
            yield file.parent.name, found


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


class Clock:
    """Begins when it is made."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def made(self, run: str | Path, **how: Any) -> dict[str, Any]:
        """What a result that a run's model gave is to say of itself.

        Args:
            how: what was asked.

        Returns:
            `how`, `weights` (see `fingerprint`), `seconds` so far and `hardware`.
        """
        seconds = time.monotonic() - self.began
        on = hardware(torch.device("cpu"))
        return {**how, "weights": fingerprint(run), "seconds": seconds, "hardware": on}
