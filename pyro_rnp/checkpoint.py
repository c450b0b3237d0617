"""Models on disk: `config.json` and `model.safetensors` in one folder; nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyro_rnp.config import RNPConfig
from pyro_rnp.model import RNP

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save(rnp: RNP, folder: str | Path, notes: dict[str, Any] | None = None) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, each file whole or not at all.

    Args:
        notes: more to keep in `config.json` beside the key `model`, in JSON types.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"model": rnp.config.to_dict(), **(notes or {})}, indent=2) + "\n"
    (folder / f"{CONFIG}.part").write_text(text)
    tensors = {name: t.detach().cpu().contiguous() for name, t in rnp.state_dict().items()}
    save_file(tensors, folder / f"{WEIGHTS}.part")
    for name in (WEIGHTS, CONFIG):
        os.replace(folder / f"{name}.part", folder / name)


def load(folder: str | Path) -> RNP:
    """The model of a run folder, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: if the folder or one of its two files is not there.
        ValueError: if a file is damaged, or the weights are of another architecture.
    """
    folder = Path(folder)
    rnp = RNP(load_config(folder)[0])
    load_weights(rnp, folder / WEIGHTS)
    return rnp.eval()


def load_config(folder: str | Path) -> tuple[RNPConfig, dict[str, Any]]:
    """The model's configuration in a run folder, and the notes that were saved beside it.

    Raises:
        FileNotFoundError: if the folder holds no `config.json`.
        ValueError: if that is not a configuration.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; a run folder holds {CONFIG} and {WEIGHTS}."
        )
    try:
        notes = json.loads(path.read_text())
        return RNPConfig.from_dict(notes.pop("model")), notes
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not the configuration of a model: {error}.") from error


def load_weights(rnp: RNP, path: str | Path) -> None:
    """Put the weights of a safetensors file into `rnp`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged, or its tensors are not those of the model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; the run was not saved whole.")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    own = {name: tuple(t.shape) for name, t in rnp.state_dict().items()}
    for name in sorted(own.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        wanted = own.get(name, "nothing")
        if found != wanted:
            raise ValueError(
                f"{path} is of another architecture: at {name} it holds {found} and the "
                f"configuration wants {wanted}."
            )
    rnp.load_state_dict(tensors)
