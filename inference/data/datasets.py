"""Data sets by name, in fixed splits, all of 28x28 pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from inference.data.base import ImageSet, Splits, shuffled
from inference.data.download import download
from inference.data.omniglot import omniglot, omniglot_all, omniglot_new
from inference.data.synthetic import strokes
from pyro_rnp.registry import Registry

DATASETS: Registry[Splits] = Registry("data set")
"""Data sets by name. A loader takes the folder of data sets, and options by keyword, and gives the
splits; `@DATASETS.add("mine")` adds one's own."""
MEMORY = "memory"
"""The name of images that were given as they are, which nothing can load again."""


def load_data(
    name: str,
    root: str | Path | None = None,
    binarize: bool = False,
    classes: Sequence[int] | None = None,
) -> Splits:
    """Load a data set by name.

    The splits and their order are the same at every call. Test images are shuffled, so that the
    first are a random sample of all (in MNIST's own files the first are easier).

    Their numbers of train / validation / test images:

    - `digits`, 1,257 / 180 / 360: scikit-learn's 8x8 handwritten digits, scaled to 28x28
    - `mnist`, `fashion`, 55,000 / 5,000 / 10,000: MNIST and Fashion-MNIST of torchvision
    - `omniglot`, 17,352 / 1,928 / 13,180: of torchvision or npz files; the characters of the test
      split are in neither other split
    - `omniglot-new`, 9,885 / 659 / 2,636: the characters of omniglot's test split, by drawing
    - `omniglot-all`, 27,237 / 2,587 / 2,636: both to learn from; the test split of omniglot-new
    - `strokes`, 8,000 / 1,000 / 1,000: synthetic characters, with the true part of each pixel

    Args:
        name: one of the names above, or one that `@DATASETS.add` added, with its options as
            `name:option=value`.
        root: folder laid out as torchvision does it (`MNIST/raw/...`); a data set that is not
            there is downloaded into it. None is `./data`, made if need be. A folder `omniglot-npz`
            in it is read instead of torchvision's Omniglot. "digits" and "strokes" need none.
        binarize: make each pixel 0 or 1, 1 with its intensity as probability, in the same way at
            every call.
        classes: labels of the classes to keep in every split; None keeps all.

    Example:
        >>> splits = load_data("digits")
        >>> splits.train.images.shape
        torch.Size([1257, 1, 28, 28])

    Raises:
        ValueError: if there is no data set of that name, or its files are damaged, or a class has
            no image in a split.
        FileNotFoundError: if `root` does not exist, or data are not there and cannot be downloaded.
    """
    if name == MEMORY:
        raise ValueError("These images were given in memory and by no name; give them again.")
    DATASETS.parse(name)
    if root is not None and not Path(root).is_dir():
        raise FileNotFoundError(f"The data folder {root} does not exist; make it or name another.")
    splits = DATASETS.make(name, Path("data" if root is None else root))
    if binarize:
        generator = torch.Generator().manual_seed(0)
        three = (splits.train, splits.validation, splits.test)
        splits = Splits(*(_binary(split, generator) for split in three))
    return splits if classes is None else splits.of(classes)


def _binary(data: ImageSet, generator: torch.Generator) -> ImageSet:
    """Make pixels 0 or 1; what is missing stays so."""
    images = replace(data, masks=None).images
    ink = torch.bernoulli(images.nan_to_num(), generator=generator)
    if data.pixels.dtype == torch.uint8:
        return replace(data, pixels=ink.to(torch.uint8) * 255)
    return replace(data, pixels=ink.where(images.isfinite(), torch.nan))


@DATASETS.add("digits")
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

            made = download(getattr(torchvision.datasets, name), root, train=train)
            if len(made.data) != len(made.targets):
                raise ValueError(
                    f"{root / name} is damaged: {len(made.data)} images and "
                    f"{len(made.targets)} labels; delete it and it is downloaded again."
                )
            return ImageSet(made.data.unsqueeze(1), made.targets.long())

        train = split(True)
        return Splits(train[:55_000], train[55_000:], shuffled(split(False)))

    return load


for _name, _loader in (
    ("mnist", _torchvision("MNIST")),
    ("fashion", _torchvision("FashionMNIST")),
    ("omniglot", omniglot),
    ("omniglot-new", omniglot_new),
    ("omniglot-all", omniglot_all),
):
    DATASETS.add(_name)(_loader)


@DATASETS.add("strokes")
def _strokes(root: Path) -> Splits:
    images, labels, segments = strokes(10_000, seed=0)
    everything = ImageSet(images, labels, segments)
    return Splits(everything[:8000], everything[8000:9000], everything[9000:])
