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

from pyro_rnp.config import OBJECTS, RNPConfig
from pyro_rnp.files import write
from pyro_rnp.model import RNP
from pyro_rnp.params import plain
from pyro_rnp.registry import object_type

CONFIG, WEIGHTS, PREVIOUS_WEIGHTS = "config.json", "model.safetensors", "previous.safetensors"
"""Names of the files in a folder."""
MASKED = "masked.safetensors"
"""The file, beside the weights, of a guide that was trained on masks afterwards."""
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
    tensors = {plain(name): _alone(t) for name, t in state.items()}
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


def _alone(tensor: Tensor) -> Tensor:
    """A copy where several names share one tensor, which the file could not hold otherwise."""
    return tensor.detach().to("cpu", copy=True).contiguous()


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


def save_masked_guide(rnp: RNP, folder: str | Path) -> Path:
    """Write the guide that has seen masks beside the weights of the model that it was trained for.

    >>> from tempfile import TemporaryDirectory
    >>> config = RNPConfig(image_size=8, patch_size=4, steps=(2,), program_size=2)
    >>> with TemporaryDirectory() as folder:
    ...     save(RNP(config), folder)
    ...     rnp = RNP(replace(config, masked_guide="diagonal"))
    ...     _ = load_weights(rnp, f"{folder}/model.safetensors", partial=True)
    ...     path = save_masked_guide(rnp, folder)
    ...     load(folder, masked_guide=True).config == rnp.config
    True

    Args:
        rnp: a model with a `masked_guide`.
        folder: a folder with the weights of the same model.

    Returns:
        The file, `folder / "masked.safetensors"`.

    Raises:
        ValueError: if the model has no such guide, or the folder holds other weights.
        FileNotFoundError: if the folder holds no weights.
    """
    state = {plain(name): _alone(t) for name, t in rnp.state_dict().items()}
    masked = {n: t for n, t in state.items() if n.startswith("guide.masked.")}
    if not masked:
        raise ValueError("This model has no guide that has seen masks to save.")
    path, base = Path(folder) / MASKED, _read(Path(folder) / WEIGHTS)
    if base.keys() != state.keys() - masked.keys() or any(
        not torch.equal(t, state[name]) for name, t in base.items()
    ):
        raise ValueError(f"{folder} holds the weights of another model than this guide's.")
    notes = {"sha256": _digest(masked), "of": _digest(base)}
    notes["masked_guide"] = str(rnp.config.masked_guide)
    write(path, safetensors.save(masked, notes))
    return path


def _read_masked_guide(folder: Path, base: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The name and the tensors of a guide that `save_masked_guide` wrote for some weights."""
    path = folder / MASKED
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no guide that has seen masks; train one with --mask_training."
        )
    tensors = _read(path)
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    if notes["of"] != _digest(base):
        raise ValueError(f"{path} was trained for other weights than those of {folder / WEIGHTS}.")
    return notes["masked_guide"], tensors


def load(run: str | Path, guide: Any = None, *, masked_guide: bool = False, **pieces: Any) -> RNP:
    """Load the model of a run folder, or a pretrained model by name.

    Nothing is unpickled. Torch's random state stays as it was.

    >>> load("mnist").config.program_size
    16

    Args:
        run: a run folder, or a name out of `shipped()`.
        guide: a guide to use in place of the run's, which must have the same parameters, such as
            `refined:steps=50` in place of `diagonal`; by default the run's own. A guide that was
            given to `RNP` as an object has to be given again.
        masked_guide: whether to take the guide that has seen masks too, where it was trained
            afterwards and lies beside the weights (`save_masked_guide`), as that of `mnist` does.
            It is the proposal of queries on images with hidden pixels; all else is as without. By
            default false; one that is part of the model is there in any case.
        pieces: the same for `prior`, `lower_guide`, `likelihood`, `placement` and `composition`.
            An object takes over the weights of the run.

    Returns:
        The model in evaluation mode, on the CPU, in float64 if any saved weight is float64, else in
        float32, the least precision in which a model runs by itself.

    Raises:
        FileNotFoundError: if the folder or one of its files does not exist.
        ValueError: if a file is damaged, the weights are of another architecture, or a piece that
            was given as an object is missing or of another class.
        TypeError: if there is no piece of such a name.
    """
    folder, pieces = find(run), {"guide": guide, **pieces}
    if unknown := sorted(pieces.keys() - set(OBJECTS)):
        raise TypeError(f"load has no argument {unknown[0]!r}; pieces are {', '.join(OBJECTS)}.")
    config = load_config(folder)[0]
    for field, piece in pieces.items():
        _check_class(field, getattr(config, field), piece)
    tensors = _read(folder / WEIGHTS)
    if masked_guide and config.masked_guide is None:
        text, masked = _read_masked_guide(folder, tensors)
        config, tensors = replace(config, masked_guide=text), {**tensors, **masked}
    with torch.device("cpu"), torch.random.fork_rng([]):  # which initial weights are drawn with
        rnp = RNP(config, **pieces).to("cpu")
    precisions = [t.dtype for t in tensors.values() if t.is_floating_point()]
    _fill(rnp.to(reduce(torch.promote_types, precisions, torch.float32)), tensors, folder / WEIGHTS)
    return rnp.eval()


def _check_class(field: str, text: str, piece: Any) -> None:
    """Raise if a piece was given as an object of another class than the object that is given now.

    Names alone count, so that a class may move to another module.
    """
    given, wanted = type(piece), object_type(text)
    if piece is None or isinstance(piece, str) or wanted is None:
        return
    if given.__name__ != wanted.rpartition(".")[2]:
        found = f"{given.__module__}.{given.__qualname__}"
        raise ValueError(f"This model's {field} is an object of {wanted}, got one of {found}.")


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


def load_weights(rnp: RNP, path: str | Path, partial: bool = False) -> tuple[list[str], list[str]]:
    """Load the weights of a safetensors file into a model, which keeps its own precision.

    Args:
        rnp: the model, changed in place.
        path: the file.
        partial: whether to load only the tensors that have the same name and shape in both, as
            where one piece is exchanged; by default false, which wants all.

    Returns:
        The names of the model's tensors that keep their values, and of the file's that are not
        used; both empty unless `partial`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged, its tensors are not those of the model, or, where
            `partial`, none is.
    """
    return _fill(rnp, _read(Path(path)), path, partial)


def _fill(
    rnp: RNP, tensors: dict[str, Tensor], path: str | Path, partial: bool = False
) -> tuple[list[str], list[str]]:
    state = rnp.state_dict()
    own = {plain(name): tuple(t.shape) for name, t in state.items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    both = {name for name in own.keys() & found.keys() if own[name] == found[name]}
    apart = sorted((own.keys() | found.keys()) - both)
    if apart and not (partial and both):
        name = apart[0]
        raise ValueError(
            f"{path} is of another architecture: at {name} it holds {found.get(name, 'nothing')} "
            f"and the configuration wants {own.get(name, 'nothing')}."
        )
    rnp.load_state_dict(
        {name: tensors[plain(name)] for name in state if plain(name) in both}, strict=not apart
    )
    return [name for name in apart if name in own], [name for name in apart if name in found]


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
