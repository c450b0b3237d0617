"""Images by name, from files and from memory, in fixed splits."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from inference.data.arrays import array_source, file_source, items_source
from inference.data.base import ImageSet, Splits, shuffled
from inference.data.download import download
from inference.data.folder import folder_source
from inference.data.omniglot import omniglot, omniglot_all, omniglot_alphabets, omniglot_new
from inference.data.prepare import (
    Invert,
    Source,
    adapted,
    check_form,
    fingerprint_of,
    held_out,
    prepare,
    read_all,
)
from inference.data.synthetic import strokes
from inference.data.torchvision_sets import (
    PREFIX,
    check_torchvision,
    torchvision_sets,
    torchvision_source,
)
from pyro_rnp.registry import Registry

DATASETS: Registry[Splits] = Registry("data set")
"""Data sets by name. A loader takes the folder of data sets, and options by keyword, and gives the
splits; `@DATASETS.add("mine")` adds one's own."""
MEMORY = "memory"
"""The name of images that were given as they are, which nothing can load again."""


def load_data(
    source: Any,
    root: str | Path | None = None,
    binarize: bool = False,
    classes: Sequence[int] | None = None,
    *,
    size: int | None = None,
    channels: int | None = None,
    invert: Invert = "auto",
    labels: Any = None,
    masks: Any = None,
    progress: bool = True,
) -> Splits:
    """Load images, by name, from files, or from memory.

    The splits and their order are the same at every call.

    Data sets by name, with their numbers of train / validation / test images, all 28x28 and grey:

    - `digits`, 1,257 / 180 / 360: scikit-learn's 8x8 handwritten digits, scaled to 28x28
    - `mnist`, `fashion`, 55,000 / 5,000 / 10,000: MNIST and Fashion-MNIST of torchvision
    - `omniglot`, 17,352 / 1,928 / 13,180: of torchvision or npz files; the characters of the test
      split are in neither other split
    - `omniglot-alphabets`, 16,120 / 3,160 / 13,180: the same, but whole alphabets are held out for
      validation, so that recipes can be chosen by new characters
    - `omniglot-new`, 9,885 / 659 / 2,636: the characters of omniglot's test split, by drawing
    - `omniglot-all`, 27,237 / 2,587 / 2,636: both to learn from; the test split of omniglot-new
    - `strokes`, 8,000 / 1,000 / 1,000: synthetic characters, with the true part of each pixel

    Other images, of which a tenth is held out for validation and a tenth for the test by a hash of
    each image (so that equal images stay together and new ones move no others), unless they have
    such splits:

    - `torchvision:NAME` or `torchvision:NAME:option=value`: an image data set of torchvision, such
      as `torchvision:KMNIST` or `torchvision:EMNIST:split=letters`
    - a folder of image files, which may lie in a folder for each class, and these in `train`, `val`
      and `test`
    - a `.npy` file (N, H, W), (N, H, W, C) or (N, C, H, W): bytes, truth values, or floats in
      [0, 1] in which NaN is a missing pixel
    - a `.npz` file of such arrays: `images`, and if need be `labels`, `masks` and `split`; or
      `train_images`, `val_labels` and the like
    - in Python: such an array or tensor, a torch data set, an `ImageSet`, or `Splits`

    Args:
        source: any of these; a name that `@DATASETS.add` added, with its options as
            `name:option=value`, too. A folder that has such a name is written `./name`.
        root: folder laid out as torchvision does it (`MNIST/raw/...`); a data set that is not
            there is downloaded into it. None is `./data`, made if need be. A folder `omniglot-npz`
            in it is read instead of torchvision's Omniglot. Other sources need none.
        binarize: make each pixel 0 or 1, 1 with its intensity as probability, in the same way at
            every call.
        classes: labels of the classes to keep in every split; None keeps all.
        size: height and width in pixels to scale images to, antialiased, with margins where they
            are not square; at least 1. None leaves them as they are.
        channels: 1 makes images grey, 3 gives them red, green and blue; None leaves a data set of
            that name as it is, and of other images takes 1 if all are grey, else 3.
        invert: whether to swap dark and light, for dark ink on light paper: models here learn light
            ink on a dark ground. "auto" leaves named data sets, an `ImageSet` and `Splits` as they
            are, and looks at the borders of others, see `inference.data.prepare.prepare`.
        labels: of an array: the class of each image, as a number from 0 or a name.
        masks: of an array: (N, H, W), true where a pixel was seen; others are missing.
        progress: whether to show a progress bar after some seconds, and say what was swapped.

    Example:
        >>> splits = load_data("digits")
        >>> splits.train.images.shape
        torch.Size([1257, 1, 28, 28])

    Raises:
        TypeError: if `source` is none of these.
        ValueError: if there is no data set of that name, or its files are damaged, or images have
            different sizes and no `size` is given, or a class has no image in a split, or `size` or
            `channels` are none that a model can have.
        FileNotFoundError: if `root` or `source` does not exist, or data are not there and cannot be
            downloaded.
    """
    check_form(size, channels)
    found = _source(source, root, labels, masks)
    if isinstance(found, Splits):
        swap = invert is True
        mark = fingerprint_of(found) if isinstance(source, Splits) else found.fingerprint
        splits = found.map(lambda data: adapted(data, size, channels, swap))
        splits = replace(splits, fingerprint=mark)
    else:
        splits = prepare(found, size, channels, invert, progress)
    if binarize:
        splits = splits.map(_binarizer(in_place=isinstance(found, Source)))
    return splits if classes is None else splits.of(classes)


def load_images(
    source: Any,
    binarize: bool,
    size: int | None,
    channels: int | None,
    invert: Invert,
    progress: bool = True,
) -> ImageSet:
    """Load images from memory or from files, not split.

    Args:
        source, binarize, size, channels, invert, progress: as for `load_data`; of `source` all but
            names and `Splits`.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `load_data`.
    """
    if isinstance(source, ImageSet):
        images = adapted(source, size, channels, invert is True)
    else:
        found = _source(source, None)
        if isinstance(found, Splits):
            raise TypeError("Images that are not to be split come from files or from memory.")
        images = read_all(found, size, channels, invert, progress).images
    return _binarizer(not isinstance(source, ImageSet))(images) if binarize else images


def image_shape(
    source: Any,
    root: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
) -> tuple[int, int, int]:
    """The shape (C, H, W) of the images that `load_data` gives, mostly without reading all.

    Args:
        source, root, size, channels: as for `load_data`.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `load_data`.

    Example:
        >>> image_shape("digits", size=40)
        (1, 40, 40)
    """
    check_form(size, channels)
    if isinstance(source, str) and is_named(source):
        loader = DATASETS.pieces[source.partition(":")[0]]
        if loader.__module__.startswith("inference.data"):  # ours, all of one shape
            return channels or 1, size or 28, size or 28
    found = _source(source, root)
    if isinstance(found, Splits):
        c, h, w = found.train.pixels.shape[1:]
        return channels or c, size or h, size or w
    return found.shape(size, channels)


def is_named(source: str) -> bool:
    """Whether a text names a data set of the registry.

    Args:
        source: as `load_data` takes it.
    """
    return source.partition(":")[0] in DATASETS.pieces


def is_path(source: str) -> bool:
    """Whether a text is the path of a folder or a file, which need not be there.

    >>> is_path("digits"), is_path("./digits"), is_path("drawings.npz"), is_path("torchvision:SVHN")
    (False, True, True, False)

    Args:
        source: as `load_data` takes it.
    """
    if is_named(source) or source.startswith(PREFIX) or source == MEMORY:
        return False
    path = Path(source)
    return len(path.parts) > 1 or path.suffix in (".npy", ".npz") or "/" in source or path.exists()


def absolute(source: str) -> str:
    """A source with the absolute path where it is a path; others as they are.

    Args:
        source: as `load_data` takes it.
    """
    return str(Path(source).absolute()) if is_path(source) else source


def check_source(source: str) -> None:
    """Check that a text can be read as a source of images, without a look at files.

    Args:
        source: as `load_data` takes it.

    Raises:
        ValueError: if there is no data set of that name, or it has no such option.
    """
    if source == MEMORY:
        return
    if source.startswith(PREFIX):
        check_torchvision(source)
    elif is_named(source):
        DATASETS.parse(source)
    elif not is_path(source):
        name = source.partition(":")[0]
        alike = {known.lower(): PREFIX + known for known in torchvision_sets()}
        alike |= {known: known for known in DATASETS.pieces}
        close = difflib.get_close_matches(name.lower(), alike, 1)
        hint = f" (did you mean {alike[close[0]]}?)" if close else ""
        raise ValueError(
            f"There is no data set {name!r}{hint}; choose from {', '.join(DATASETS.pieces)}, "
            "torchvision:NAME, or give the path of a folder of images or of a .npy or .npz file, "
            f"but there is none at {source!r}."
        )


def _source(
    source: Any, root: str | Path | None, labels: Any = None, masks: Any = None
) -> Splits | Source:
    """The splits of a data set by name, or what there is to read."""
    if root is not None and not Path(root).is_dir():
        raise FileNotFoundError(f"The data folder {root} does not exist; make it or name another.")
    folder = Path("data" if root is None else root)
    if isinstance(source, Path) or (isinstance(source, str) and is_path(source)):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(
                f"The images {path} do not exist; give the path where they are."
            )
        if path.is_dir():
            return folder_source(path)
        if path.suffix.lower() in (".npy", ".npz"):
            return file_source(path)
        raise ValueError(f"{path} is neither a folder of images nor a .npy or .npz file.")
    if isinstance(source, str):
        check_source(source)
        if source == MEMORY:
            raise ValueError(
                "These images were in memory and not in a file; give them again: --data PATH, or "
                "in Python Run.data(images)."
            )
        if source.startswith(PREFIX):
            return torchvision_source(source, folder)
        return DATASETS.make(source, folder)
    if isinstance(source, Splits):
        return source
    if isinstance(source, ImageSet):
        return held_out(source, "the image set")
    if isinstance(source, torch.Tensor | np.ndarray):
        return array_source(source, labels, masks)
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return items_source(source, "the data set")
    raise TypeError(
        "Images come from a name, a path, a tensor, an array, a torch Dataset with a length, an "
        f"ImageSet or Splits; got {type(source).__name__}."
    )


def _binarizer(in_place: bool = False) -> Callable[[ImageSet], ImageSet]:
    """A function that makes pixels 0 or 1; what is missing stays so."""
    generator = torch.Generator().manual_seed(0)

    def binary(data: ImageSet) -> ImageSet:
        pixels = data.pixels if in_place else torch.empty_like(data.pixels)
        start, as_bytes = 0, pixels.dtype == torch.uint8
        for part in replace(data, masks=None).split():
            images = part.images
            ink = torch.bernoulli(images.nan_to_num(), generator=generator)
            ink = 255 * ink if as_bytes else ink.where(images.isfinite(), torch.nan)
            pixels[start : start + len(part)] = ink
            start += len(part)
        return replace(data, pixels=pixels)

    return binary


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
    ("omniglot-alphabets", omniglot_alphabets),
    ("omniglot-new", omniglot_new),
    ("omniglot-all", omniglot_all),
):
    DATASETS.add(_name)(_loader)


@DATASETS.add("strokes")
def _strokes(root: Path) -> Splits:
    images, labels, segments = strokes(10_000, seed=0)
    everything = ImageSet(images, labels, segments)
    return Splits(everything[:8000], everything[8000:9000], everything[9000:])
