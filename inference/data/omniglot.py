"""Omniglot: handwritten characters of fifty alphabets, twenty drawings of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inference.data.base import ImageSet, Splits, shuffled
from inference.data.download import download

SIZE = 28


def omniglot(root: Path) -> Splits:
    old, new = _old_and_new(root)
    learned = torch.arange(len(old)).view(-1, 20)[:, :18].flatten()
    return Splits(old[learned], _by_drawing(old, 18), shuffled(new))


def omniglot_new(root: Path) -> Splits:
    new = _by_drawing(_old_and_new(root)[1])
    first, last = 15 * len(new) // 20, 16 * len(new) // 20
    return Splits(new[:first], new[first:last], shuffled(new[last:]))


def omniglot_all(root: Path) -> Splits:
    old, new = omniglot(root), omniglot_new(root)
    return Splits(old.train + new.train, old.validation + new.validation, new.test)


def _old_and_new(root: Path) -> tuple[ImageSet, ImageSet]:
    """Omniglot's background and evaluation set, 20 drawings of a character after each other."""
    source = _from_npz if (root / "omniglot-npz").is_dir() else _from_torchvision
    background, evaluation = source(root, True), source(root, False)
    labels = evaluation.labels + 1 + background.labels.max()
    return background, replace(evaluation, labels=labels)


def _by_drawing(characters: ImageSet, first: int = 0) -> ImageSet:
    """One drawing of all characters, from a first one on, then the next of all."""
    return characters[torch.arange(len(characters)).view(-1, 20)[:, first:].mT.flatten()]


def _from_npz(root: Path, background: bool) -> ImageSet:
    path = root / "omniglot-npz" / f"omniglot_{'background' if background else 'evaluation'}.npz"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            ink = torch.from_numpy(~arrays["images"]).flatten(0, 1).unsqueeze(1)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; Omniglot needs both npz files.") from None
    except Exception as error:  # a zip cut short fails in many ways
        raise ValueError(f"{path} is damaged: {error}.") from error
    return ImageSet(shrink(ink), torch.arange(len(ink)) // 20)


def _from_torchvision(root: Path, background: bool) -> ImageSet:
    import torchvision.datasets

    made = download(torchvision.datasets.Omniglot, root, background=background)
    # torchvision lists folders in the file system's order; ours is by alphabet, character, drawing.
    names = [
        (*Path(made._characters[label]).parts, file) for file, label in made._flat_character_images
    ]
    order = sorted(range(len(names)), key=names.__getitem__)
    ink = torch.from_numpy(np.stack([np.asarray(made[i][0]) == 0 for i in order])).unsqueeze(1)
    return ImageSet(shrink(ink), torch.arange(len(ink)) // 20)


def shrink(ink: Tensor) -> Tensor:
    """Drawings of any size, (N, C, H, W), ink True, as floats at 28x28: the mean of each area."""
    chunks = [F.interpolate(c.float(), size=SIZE, mode="area") for c in ink.split(2000)]
    return torch.cat(chunks).clamp(0, 1)
