"""Image sets with fixed train, validation and test splits, all 28x28 floats in [0, 1]."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from inference.strokes import strokes
from pyro_rnp.checkpoint import find, load_config

SIZE = 28
DataName = Literal[
    "digits", "mnist", "fashion", "omniglot", "omniglot-new", "omniglot-all", "strokes"
]


@dataclass(frozen=True)
class ImageSet:
    """N images of one split."""

    images: Float[Tensor, "n c h w"]
    """Ink or intensity in [0, 1]."""
    labels: Int[Tensor, "n"]
    """Class: digit, garment, or character (numbered across alphabets)."""
    segments: Int[Tensor, "n levels h w"] | None = None
    """Made images only: the true part (level 0) and sub-part (level 1) of each pixel, -1 where
    there is no ink. Sub-parts are numbered through all parts."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> ImageSet:
        """The images at a slice or an index tensor."""
        segments = None if self.segments is None else self.segments[index]
        return ImageSet(self.images[index], self.labels[index], segments)

    def __add__(self, other: ImageSet) -> ImageSet:
        """These images, then others; their true segments are not kept."""
        return ImageSet(
            torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels])
        )


@dataclass(frozen=True)
class Splits:
    """A data set: `train` to learn from, `validation` to choose by, `test` to report."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet

    def of(self, classes: Sequence[int]) -> Splits:
        """The images of some classes.

        Raises:
            ValueError: if one of them has no image in a split.
        """
        wanted, chosen = torch.tensor(classes), []
        for split in (self.train, self.validation, self.test):
            there = torch.isin(wanted, split.labels)
            if not there.all():
                raise ValueError(
                    f"Class {int(wanted[~there][0])} is not in every split; classes go from "
                    f"{int(split.labels.min())} to {int(split.labels.max())}."
                )
            chosen.append(split[torch.isin(split.labels, wanted).nonzero()[:, 0]])
        return Splits(*chosen)


def load_data(
    name: str,
    root: str | Path | None = None,
    binarize: bool = False,
    classes: Sequence[int] | None = None,
) -> Splits:
    """A data set by name; the splits are the same at every call, and so is their order, in which
    the first test images are a fair choice of all (in MNIST's own files they are easier).

    | name | train / validation / test | source |
    |---|---|---|
    | digits | 1,257 / 180 / 360 | scikit-learn's 8x8 handwritten digits, brought to 28x28 |
    | mnist, fashion | 55,000 / 5,000 / 10,000 | torchvision |
    | omniglot | 17,352 / 1,928 / 13,180 | torchvision or npz; test: characters never trained on |
    | omniglot-new | 9,885 / 659 / 2,636 | the characters of omniglot's test split, by drawing |
    | omniglot-all | 27,237 / 2,587 / 2,636 | both to learn from; test: that of omniglot-new |
    | strokes | 8,000 / 1,000 / 1,000 | made here, with the true part of each pixel |

    Args:
        root: folder laid out as torchvision does it (`MNIST/raw/...`); what is not there is
            downloaded into it. None is `data`, made if need be. An `omniglot-npz` folder in it
            is read instead of torchvision's Omniglot. "digits" and "strokes" need none.
        binarize: make each pixel 0 or 1, 1 with its intensity as probability; the same at every
            call.
        classes: keep these alone, in every split; None keeps all.

    Raises:
        ValueError: if there is no data set of that name, or its files are damaged, or a class has
            no image in a split.
        FileNotFoundError: if `root` does not exist, or data are neither there nor to be had.
    """
    if name not in DATASETS:
        raise ValueError(f"There is no data set {name!r}; choose from {', '.join(DATASETS)}.")
    if root is not None and not Path(root).is_dir():
        raise FileNotFoundError(f"The data folder {root} does not exist; make it or name another.")
    splits = DATASETS[name](Path("data" if root is None else root))
    if binarize:
        generator = torch.Generator().manual_seed(0)
        splits = Splits(
            *(
                replace(s, images=torch.bernoulli(s.images, generator=generator))
                for s in (splits.train, splits.validation, splits.test)
            )
        )
    return splits if classes is None else splits.of(classes)


def data_of(run: str | Path, name: str | None = None, root: str | None = None) -> Splits:
    """The data set that a run's model was trained on, binarized if it was there.

    It has all classes, whether the model was trained on them or not.

    Args:
        name: another data set instead.
        root: where it is now, if not where it was.

    Raises:
        FileNotFoundError, ValueError: as `pyro_rnp.checkpoint.load_config`, `data_name` and
            `load_data`.
    """
    notes = load_config(find(run))[1].get("training", {})
    return load_data(
        name or data_name(run), root or notes.get("data_root"), notes.get("binarize", False)
    )


def data_name(run: str | Path) -> str:
    """The name of the data set that a run's model was trained on.

    Raises:
        FileNotFoundError, ValueError: as `pyro_rnp.checkpoint.load_config`; ValueError also if
            the folder does not say.
    """
    name = load_config(find(run))[1].get("training", {}).get("data")
    if name is None:
        raise ValueError(f"{run} does not say what its model was trained on; give --data.")
    return name


def _digits(root: Path) -> Splits:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    large = F.interpolate(small, size=24, mode="bicubic", align_corners=False).clamp(0, 1)
    images = F.pad(large, [2, 2, 2, 2])  # a margin, as MNIST has
    everything = ImageSet(images, torch.from_numpy(bunch.target).long())
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return Splits(everything[order[540:]], everything[order[:180]], everything[order[180:540]])


def _torchvision(name: str) -> Callable[[Path], Splits]:
    def load(root: Path) -> Splits:
        def split(train: bool) -> ImageSet:
            import torchvision.datasets

            made = _download(getattr(torchvision.datasets, name), root, train=train)
            if len(made.data) != len(made.targets):
                raise ValueError(
                    f"{root / name} is damaged: {len(made.data)} images and "
                    f"{len(made.targets)} labels; delete it and it is downloaded again."
                )
            return ImageSet(made.data.unsqueeze(1).float() / 255, made.targets.long())

        train = split(True)
        return Splits(train[:55_000], train[55_000:], _shuffled(split(False)))

    return load


def _shuffled(data: ImageSet) -> ImageSet:
    """In an order of chance, the same at every call, so that the first are a fair choice."""
    return data[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))]


def _old_and_new(root: Path) -> tuple[ImageSet, ImageSet]:
    """Omniglot's background and evaluation set, 20 drawings of a character after each other."""
    source = _omniglot_npz if (root / "omniglot-npz").is_dir() else _omniglot_torchvision
    background, evaluation = source(root, True), source(root, False)
    labels = evaluation.labels + 1 + background.labels.max()
    return background, replace(evaluation, labels=labels)


def _by_drawing(characters: ImageSet, first: int = 0) -> ImageSet:
    """One drawing of all characters, from a first one on, then the next of all."""
    return characters[torch.arange(len(characters)).view(-1, 20)[:, first:].mT.flatten()]


def _omniglot(root: Path) -> Splits:
    old, new = _old_and_new(root)
    learned = torch.arange(len(old)).view(-1, 20)[:, :18].flatten()
    return Splits(old[learned], _by_drawing(old, 18), _shuffled(new))


def _omniglot_new(root: Path) -> Splits:
    new = _by_drawing(_old_and_new(root)[1])
    first, last = 15 * len(new) // 20, 16 * len(new) // 20
    return Splits(new[:first], new[first:last], _shuffled(new[last:]))


def _omniglot_all(root: Path) -> Splits:
    old, new = _omniglot(root), _omniglot_new(root)
    return Splits(old.train + new.train, old.validation + new.validation, new.test)


def _omniglot_npz(root: Path, background: bool) -> ImageSet:
    path = root / "omniglot-npz" / f"omniglot_{'background' if background else 'evaluation'}.npz"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            ink = torch.from_numpy(~arrays["images"]).flatten(0, 1).unsqueeze(1)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; Omniglot needs both npz files.") from None
    except Exception as error:  # a zip cut short fails in many ways
        raise ValueError(f"{path} is damaged: {error}.") from error
    return ImageSet(shrink(ink), torch.arange(len(ink)) // 20)


def _omniglot_torchvision(root: Path, background: bool) -> ImageSet:
    import torchvision.datasets

    made = _download(torchvision.datasets.Omniglot, root, background=background)
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


def _download(source: Callable[..., Any], root: Path, **which: Any) -> Any:
    """A torchvision data set, downloaded unless it is there."""
    try:
        return source(root=str(root), download=False, **which)
    except (RuntimeError, ValueError, AssertionError, EOFError) as error:
        if "not found" not in str(error):
            raise ValueError(
                f"{source.__name__} in {root} is damaged ({error}); delete it and it is "
                "downloaded again."
            ) from error
    own = root / ("omniglot-py" if source.__name__ == "Omniglot" else source.__name__)
    new = [folder for folder in (own / "raw", own, root) if not folder.exists()]
    try:
        return source(root=str(root), download=True, **which)
    except (RuntimeError, OSError, HTTPException) as error:
        for folder in new:
            with suppress(OSError):  # it holds something, or was not made
                folder.rmdir()
        raise FileNotFoundError(
            f"{source.__name__} is not in {root}; name the folder that holds it with --data-root, "
            f"since it cannot be downloaded: {_cause(error)}."
        ) from error


def _cause(error: Exception) -> str:
    """Why a download failed: torchvision gives a line to each mirror, and one to its error."""
    lines = [line.strip() for line in str(error).splitlines()]
    causes = [re.sub(r"^<urlopen error (.*)>$", r"\1", line) for line in lines]
    said = dict.fromkeys(cause.rstrip(".") for cause in causes if cause and cause[-1] != ":")
    return "; ".join(said) or type(error).__name__


def _strokes(root: Path) -> Splits:
    images, labels, segments = strokes(10_000, seed=0)
    everything = ImageSet(images, labels, segments)
    return Splits(everything[:8000], everything[8000:9000], everything[9000:])


DATASETS: dict[str, Callable[[Path], Splits]] = {
    "digits": _digits,
    "mnist": _torchvision("MNIST"),
    "fashion": _torchvision("FashionMNIST"),
    "omniglot": _omniglot,
    "omniglot-new": _omniglot_new,
    "omniglot-all": _omniglot_all,
    "strokes": _strokes,
}
