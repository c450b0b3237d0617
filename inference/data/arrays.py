"""Arrays of images: `.npy` and `.npz` files, NumPy arrays, tensors, and torch data sets."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inference.data.image_files import pixels_of
from inference.data.prepare import FEW, SPLITS, Chunk, Source, as_bytes, digest

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of a `.npy` file, by the version of its format."""
NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The split that each name means, of folders and of arrays."""
KINDS = {
    "images": "images", "labels": "labels", "masks": "masks", "mask": "masks",
    "split": "split", "splits": "split",
}  # fmt: skip
"""What each name of an array in a file means."""


def array_source(
    images: Any,
    labels: Any = None,
    masks: Any = None,
    splits: Any = None,
    name: str = "the array",
    classes: np.ndarray | None = None,
) -> Source:
    """Read an array or a tensor.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3: bytes, truth values, or
            floats in [0, 1] in which NaN is a missing pixel.
        labels: the class of each image, as a number from 0 or a name; None gives all label 0.
        masks: (N, H, W), true where a pixel was seen; None where all were.
        splits: the split of each image, as a name or a number from 0 for training, validation and
            test; None takes them by hash. Or one name, for all.
        name: for messages.
        classes: the names that labels number, in order; None takes those that are there.

    Raises:
        ValueError: if the arrays have other shapes or types.
    """
    array = _array(images)
    form = _channels_first(_blank(array), name)
    count = len(form)
    numbers, names = _labels(labels, count, name, classes)
    seen = None if masks is None else _array(masks)
    if seen is not None:
        _check_masks(seen, form, name)
    groups = _groups(splits, count, name)

    def chunks(colour_only: bool) -> Iterator[Chunk]:
        if colour_only and form.shape[1] == 1:
            return
        with _rows(array) as pixels, _rows(seen) as masks:
            for split, rows in groups:
                for start in range(0, len(rows), FEW):
                    some = rows[start : start + FEW]
                    part = np.ascontiguousarray(_channels_first(pixels(some), name))
                    mask = None
                    if seen is not None:
                        mask = torch.from_numpy(masks(some).astype(bool))
                        mask = mask.reshape(-1, 1, *part.shape[2:])
                    digests = [digest(image) for image in part]
                    yield Chunk(_pixels(part, name), numbers[some].tolist(), digests, split, mask)

    return Source(name, chunks, count, names)


def file_source(path: Path) -> Source:
    """Read a `.npy` or `.npz` file.

    An `.npz` holds `images` and, if need be, `labels`, `masks` and `split`; or arrays that name
    their split, as `train_images`, `val_labels` and `test_masks`. Labels that are names are
    numbered over all splits together.

    Raises:
        ValueError: if it is damaged, or holds something else.
    """
    with _reading(path):
        if path.suffix.lower() == ".npy":
            whole = np.load(path, mmap_mode="r")
            return array_source(_Stored.of(path) or whole, name=str(path))
        with np.load(path) as arrays:
            names = _by_split(arrays.files, path)
            parts: dict[str, dict[str, Any]] = {split: {} for split in names}
            for split, kinds in names.items():
                for kind, name in kinds.items():
                    stored = _Stored.of(path, name) if kind in ("images", "masks") else None
                    parts[split][kind] = arrays[name] if stored is None else stored
    labels = [held["labels"] for held in parts.values() if "labels" in held]
    classes = None
    if any(some.dtype.kind in "US" for some in labels):
        classes = np.unique(np.concatenate([some.astype(str).ravel() for some in labels]))
    return joined([
        array_source(
            held["images"],
            held.get("labels"),
            held.get("masks"),
            split or held.get("split"),
            str(path),
            classes,
        )
        for split, held in parts.items()
    ])  # fmt: skip


def items_source(data: Any, name: str, split: str | None = None) -> Source:
    """Read a torch data set item by item.

    Args:
        data: its items are images, or tuples of which an image is the first and its class, if
            there is one, the second; an image is one of Pillow's, or a tensor or array of one image
            as `array_source` takes them.
        name: for messages.
        split: the split that its images belong to; None takes them by hash.

    Raises:
        ValueError: if an item is something else.
    """

    def chunks(colour_only: bool) -> Iterator[Chunk]:
        for number in range(len(data)):
            item = data[number]
            image, label = (*item, 0)[:2] if isinstance(item, tuple | list) else (item, 0)
            where = f"item {number} of {name}"
            if isinstance(image, Image.Image):
                pixels = as_bytes(pixels_of(image))[None]
                stored = np.asarray(image)
            else:
                stored = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
                if not isinstance(stored, np.ndarray) or stored.ndim not in (2, 3):
                    kind = type(image).__name__
                    raise ValueError(f"{where} must be an image or (image, label), got {kind}.")
                pixels = _pixels(_channels_first(stored[None], where), where)
                if pixels.is_floating_point():
                    rounded = as_bytes(pixels)
                    if torch.equal(rounded.float() / 255, pixels):  # they were bytes: ToTensor
                        pixels = rounded
            yield Chunk(pixels, [_class(label, where)], [digest(stored)], split)

    return Source(name, chunks, len(data), _names(data))


def joined(sources: Sequence[Source]) -> Source:
    """Read one source after the other as one, with the name and the classes of the first."""

    def chunks(colour_only: bool) -> Iterator[Chunk]:
        for source in sources:
            yield from source.chunks(colour_only)

    totals = [source.total for source in sources]
    total = None if None in totals else sum(t for t in totals if t is not None)
    return Source(sources[0].name, chunks, total, sources[0].class_names)


@dataclass(frozen=True)
class _Stored:
    """An array in a file, of which some rows at a time are read."""

    path: Path
    name: str | None
    """Of an array in an `.npz` file; None of a `.npy` file."""
    shape: tuple[int, ...]
    dtype: np.dtype
    at: int
    """Where its rows begin, in bytes."""

    @classmethod
    def of(cls, path: Path, name: str | None = None) -> _Stored | None:
        """An array in a file; None of one whose rows do not lie one after the other."""
        with _entry(path, name) as file:
            version = np.lib.format.read_magic(file)
            if version not in HEADERS:
                return None
            shape, by_columns, dtype = HEADERS[version](file)
            if by_columns or dtype.hasobject or not shape or 0 in shape:
                return None
            return cls(path, name, shape, dtype, file.tell())

    @contextmanager
    def opened(self) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        """What reads rows, given their numbers, which grow, until the file is closed again."""
        with _entry(self.path, self.name) as file:

            def read(rows: np.ndarray) -> np.ndarray:
                found, done = np.empty((len(rows), *self.shape[1:]), self.dtype), 0
                size = found[:1].nbytes
                for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
                    with _reading(self.path):
                        file.seek(self.at + int(run[0]) * size)
                        stored = np.frombuffer(file.read(len(run) * size), self.dtype)
                        found[done : done + len(run)] = stored.reshape(-1, *self.shape[1:])
                    done += len(run)
                return found

            yield read


@contextmanager
def _entry(path: Path, name: str | None) -> Iterator[IO[bytes]]:
    """A `.npy` file, or the one of a name in an `.npz` file."""
    if name is None:
        with path.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            yield file


def _rows(array: Any) -> AbstractContextManager[Callable[[np.ndarray], Any]]:
    """What gives rows of an array, in memory or in a file; None gives none."""
    if isinstance(array, _Stored):
        return array.opened()
    return nullcontext(lambda rows: None if array is None else array[rows])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say in a sentence that a file cannot be read.

    Raises:
        ValueError: if reading it fails.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # a zip cut short fails in many ways
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        why = str(error).rstrip(".")
        if "pickled" in why:  # what NumPy takes all for that does not begin as its files do
            why = "it is no .npy and no .npz file"
        elif "object" in why.lower():
            why = "it holds Python objects, not numbers"
        raise ValueError(f"{path} cannot be read: {why}.") from error


def _array(values: Any) -> Any:
    if isinstance(values, _Stored):
        return values
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _blank(array: Any) -> np.ndarray:
    """An array of the same shape and type that takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _by_split(names: Sequence[str], path: Path) -> dict[str, dict[str, str]]:
    """The names of a file's arrays by split, or by "" where none is named, and by kind.

    Raises:
        ValueError: if there are no images, or an array would be left out.
    """
    found: dict[str, dict[str, str]] = {split: {} for split in ("", *SPLITS)}
    for name in names:
        word, _, kind = name.rpartition("_")
        split = NAMES.get(word, "")
        if kind in KINDS and word in ("", *NAMES):
            found[split].setdefault(KINDS[kind], name)
    whole = "images" in found[""]
    found = {s: kinds for s, kinds in found.items() if "images" in kinds and whole == (s == "")}
    if not whole and "train" not in found:
        raise ValueError(
            f"{path} must hold images, or train_images and the like; it holds "
            f"{', '.join(names[:8]) or 'nothing'}."
        )
    if not whole:
        for kinds in found.values():
            kinds.pop("split", None)
    read = {name for kinds in found.values() for name in kinds.values()}
    if others := [name for name in names if name not in read]:
        raise ValueError(
            f"{path} holds {', '.join(others[:8])}, which would be left out; it may hold images, "
            "labels, masks and split, or else train_images, train_labels, train_masks and the same "
            "of val and test."
        )
    labelled = [split for split, kinds in found.items() if "labels" in kinds]
    if labelled and len(labelled) < len(found):
        bare = next(split for split in found if split not in labelled)
        raise ValueError(
            f"{path} has labels of {' and '.join(labelled)}, but not of {bare}; give labels of all "
            "splits or of none."
        )
    return found


def _channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """(N, C, H, W), whatever of the three shapes it has."""
    shape = array.shape
    if len(shape) == 3:
        array = array[:, None]
    elif len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise ValueError(
            f"{name} must have shape (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, "
            f"got {shape}."
        )
    if array.dtype.kind not in "bf" and array.dtype != np.uint8:
        raise ValueError(
            f"{name} must hold bytes (uint8), truth values or floats in [0, 1], got {array.dtype}; "
            "astype('uint8') makes bytes of numbers from 0 to 255."
        )
    return array


def _pixels(part: np.ndarray, name: str) -> Tensor:
    """Bytes, or floats in [0, 1]."""
    if part.dtype == np.bool_:
        return torch.from_numpy(np.where(part, np.uint8(255), np.uint8(0)))
    if part.dtype == np.uint8:
        return torch.from_numpy(np.array(part))
    pixels = torch.from_numpy(part.astype(np.float32))
    known = pixels[~pixels.isnan()]
    if len(known) and not (known.min() >= 0 and known.max() <= 1):
        raise ValueError(
            f"{name} must hold floats in [0, 1] (NaN is a missing pixel), got values from "
            f"{known.min():g} to {known.max():g}; divide by 255, or save bytes (uint8)."
        )
    return pixels


def _check_masks(masks: Any, images: np.ndarray, name: str) -> None:
    n, _, h, w = images.shape
    if masks.shape not in ((n, h, w), (n, 1, h, w)):
        raise ValueError(f"The masks of {name} must have shape {(n, h, w)}, got {masks.shape}.")


def _labels(
    labels: Any, count: int, name: str, classes: np.ndarray | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as numbers from 0, and the names that these number."""
    if labels is None:
        return np.zeros(count, np.int64), ()
    found = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim == 2 and len(found) == count:
        print(
            f"{name} has {found.shape[1]} labels for each image; they are left out, and all images "
            "are of class 0.",
            file=sys.stderr,
        )
        return np.zeros(count, np.int64), ()
    if found.shape != (count,):
        raise ValueError(f"{name} has {count} images, but labels of shape {found.shape}.")
    if classes is not None or found.dtype.kind in "US":
        words = found.astype(str)
        classes = np.unique(words) if classes is None else classes
        return np.searchsorted(classes, words), tuple(classes.tolist())
    if found.dtype.kind not in "iubf" or (found != found.round()).any() or found.min() < 0:
        raise ValueError(f"The labels of {name} must be whole numbers from 0, or names.")
    return found.astype(np.int64), ()


def _groups(splits: Any, count: int, name: str) -> list[tuple[str | None, np.ndarray]]:
    """The rows of each split that is given; all in one where none is."""
    rows = np.arange(count)
    if splits is None or isinstance(splits, str):
        return [(splits, rows)]
    found = splits.cpu().numpy() if isinstance(splits, Tensor) else np.asarray(splits)
    if found.shape != (count,):
        raise ValueError(f"{name} has {count} images, but split has shape {found.shape}.")
    if found.dtype.kind in "US":
        words = [NAMES.get(re.sub(r"\W", "", word.lower())) for word in found.astype(str)]
    else:
        words = [SPLITS[int(n)] if n in (0, 1, 2) else None for n in found.tolist()]
    if None in words:
        odd = found[words.index(None)].item()
        raise ValueError(
            f"The split of {name} must be train, validation or test (or 0, 1, 2), got {odd!r}."
        )
    if "train" not in words:
        raise ValueError(f"{name} has no images to learn from: none is of the split train.")
    return [(s, rows[[w == s for w in words]]) for s in SPLITS if s in words]


def _class(label: Any, where: str) -> int:
    try:
        number = int(label)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise ValueError(f"The label of {where} must be a whole number from 0, got {label!r}.")
    return number


def _names(data: Any) -> tuple[str, ...]:
    """The names of the classes of a data set of torchvision, or one made like it."""
    names = getattr(data, "classes", None)
    if isinstance(names, Mapping | str) or not isinstance(names, Sequence):
        return ()
    return tuple(str(name) for name in names)
