"""The models and the images from which visitors choose, loaded once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from inference.config import read_data
from inference.explore.images import pen
from inference.explore.models import models, open_model
from inference.explore.session import Session
from inference.run import Run
from pyro_rnp import RNP
from pyro_rnp.checkpoint import WEIGHTS, find

OWN = "this model"
"""The name of a model that was given as an object."""
AT_HAND = ("digits", "strokes")
"""Data sets that need no download."""
MEASURED = 32
"""Samples of a model whose lines are measured."""
MOST = 500
"""Images of a data set that are shown."""


def images_for(
    rnp: RNP | str | Path, data: str | None = None, data_root: str | None = None
) -> Float[Tensor, "n c s s"]:
    """Load test images in the size and the channels that a model reads, at most `MOST`.

    Args:
        rnp: a model; or the name of a pretrained one, or a run folder.
        data: a data set, as `inference.data.load_data` takes it. By default the one that the model
            learned from, where it is known and needs no download, else the embedded digits.
        data_root: the folder of data sets; with it, the model's own is read there.

    Raises:
        FileNotFoundError, ValueError: in one sentence, if they cannot be read.
    """
    training, inverted = {}, None
    if isinstance(rnp, RNP):
        config = rnp.config
    else:
        run = Run(rnp)
        config, training, inverted = run.model_config, run.training, run.images.get("inverted")
    source = data or _own_data(training, data_root)
    training = {
        **training,
        "size": config.image_size,
        "channels": config.channels,
        "data_root": data_root or training.get("data_root"),
    }
    return read_data(source, training, config, inverted).test[:MOST].images


def _own_data(training: Mapping[str, Any], data_root: str | None) -> str:
    """The data set that a model learned from where that is at hand, else the embedded digits."""
    own = training.get("data")
    near = data_root is not None or own in AT_HAND or Path(str(own)).exists()
    return str(own) if own and near else "digits"


class Shelf:
    """Models by name, and images for each.

    Args:
        rnp: a model; or the name of a pretrained one, or a run folder.
        images: as the model reads them, (N, C, H, W) in [0, 1]. By default test images of `data`.
        data, data_root: as `images_for` takes them.

    Raises:
        FileNotFoundError, ValueError: in one sentence, if there is no such model or data set, or
            the model does not read such images.
    """

    def __init__(
        self,
        rnp: RNP | str | Path = "mnist",
        images: Any = None,
        data: str | None = None,
        data_root: str | None = None,
    ) -> None:
        self.first = OWN if isinstance(rnp, RNP) else str(rnp)
        self.data, self.data_root = data, data_root
        self._lock = threading.RLock()
        self._models: dict[str, RNP] = {self.first: rnp} if isinstance(rnp, RNP) else {}
        self._images: dict[str, Tensor] = {}
        self._lines: dict[str, float] = {}
        self._stamps: dict[str, tuple[int, int] | None] = {}
        self._given = set() if images is None else {self.first}
        model = self.model(self.first)
        self.line(self.first)  # so that a page opens at once
        if images is not None:
            self._images[self.first] = model.check(torch.as_tensor(images))[:MOST].cpu()
        elif data is not None:
            self.images(self.first)  # what is wrong with it is told at once

    def names(self) -> list[str]:
        """The models to choose from, the first one first."""
        return list(dict.fromkeys([self.first, *models()]))

    def model(self, name: str) -> RNP:
        """Return a model, of a run that was trained anew the new one.

        Args:
            name: of `names`.

        Raises:
            FileNotFoundError, ValueError: if it cannot be loaded.
        """
        stamp = self._stamp(name)
        if self._is_new(name, stamp):  # what is there waits for nothing that loads
            with self._lock:
                if self._is_new(name, stamp):
                    self._models[name] = open_model(name).eval()
                    self._stamps[name] = stamp
                    self._lines.pop(name, None)
                    if name not in self._given:
                        self._images.pop(name, None)
        return self._models[name]

    def _is_new(self, name: str, stamp: tuple[int, int] | None) -> bool:
        if name not in self._models:
            return True
        return stamp is not None and self._stamps.get(name, stamp) != stamp

    def _stamp(self, name: str) -> tuple[int, int] | None:
        """When a run's weights were written, and how long they are; None where there are none."""
        try:
            found = (find(name) / WEIGHTS).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def images(self, name: str) -> Float[Tensor, "n c s s"]:
        """Return images that a model reads.

        Args:
            name: of the model.

        Raises:
            FileNotFoundError, ValueError: if they cannot be read.
        """
        with self._lock:
            if name not in self._images:
                source = self.model(name) if name == OWN else name
                self._images[name] = images_for(source, self.data, self.data_root)
            return self._images[name]

    def source(self, name: str) -> dict[str, str] | None:
        """Return the arguments with which `images_for` gives the images too; None of given ones.

        Args:
            name: of the model.
        """
        if name in self._given:
            return None
        found = {"data": self.data, "data_root": self.data_root}
        return {key: str(value) for key, value in found.items() if value is not None}

    def data_name(self, name: str) -> str | None:
        """Return the data set that a model's images are from; None of given ones.

        Args:
            name: of the model.
        """
        if name in self._given:
            return None
        own = name == OWN  # of which no run tells more
        return self.data or _own_data({} if own else Run(name).training, self.data_root)

    def line(self, name: str) -> float:
        """Return how wide a pen draws lines as the model's images have them, in pixels of 28.

        Args:
            name: of the model.
        """
        if name not in self._lines:
            images = Session(self.model(name)).sample(MEASURED).canvas
            self._lines[name] = round(pen(images).width, 1)
        return self._lines[name]
