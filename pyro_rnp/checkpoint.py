"""Models on disk: `config.json` and `model.safetensors` in one folder; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor

from pyro_rnp.config import RNPConfig
from pyro_rnp.files import write
from pyro_rnp.model import RNP
from pyro_rnp.params import plain

CONFIG, WEIGHTS, PREVIOUS_WEIGHTS = "config.json", "model.safetensors", "previous.safetensors"
"""Names of the files in a folder."""
SHIPPED = Path(__file__).with_name("weights")
"""The folder of pretrained models, one folder each."""


def save(rnp: RNP, folder: str | Path, notes: dict[str, Any] | None = None) -> None:
    """Write a model's `config.json` and `model.safetensors`, each file whole or not at all.

    Weights that are there already stay as `previous.safetensors`. Modules behind `torch.compile`
    are saved under the names that they have without it.

    >>> from tempfile import TemporaryDirectory
    >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2,)))
    >>> with TemporaryDirectory() as folder:
    ...     save(rnp, folder)
    ...     load(folder).config == rnp.config
    True

    Args:
        rnp: the model, on any device and in any precision, which is kept.
        folder: where to write; it is made if it is not there.
        notes: more entries of `config.json` beside `model`, in JSON types; by default none.

    Raises:
        OSError: if there is no space or no right to write; older files are then untouched.
    """
    rnp.take_over()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = rnp.state_dict()
    tensors = {plain(name): t.detach().cpu().contiguous() for name, t in state.items()}
    data = safetensors.save(tensors, {"sha256": _digest(tensors)})
    there = folder / WEIGHTS
    if not there.exists() or there.read_bytes() != data:
        write(there, data, keep=folder / PREVIOUS_WEIGHTS if _whole(there) else None)
    save_config(rnp.config, folder, notes)


def save_config(config: RNPConfig, folder: str | Path, notes: dict[str, Any] | None = None) -> None:
    """Write `config.json` into a folder, whole or not at all.

    Args:
        config: the model's configuration, under the key `model`.
        folder: an existing folder.
        notes: more entries, in JSON types; by default none.

    Raises:
        OSError: if there is no space or no right to write; an older file is then untouched.
    """
    text = json.dumps({"model": config.to_dict(), **(notes or {})}, indent=2) + "\n"
    write(Path(folder) / CONFIG, text.encode())


def _whole(path: Path) -> bool:
    try:
        return bool(_read(path))
    except (FileNotFoundError, ValueError):
        return False


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def shipped() -> list[str]:
    """The names of the pretrained models, in alphabetical order."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}"))


def find(run: str | Path) -> Path:
    """The folder of a run or of a pretrained model.

    Args:
        run: a run folder, or the name of a pretrained model; the folder wins where both exist.
    """
    here = Path(run)
    return SHIPPED / here if not (here / CONFIG).exists() and str(run) in shipped() else here


def load(run: str | Path, guide: str | None = None) -> RNP:
    """Load the model of a run folder, or a pretrained model by name.

    Nothing is unpickled. Torch's random state stays as it was.

    >>> load("mnist").config.program_size
    16

    Args:
        run: a run folder, or a name out of `shipped()`.
        guide: a guide to use in place of the run's, which must have the same parameters, such as
            `refined:steps=50` in place of `diagonal`; by default the run's own.

    Returns:
        The model in evaluation mode, on the CPU, in float64 if any saved weight is float64, else in
        float32, the least precision in which a model runs by itself.

    Raises:
        FileNotFoundError: if the folder or one of its two files does not exist.
        ValueError: if a file is damaged, or the weights are of another architecture.
    """
    folder = find(run)
    config = load_config(folder)[0]
    with torch.device("cpu"), torch.random.fork_rng([]):  # which initial weights are drawn with
        rnp = RNP(config if guide is None else replace(config, guide=guide))
    tensors = _read(folder / WEIGHTS)
    precisions = [t.dtype for t in tensors.values() if t.is_floating_point()]
    _fill(rnp.to(reduce(torch.promote_types, precisions, torch.float32)), tensors, folder / WEIGHTS)
    return rnp.eval()


def load_config(folder: str | Path) -> tuple[RNPConfig, dict[str, Any]]:
    """Read the configuration in a run folder, and the notes that were saved with it.

    Args:
        folder: a folder with a `config.json`.

    Returns:
        The model's configuration, and all other entries of the file.

    Raises:
        FileNotFoundError: if the folder holds no `config.json`.
        ValueError: if the file is not a model's configuration.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        by_name = f" Pretrained models: {', '.join(shipped())}." if shipped() else ""
        raise FileNotFoundError(
            f"{path} does not exist; a run folder holds {CONFIG} and {WEIGHTS}.{by_name}"
        )
    try:
        notes = json.loads(path.read_text())
        if not isinstance(notes.get("training", {}), dict):
            raise ValueError("training is no set of fields")
        return RNPConfig.from_dict(notes.pop("model")), notes
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = str(error).rstrip(".")
        own = ""
        if "There is no" in text:
            own = ". A piece of one's own is there once PYRO_RNP_PIECES names the file that adds it"
        raise ValueError(f"{path} is not the configuration of a model: {text}{own}.") from error


def load_weights(rnp: RNP, path: str | Path) -> None:
    """Load the weights of a safetensors file into a model, which keeps its own precision.

    Args:
        rnp: the model, changed in place.
        path: the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged, or its tensors are not those of the model.
    """
    _fill(rnp, _read(Path(path)), path)


def _fill(rnp: RNP, tensors: dict[str, Tensor], path: str | Path) -> None:
    state = rnp.state_dict()
    own = {plain(name): tuple(t.shape) for name, t in state.items()}
    for name in sorted(own.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        wanted = own.get(name, "nothing")
        if found != wanted:
            raise ValueError(
                f"{path} is of another architecture: at {name} it holds {found} and the "
                f"configuration wants {wanted}."
            )
    rnp.load_state_dict({name: tensors[plain(name)] for name in state})


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, held against its checksum if it has one."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; the run was not saved whole.")
    try:
        tensors = safetensors.load_file(path)
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get("sha256")
        problem = None
        if expected not in (None, _digest(tensors)):
            problem = "its checksum is not that of what was written"
    except SafetensorError as error:
        problem = str(error)
    if problem is None:
        return tensors
    older = path.with_name(PREVIOUS_WEIGHTS)
    hint = "."
    if older != path and _whole(older):
        hint = f"; the older {older} works: copy it to {path.name} to go back to it."
    raise ValueError(f"{path} is damaged: {problem}{hint}")
