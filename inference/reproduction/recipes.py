"""Recipes of runs: the flags that ask for a configuration, and training by them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from inference.cli import train_config
from inference.config import LEARNING, TrainConfig
from inference.data.datasets import is_path
from inference.run import IMAGES, Run
from pyro_rnp import RNPConfig
from pyro_rnp.checkpoint import SHIPPED, find, shipped

PLACES = ("data_root", "out", "resume", "start")
"""Fields that are paths on one machine."""

RECIPE = r"[\w-]+\.yaml"
"""The name of a recipe in a command."""


def start_of(config: TrainConfig) -> str | None:
    """What a training began with: a pretrained model by name, `RUN` for another run, or None."""
    start = config.start
    if start is None:
        return None
    return start if start in shipped() and find(start) == SHIPPED / start else "RUN"


def to_flags(config: TrainConfig) -> list[str]:
    """The flags of `pyro-rnp train` that ask for a configuration, without paths.

    Fields at the preset's or the default value are left out. Of runs to begin with, a pretrained
    model alone is named.

    >>> to_flags(TrainConfig(data="mnist", epochs=3, learn="guide", start="there"))
    ['--data=mnist', '--epochs=3', '--learn=guide']
    """
    plain = TrainConfig(
        preset=config.preset,
        **LEARNING[config.preset],
        model=RNPConfig.for_images(
            config.model.image_size, config.model.channels, config.preset, steps=config.model.steps
        ),
    )
    plain = replace(plain, model=replace(plain.model, steps=RNPConfig.preset(config.preset).steps))
    begun = start_of(config)
    found = [f"--start={begun}"] if begun not in (None, "RUN") else []
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
    """A command with its recipes by name, without the paths of one machine.

    >>> in_configs("--config ../../there/mnist.yaml --epochs 3")
    '--config mnist.yaml --epochs 3'
    """
    return re.sub(rf"[^\s'\"=]*?({RECIPE})", r"\1", text)


def portable(run: str | Path) -> dict[str, Any]:
    """The notes of a run folder without the paths of one machine.

    Args:
        run: run folder.

    Returns:
        `training`, the training configuration by field, and `images`; where the run began with
        another run's weights, `start` is `RUN` in place of that run's path, or the name of the
        pretrained model.
    """
    config = Run(run).config
    training = {k: v for k, v in asdict(config).items() if k not in (*PLACES, "model")}
    if is_path(config.data):
        training["data"] = f"./{Path(config.data).name}"
    notes = {"training": training | ({} if config.start is None else {"start": start_of(config)})}
    return notes | ({IMAGES: Run(run).images} if Run(run).images else {})


def trained(folder: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Train by flags in a run folder, or resume the run there, and return its metrics.

    A run that has ended is not trained again; a folder without a checkpoint is begun anew.

    Args:
        folder: the run folder.
        flags: those of `pyro-rnp train`.

    Returns:
        The contents of `metrics.json`.

    Raises:
        ValueError: if the run there was made with other flags, began with other weights or is
            being trained by another process, or if training does not end.
        Interrupted: if SIGINT or SIGTERM came; a checkpoint is saved.
    """
    config, run = train_config(flags), Run(folder, shipped=False)
    check_flags(folder, config)
    if not run.ended:
        print(f"{' '.join(flags)}: {folder}", flush=True)
        if run.has_checkpoint:
            config = train_config(["--resume", str(folder)])
        else:
            if folder.exists():  # it was killed before its first checkpoint
                with run.lock():
                    shutil.rmtree(folder)
            config = replace(config, out=str(folder))
        _train_here(config)
    metrics = run.metrics
    if metrics is None:
        raise ValueError(f"The run {folder} did not end.")
    return metrics


def check_flags(folder: Path, config: TrainConfig) -> None:
    """Compare a configuration with that of the run in a folder, if there is one.

    Args:
        folder: a run folder, which need not exist.
        config: the configuration that the run should have.

    Raises:
        ValueError: if that run was made with other flags, or began with other weights.
    """
    if not folder.exists():
        return
    run = Run(folder, shipped=False)
    if to_flags(run.config) != to_flags(config):
        raise ValueError(
            f"{folder} holds a run that was made with other flags "
            f"({' '.join(to_flags(run.config))}); name another --out or delete it."
        )
    if config.start is not None and run.started != Run(config.start).fingerprint:
        raise ValueError(
            f"{folder} does not say that it began with the weights that {config.start} has now; "
            "delete it to begin anew."
        )


def _train_here(config: TrainConfig) -> None:
    """Train in this process.

    Raises:
        ValueError: if the configuration asks for several processes, which Lightning would start
            with the command line of this one.
    """
    from inference.training import train  # takes seconds to import

    if config.num_nodes > 1 or _several(config):
        raise ValueError(
            f"Here a run is trained in one process: take --devices 1, not {config.devices}, and "
            "--num_nodes 1, or train it by `pyro-rnp train`."
        )
    train(config)


def _several(config: TrainConfig) -> bool:
    """Whether a run's devices are more than one, each of which has a process."""
    devices = config.devices.strip()
    if devices in ("auto", "-1"):
        return config.accelerator != "cpu" and torch.cuda.device_count() > 1
    if devices.isdigit():
        return int(devices) > 1
    return len(re.findall(r"\d+", devices)) > 1  # a list of devices
