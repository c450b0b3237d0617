"""The configuration and the images of a training, from what a script gives to `fit`."""

from __future__ import annotations

import difflib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.config import LEARNING, TrainConfig
from inference.data import MEMORY, Splits, load_data
from inference.data.datasets import load_images
from inference.run import Run
from pyro_rnp import RNPConfig
from pyro_rnp.config import OBJECTS
from pyro_rnp.registry import object_text


def settings(
    images: Any,
    config: RNPConfig | TrainConfig | str | None,
    validation: Any,
    test: Any,
    options: dict[str, Any],
    quiet: bool = False,
) -> tuple[TrainConfig, Splits]:
    """Complete what `fit` is given.

    Args:
        images, config, validation, test: as `fit` takes them.
        options: fields of `TrainConfig` and of `RNPConfig` by name, which go before `config`. A
            piece may be an object.
        quiet: whether to say nothing of what was noticed in the images.

    Returns:
        The configuration, and the images in three splits.

    Raises:
        TypeError: if an option is no field of either configuration.
        ValueError: as `TrainConfig`, `RNPConfig` and `load_data`.
    """
    own, models = ({f.name for f in fields(kind)} for kind in (TrainConfig, RNPConfig))
    if unknown := sorted(options.keys() - (own - {"preset", "model"}) - models):
        if unknown[0] in ("labels", "masks"):
            hint = f"fit(load_data(images, {unknown[0]}=...)) takes them"
            raise TypeError(f"fit has no option {unknown[0]}; {hint}.")
        close = difflib.get_close_matches(unknown[0], sorted((own | models) - {unknown[0]}), 1)
        raise TypeError(
            f"fit has no option {unknown[0]}; "
            + (f"the closest is {close[0]}; " if close else "")
            + "options are the fields of TrainConfig and RNPConfig."
            + " A model is given by its configuration, the second argument, and by its pieces, as "
            "prior=MyPrior()." * (unknown[0] == "model")
        )
    changes = {name: options.pop(name) for name in options.keys() & (models - own)}
    changes |= {n: object_text(p) for n, p in changes.items() if _is_object(n, p)}
    images = str(images) if isinstance(images, Path) else images
    options.setdefault("data", images if isinstance(images, str) else MEMORY)
    found = replace(_base(config, options), **options)
    splits = _splits(images, validation, test, found, quiet)
    channels, size = splits.train.pixels.shape[1:3]
    before = found.resume if found.start is None else found.start
    if isinstance(config, str) or (config is None and before is None):
        model = RNPConfig.for_images(size, channels, found.preset, **changes)
    else:
        model = replace(found.model, **changes)
    return replace(found, model=model), splits


def _is_object(field: str, piece: Any) -> bool:
    return field in OBJECTS and not isinstance(piece, str)


def _base(config: RNPConfig | TrainConfig | str | None, options: dict[str, Any]) -> TrainConfig:
    """The configuration that the options change; of a preset the training alone."""
    if isinstance(config, TrainConfig):
        return config
    if isinstance(config, RNPConfig):
        return TrainConfig(model=config)
    if config is None and options.get("resume") is not None:
        base = Run(options["resume"], shipped=False).config
        again = options.keys() & {"epochs", "minutes"}  # another duration than before
        return replace(base, epochs=None, minutes=None) if again else base
    if config is None and options.get("start") is not None:
        run = Run(options["start"])
        name = run.training.get("preset", "fast")
        return TrainConfig(preset=name, model=run.model_config, **LEARNING[name])
    preset: Any = "fast" if config is None else config
    if preset not in LEARNING:
        raise ValueError(f"There is no preset {preset!r}; choose from {', '.join(LEARNING)}.")
    return TrainConfig(preset=preset, **LEARNING[preset])


def _splits(images: Any, validation: Any, test: Any, config: TrainConfig, quiet: bool) -> Splits:
    """The images in three splits; those given apart stand in the place of the source's own.

    Images that were kept for that by hash are learned from then; a set's own split is not.
    """
    _check_kind(images)
    whole = load_data(
        images,
        config.data_root,
        config.binarize,
        size=config.size,
        channels=config.channels,
        invert=config.invert,
        progress=not quiet,
    )
    splits = whole
    channels, size = whole.train.pixels.shape[1:3]
    invert = config.invert if whole.inverted is None else whole.inverted
    for name, other in {"validation": validation, "test": test}.items():
        if other is not None:
            _check_kind(other)
            kept: dict[str, Any] = {
                name: load_images(other, config.binarize, size, channels, invert, not quiet)
            }
            if name in whole.by_hash and not isinstance(images, Splits):
                kept["train"] = splits.train + getattr(splits, name)
            splits = replace(splits, **kept)
    return splits


def _check_kind(images: Any) -> None:
    if isinstance(images, list | tuple | int | float):
        raise TypeError(f"Images must be a tensor or an array, got {type(images).__name__}.")
    if isinstance(images, torch.Tensor | np.ndarray) and images.ndim not in (3, 4):
        raise ValueError(f"Images must have shape (N, C, H, W) or (N, H, W), got {images.shape}.")
