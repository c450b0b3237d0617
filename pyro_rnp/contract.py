"""Checks of the contracts between Pyro, its handlers, the model, the guide and their pieces."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.do_messenger import DoMessenger
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn

PYRO = threading.RLock()
"""Held by a thread while the library uses Pyro, the random state or a model in it."""


def plates() -> torch.Size:
    """The batch shape of the open plates, which the value of an outer handler may lack.

    Returns:
        Sizes by dimension, the leftmost plate's first; of a subsampling plate, the subsample's.
    """
    sizes = {
        p.dim: getattr(p, "subsample_size", p.size)
        for p in _PYRO_STACK
        if isinstance(p, IndepMessenger) and p.dim
    }
    return torch.Size([sizes.get(dim, 1) for dim in range(min(sizes), 0)])


def conditioned(name: str) -> bool:
    """Whether an open `pyro.condition` sets a site.

    Args:
        name: the site's name.
    """
    return any(isinstance(m, ConditionMessenger) and name in m.data for m in _PYRO_STACK)


class DensitiesOnly(Messenger):
    """A handler within which models leave out of a trace what has no density.

    These are the sites that the model determines and the parameters, which take time in each of
    thousands of traces. `pyro.do` and `pyro.param` then have no effect on them.

    Args:
        together: whether random sites of siblings, which run side by side, become one site, such as
            `z/*/2` of all third sub-parts; by default each is one of its own.
    """

    def __init__(self, together: bool = False) -> None:
        super().__init__()
        self.together = together

    @classmethod
    def open(cls) -> DensitiesOnly | None:
        """The innermost such handler that is open; None too where another one sets sites below."""
        found = next((m for m in reversed(_PYRO_STACK) if isinstance(m, cls)), None)
        return None if found is None or sets_below() else found


class Drawn(Messenger):
    """A handler that gives sites values that were drawn from their distributions before.

    It is the innermost one, so every other handler may still set another value.

    Args:
        values: by the names of sites.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None:
            msg["value"] = self.values.get(msg["name"])


def sets_below() -> bool:
    """Whether `pyro.do` or `pyro.condition`, now open, sets a site below `z`."""
    own = re.compile(r"canvas|[za](/\d+)+")
    setting: Any = [m for m in _PYRO_STACK if isinstance(m, ConditionMessenger | DoMessenger)]
    return any(own.fullmatch(name) for m in setting for name in m.data)


def siblings_together() -> bool:
    """Whether random sites of siblings are to be one site, see `DensitiesOnly`."""
    handler = DensitiesOnly.open()
    return handler is not None and handler.together


def how_many(images: Any, num_images: Any) -> int:
    """N, from the two arguments of model and guide.

    Args:
        images: (N, C, H, W) or None.
        num_images: a positive number or None.

    Returns:
        The number of the images; without images `num_images`, by default 1.

    Raises:
        ValueError: if `num_images` is no positive number, or is not that of the images.
    """
    n = (1 if images is None else len(images)) if num_images is None else num_images
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        got = f"a tensor of shape {tuple(n.shape)}" if isinstance(n, torch.Tensor) else repr(n)
        raise ValueError(
            f"num_images must be a positive number, got {got}; model and guide take images and, "
            "without images, their number, and no labels."
        )
    if images is not None and n != len(images):
        raise ValueError(f"num_images is {n}, but there are {len(images)} images; leave it out.")
    return int(n)


class OwnSites(Messenger):
    """A handler that refuses foreign sites inside of the plate of images.

    A foreign site there, as a `PyroSample` weight of a network, would be drawn once for each image,
    and its log-probability would count N times.
    """

    own = re.compile(r"canvas|part_term|x|z|[za](/[\d*]+)+")

    def __init__(self) -> None:
        super().__init__()
        self._open: list[Any] = []
        """The model's own sites in progress; while a handler such as `LocScaleReparam` works on
        one, it may add sites such as `z_decentered`."""

    def _pyro_sample(self, msg: Any) -> None:
        if self.own.fullmatch(msg["name"]):
            self._open.append(msg)
        elif not self._open:
            raise ValueError(
                f"The site {msg['name']!r} stands inside of the plate of images and would be drawn "
                "once for each; draw it where the prior's forward or the guide's posterior begins, "
                "both of which stand outside of the plate, or give a fixed value."
            )

    def _pyro_post_sample(self, msg: Any) -> None:
        if self._open and self._open[-1] is msg:
            self._open.pop()


METHODS = {
    "prior": ("forward",),
    "guide": ("posterior",),
    "lower_guide": ("look", "forward", "glimpses"),
    "likelihood": ("forward",),
    "placement": ("blank", "patch", "canvas", "cover", "appearance_size", "continuous"),
    "composition": ("__call__", "opaque"),
}
"""What an object must have to be a piece, by the field of the configuration that it stands for."""


def check_object(field: str, piece: Any) -> None:
    """Raise unless an object can be a piece of a model.

    Args:
        field: a key of `METHODS`.
        piece: the object.

    Raises:
        ValueError: if it is a class, no `torch.nn.Module` (which only a composition need not be),
            or lacks a method.
    """
    if isinstance(piece, type):
        raise ValueError(f"{field} must be an object, got the class {piece.__name__}; make one.")
    name = f"{type(piece).__module__}.{type(piece).__qualname__}"
    if field != "composition" and not isinstance(piece, nn.Module):
        hint = ""
        if hasattr(piece, "log_prob"):
            hint = "; a distribution is what its forward (a guide's: posterior) returns"
        raise ValueError(f"{field} must be a torch.nn.Module, got {name}{hint}.")
    for method in METHODS[field]:
        found = getattr(piece, method, None)
        if found is None or getattr(found, "__name__", "") == "_forward_unimplemented":
            raise ValueError(f"{field} must have {method}, which {name} has not.")


_bound: Any = weakref.WeakKeyDictionary()
"""Pieces that keep the model that they serve, with a weak reference to it."""


def bind(field: str, piece: Any, rnp: Any) -> None:
    """Note which model a piece with `attach` serves.

    Args:
        field: of the configuration, for the message.
        piece: the piece.
        rnp: the model.

    Raises:
        ValueError: if it serves another model that still exists.
    """
    other = _bound.get(piece)
    if other is not None and other() not in (None, rnp):
        raise ValueError(
            f"This {type(piece).__name__} is the {field} of another RNP, which it keeps; give "
            "each RNP its own, as by copy.deepcopy."
        )
    _bound[piece] = weakref.ref(rnp)


def check_event(
    piece: str, distribution: Any, shape: tuple[int, ...], batch: tuple[int, ...]
) -> None:
    """Raise unless a piece gives a distribution of the shapes that its contract names.

    Args:
        piece: the kind of piece, for the message.
        distribution: the piece's result.
        shape: the event shape that is wanted.
        batch: the batch shape that is wanted.

    Raises:
        ValueError: if it is no distribution of these shapes, or cannot be drawn and scored.
    """
    for method in ("log_prob", "__call__"):
        if not callable(getattr(distribution, method, None)):
            raise ValueError(
                f"The {piece} must give a distribution of pyro.distributions, which has {method}; "
                f"got {type(distribution).__module__}.{type(distribution).__name__}."
            )
    got = tuple(distribution.event_shape), tuple(distribution.batch_shape)
    if got != (shape, batch):
        raise ValueError(
            f"The {piece} must give a distribution of event shape {shape} and batch shape {batch}, "
            f"got {got[0]} with batch shape {got[1]}; .to_event({len(shape)}) makes dimensions of "
            "the batch ones of the event."
        )
