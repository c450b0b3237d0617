"""What made a run, read from its folder: its command and its curve."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from inference.outputs import write_json
from inference.settings import RATES, TrainConfig
from pyro_rnp import RNPConfig
from pyro_rnp.checkpoint import CONFIG, load_config

PLACES = ("data_root", "out", "resume", "start")
"""Fields that say where things are on one machine."""
RECIPE = r"[\w-]+\.yaml"
"""The name of a recipe in a command."""
CURVE = "curve.json"
"""The curve of a shipped model."""


def training_of(run: str | Path) -> TrainConfig:
    """The configuration that a run folder's model was trained under.

    Raises:
        FileNotFoundError, ValueError: as `pyro_rnp.checkpoint.load_config`; ValueError also if the
            folder says nothing of its training.
    """
    model, notes = load_config(run)
    known = {f.name for f in fields(TrainConfig)}
    training = {k: v for k, v in notes.get("training", {}).items() if k in known}
    if "data" not in training:
        raise ValueError(f"{run} does not say how its model was trained.")
    return TrainConfig(**{**training, "model": model})


def flags(config: TrainConfig) -> list[str]:
    """The flags of `scripts/train.py` that ask for a configuration, but where things are.

    What the preset or the defaults say is left out.

    >>> flags(TrainConfig(data="mnist", epochs=3, model=RNPConfig.preset("fast", program_size=16)))
    ['--data=mnist', '--epochs=3', '--program_size=16']
    """
    plain = TrainConfig(
        preset=config.preset,
        learning_rate=RATES[config.preset],
        model=RNPConfig.preset(config.preset),
    )
    found = []
    for own, default in ((config, plain), (config.model, plain.model)):
        for f in fields(own):
            value = getattr(own, f.name)
            named = f.name == "preset" and value != TrainConfig().preset
            if f.name in (*PLACES, "model") or (value == getattr(default, f.name) and not named):
                continue
            text = value if isinstance(value, str) else json.dumps(value)
            found.append(f"--{f.name}={text}".replace(" ", ""))
    return found


def in_configs(text: str) -> str:
    """A command in which recipes lie where they do in the project."""
    return re.sub(rf"[^\s'\"=]*?({RECIPE})", r"scripts/configs/\1", text)


def portable(run: str | Path) -> dict[str, Any]:
    """The notes of a run folder without what belongs to one machine.

    A run that began with another's weights says `RUN` in place of where these were.
    """
    config = training_of(run)
    training = {k: v for k, v in asdict(config).items() if k not in (*PLACES, "model")}
    return {"training": training | ({} if config.start is None else {"start": "RUN"})}


def describe(run: Path, to: Path, **more: Any) -> None:
    """Write what a run is and what came out, `config.json`, `metrics.json` and `curve.json`.

    Args:
        more: beside its metrics.
    """
    made = {
        CONFIG: {"model": load_config(run)[0].to_dict(), **portable(run)},
        "metrics.json": {**json.loads((run / "metrics.json").read_text()), **more},
        CURVE: curve(run),
    }
    to.mkdir(parents=True, exist_ok=True)
    for name, value in made.items():
        write_json(to / name, value)


def curve(run: str | Path) -> list[dict[str, Any]]:
    """What validation gave after each epoch, over all parts of a run, or of a shipped model.

    Returns:
        Rows with `epoch` (how many were done; the last may be a part of one), `images_seen`,
        `seconds`, and `val_sse`, `val_sse_mean`, `val_kl`, `val_elbo` as far as there are any.

    Raises:
        FileNotFoundError: if the folder holds no curves.
    """

    def number(path: Path) -> int:
        return int(path.parent.name.partition("-")[2] or 1)

    if (Path(run) / CURVE).exists():
        return json.loads((Path(run) / CURVE).read_text())
    files = sorted(Path(run).glob("curves*/metrics.csv"), key=number)
    if not files:
        raise FileNotFoundError(f"{run} holds no curves.")
    rows: dict[float, dict[str, Any]] = {}
    for file in files:
        with file.open(newline="") as lines:
            for line in csv.DictReader(lines):
                if not line.get("val_sse"):
                    continue
                names = [n for n in line if n.startswith("val_") or n in ("images_seen", "seconds")]
                row = {n: float(line[n]) for n in names if line[n]}
                rows[row["images_seen"]] = {"epoch": int(line["epoch"]) + 1, **row}
    return [rows[seen] for seen in sorted(rows)]
