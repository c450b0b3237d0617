"""A folder of image files, with or without a folder for each class and for each split."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from inference.data.arrays import NAMES
from inference.data.image_files import file_pixels, is_grey
from inference.data.prepare import Chunk, Source, as_bytes

STUBS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow tells by their beginning and mostly cannot read."""


def folder_source(path: Path) -> Source:
    """Read a folder of image files.

    Args:
        path: a folder whose image files lie in it, or in a folder for each class, at any depth; or
            whose folders `train`, `val` (or `valid`, `validation`) and `test` hold these.

    Raises:
        ValueError: if it holds no image files, or none to learn from, or folders for splits beside
            others.
    """
    folders = [f for f in sorted(path.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    holding = [f for f in folders if next(_images(f), None) is not None]
    splits = {f: NAMES.get(f.name.lower()) for f in holding}
    if len(set(splits.values()) - {None}) > 1:
        named = ", ".join(f.name for f, split in splits.items() if split)
        if others := ", ".join(f.name for f, split in splits.items() if not split):
            raise ValueError(
                f"{path} has folders for splits ({named}) beside others with images ({others}); "
                "move these out of it, or into the splits."
            )
        if "train" not in splits.values():
            raise ValueError(f"{path} has folders for splits ({named}), but none is train.")
    if "train" in splits.values() and None not in splits.values():
        parts = list(splits.items())
    else:
        parts = [(path, None)]
    classes = sorted(
        {f.name for part, _ in parts for f in part.iterdir() if f.is_dir() and f in _holding(part)}
    )
    files: list[tuple[Path, int, str | None]] = []
    beside = 0
    for part, split in parts:
        for file in _images(part):
            inside = file.relative_to(part).parts
            if len(inside) == 1 and classes:
                beside += 1
                continue
            label = classes.index(inside[0]) if classes else 0
            files.append((file, label, split))
    if not files:
        raise ValueError(
            f"{path} holds no image files; a folder holds PNG, JPEG, TIFF or other files, in "
            "folders named for classes or not."
        )
    if beside:
        print(
            f"{beside} image files beside the class folders of {path} are left out.",
            file=sys.stderr,
        )

    def chunks(colour_only: bool) -> Iterator[Chunk]:
        wrong: list[tuple[Path, Exception]] = []
        for file, label, split in files:
            try:
                stored = file.read_bytes()
                if colour_only and is_grey(stored):
                    continue
                pixels = as_bytes(file_pixels(io.BytesIO(stored), str(file)))
            except (ValueError, OSError) as error:
                wrong.append((file, error))
                continue
            if not wrong:
                yield Chunk(pixels.unsqueeze(0), [label], [hashlib.sha256(stored).digest()], split)
        if wrong:
            names = ", ".join(str(file.relative_to(path)) for file, _ in wrong[:3])
            more = ", ..." if len(wrong) > 3 else ""
            why = str(wrong[0][1]).removeprefix(f"{wrong[0][0]} ").rstrip(".")
            raise ValueError(
                f"{len(wrong)} of the {len(files)} image files in {path} cannot be read: {names}"
                f"{more} (the first {why}); repair or remove them."
            )

    return Source(str(path), chunks, len(files), tuple(classes))


def image_files(path: str) -> list[str]:
    """The image files in a folder and below it, in order; of a file, itself.

    Args:
        path: a folder or a file.

    Raises:
        ValueError: if a folder holds none.
    """
    if not Path(path).is_dir():
        return [path]
    found = [str(file) for file in _images(Path(path))]
    if not found:
        raise ValueError(f"{path} holds no image files.")
    return found


def _holding(part: Path) -> set[Path]:
    return {f for f in part.iterdir() if f.is_dir() and next(_images(f), None) is not None}


def _images(folder: Path) -> Iterator[Path]:
    """The image files in a folder and below it, in order, without hidden ones."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _images(path)
        elif path.suffix.lower() in _suffixes():
            yield path


@cache
def _suffixes() -> frozenset[str]:
    """The suffixes of the files that Pillow reads."""
    names = Image.registered_extensions().items()
    return frozenset(s for s, kind in names if kind in Image.OPEN and kind not in STUBS)
