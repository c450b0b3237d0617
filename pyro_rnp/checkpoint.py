"""Models on disk: `config.json` and `model.safetensors` in one folder; nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyro_rnp.config import RNPConfig
from pyro_rnp.model import RNP

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save(rnp: RNP, folder: str | Path) -> None:
    """Write the configuration and the weights into `folder`, each whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rnp.config.to_dict(), indent=2) + "\n"
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
    for path in (folder, folder / CONFIG, folder / WEIGHTS):
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist; a run folder holds {CONFIG} and {WEIGHTS}."
            )
    try:
        rnp = RNP(RNPConfig.from_dict(json.loads((folder / CONFIG).read_text())))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} is not a configuration: {error}") from error
    load_weights(rnp, folder / WEIGHTS)
    return rnp.eval()


def load_weights(rnp: RNP, path: Path) -> None:
    """Put the weights of a safetensors file into `rnp`.

    Raises:
        ValueError: if the file is damaged, or its tensors are not those of the model.
    """
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    own = {name: tuple(t.shape) for name, t in rnp.state_dict().items()}
    for name in sorted(own.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        if found != own.get(name):
            raise ValueError(
                f"{path} is of another architecture: at {name} it holds {found} and the "
                f"configuration wants {own.get(name, 'nothing')}."
            )
    rnp.load_state_dict(tensors)
