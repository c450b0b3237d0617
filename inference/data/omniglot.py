"""Omniglot: handwritten characters of fifty alphabets, twenty drawings of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from inference.data.base import ImageSet, Splits, shuffled
from inference.data.download import download

SIZE = 28
HELD_OUT = (
    "Balinese", "Early_Aramaic", "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Mkhedruli_(Georgian)", "Tifinagh",
)  # fmt: skip
"""Every sixth alphabet of the background set, to choose recipes on."""


def omniglot(root: Path) -> Splits:
    """Learn from the background set, test on the characters of the evaluation set."""
    old, new = _old_and_new(root)
    learned = torch.arange(len(old)).view(-1, 20)[:, :18].flatten()
    return Splits(old[learned], _by_drawing(old, 18), shuffled(new))


def omniglot_alphabets(root: Path) -> Splits:
    """Learn from 25 alphabets of the background set, validate on the five others, `HELD_OUT`.

    New characters are then what recipes are chosen by, and none of them is of the test split.
    """
    old, new = _old_and_new(root)
    alphabets = _alphabets(root)
    if missing := set(HELD_OUT) - set(alphabets):
        raise ValueError(f"Omniglot in {root} has no alphabet {min(missing)}; read it whole.")
    held = torch.tensor([name in HELD_OUT for name in alphabets]).repeat_interleave(20)
    return Splits(old[~held], _by_drawing(old[held]), shuffled(new))


def omniglot_new(root: Path) -> Splits:
    """Learn from 15 drawings of each character of the evaluation set, test on 4 others."""
    new = _by_drawing(_old_and_new(root)[1])
    first, last = 15 * len(new) // 20, 16 * len(new) // 20
    return Splits(new[:first], new[first:last], shuffled(new[last:]))


def omniglot_all(root: Path) -> Splits:
    """Learn from the characters of both sets, test as `omniglot_new`."""
    old, new = omniglot(root), omniglot_new(root)
    return Splits(old.train + new.train, old.validation + new.validation, new.test)


def _old_and_new(root: Path) -> tuple[ImageSet, ImageSet]:
    """Read the background and the evaluation set, in which 20 drawings each are one character."""
    source = _from_npz if _has_npz(root) else _from_torchvision
    background, evaluation = source(root, True), source(root, False)
    labels = evaluation.labels + 1 + background.labels.max()
    return background, replace(evaluation, labels=labels)


def _by_drawing(characters: ImageSet, first: int = 0) -> ImageSet:
    """Sort images by drawing: one of each character, from drawing `first` on, then the next."""
    return characters[torch.arange(len(characters)).view(-1, 20)[:, first:].mT.flatten()]


def _alphabets(root: Path) -> list[str]:
    """The alphabet of each character of the background set, in the order of its images."""
    if _has_npz(root):
        return [str(name) for name in _arrays(root, True, "alphabet")]
    return [file.parts[-3] for file in _files(root, True)[::20]]


def _has_npz(root: Path) -> bool:
    return (root / "omniglot-npz").is_dir()


def _arrays(root: Path, background: bool, name: str) -> np.ndarray:
    path = root / "omniglot-npz" / f"omniglot_{'background' if background else 'evaluation'}.npz"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            found: np.ndarray = arrays[name]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; Omniglot needs both npz files.") from None
    except Exception as error:  # a zip cut short fails in many ways
        raise ValueError(f"{path} is damaged: {error}.") from error
    return found


def _from_npz(root: Path, background: bool) -> ImageSet:
    ink = torch.from_numpy(~_arrays(root, background, "images")).flatten(0, 1).unsqueeze(1)
    return ImageSet(shrink(ink), torch.arange(len(ink)) // 20)


def _files(root: Path, background: bool) -> list[Path]:
    import torchvision.datasets

    download(torchvision.datasets.Omniglot, root, background=background)
    name = f"images_{'background' if background else 'evaluation'}"
    folder = root / torchvision.datasets.Omniglot.folder / name
    # torchvision lists files in the file system's order; ours is by alphabet, character, drawing.
    files = sorted(folder.glob("*/*/*.png"), key=lambda file: file.parts)
    if not files:
        raise ValueError(f"{folder} is damaged: it holds no drawings; delete it to download again.")
    return files


def _from_torchvision(root: Path, background: bool) -> ImageSet:
    drawings = []
    for file in _files(root, background):
        with Image.open(file) as image:
            drawings.append(np.asarray(image.convert("L")) == 0)
    ink = torch.from_numpy(np.stack(drawings)).unsqueeze(1)
    return ImageSet(shrink(ink), torch.arange(len(ink)) // 20)


def shrink(ink: Tensor) -> Tensor:
    """Scale drawings to 28x28 pixels, each of which is the mean of its area.

    Args:
        ink: (N, C, H, W) of any size, True where there is ink.

    Returns:
        (N, C, 28, 28) in [0, 1].
    """
    chunks = [F.interpolate(c.float(), size=SIZE, mode="area") for c in ink.split(2000)]
    return torch.cat(chunks).clamp(0, 1)
