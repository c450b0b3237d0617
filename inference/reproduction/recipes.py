"""Commands of runs: the flags that ask for a configuration, and notes that hold on any machine."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from inference.config import RATES, TrainConfig
from inference.outputs import write_json
from inference.run import CURVE, curve, training_of
from pyro_rnp import RNPConfig
from pyro_rnp.checkpoint import CONFIG, load_config

PLACES = ("data_root", "out", "resume", "start")
"""Fields that say where things are on one machine."""

RECIPE = r"[\w-]+\.yaml"
"""The name of a recipe in a command."""


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
