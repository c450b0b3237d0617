"""The models that a visitor may choose."""

from __future__ import annotations

from pathlib import Path

from pyro_rnp import RNP, load
from pyro_rnp.checkpoint import CONFIG, MASKED, WEIGHTS, find, load_config, shipped

MOST = 200
"""Run folders that are listed."""


def models(root: str | Path | None = None) -> list[str]:
    """List the pretrained models, then the run folders below a folder, the newest first.

    Args:
        root: a folder whose folders, and theirs, are looked through; by default `runs`.

    Returns:
        Names that `open_model` takes.
    """
    runs = Path("runs" if root is None else root)
    found = [file.parent for deep in ("", "*/", "*/*/") for file in runs.glob(f"{deep}{CONFIG}")]
    whole = [run for run in found if (run / WEIGHTS).is_file()]
    whole.sort(key=lambda run: (run / WEIGHTS).stat().st_mtime, reverse=True)
    return [*shipped(), *map(str, whole[:MOST])]


def open_model(name: str | Path) -> RNP:
    """Load a model, with the guide that has seen masks where it has one.

    Args:
        name: of a pretrained model, or a run folder.

    Raises:
        FileNotFoundError, ValueError: as `pyro_rnp.load`.
    """
    return load(name, masked_guide=has_masked_guide(name))


def has_masked_guide(name: str | Path) -> bool:
    """Whether a guide that has seen masks lies beside a model's weights and is not part of them.

    Args:
        name: as `open_model` takes it.
    """
    folder = find(name)
    return (folder / MASKED).is_file() and load_config(folder)[0].masked_guide is None
