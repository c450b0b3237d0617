"""Trials of pieces: calls on small made inputs, and the shapes that a contract wants of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_rnp.affine import inverse_matrix
from pyro_rnp.config import RNPConfig
from pyro_rnp.contract import check_event
from pyro_rnp.missing import independent, of_seen
from pyro_rnp.params import unowned

Given = dict[str, Tensor]
"""Arguments of a call by name; in all of them images are the first dimension but of `placed` and
`covers`, whose first are the parts."""


class Trial(ABC):
    """How a kind of piece is called and what its contract wants of the result.

    Args:
        piece: the piece, attached to a model if it has `attach`.
        config: the model's.
    """

    field: str
    method: str
    """The method that is called, for messages."""

    def __init__(self, piece: Any, config: RNPConfig) -> None:
        self.piece, self.config = piece, config
        self.shape = (config.channels, config.image_size, config.image_size)

    def __str__(self) -> str:
        return f"{self.field.replace('_', ' ')} {type(self.piece).__name__}"

    def given(self, n: int, like: Tensor) -> Given:
        """Arguments of a call for N images.

        Args:
            n: images.
            like: a tensor with their precision and device.
        """
        return {}

    @abstractmethod
    def call(self, given: Given) -> Any:
        """The piece's results.

        Args:
            given: arguments.
        """

    @abstractmethod
    def check(self, given: Given, found: Any) -> None:
        """Raise unless results have the shapes that the contract names.

        Args:
            given: arguments.
            found: results of `call`.

        Raises:
            ValueError: if a result has another type or shape.
        """

    def values(self, found: Any) -> dict[str, Tensor]:
        """The tensors of results by name, of a distribution a sample and its log-probability.

        Args:
            found: results of `call`.
        """
        return dict(found)

    def once(self, n: int = 2, like: Tensor | None = None) -> Any:
        """Call the piece and check the shapes of its results.

        Args:
            n: images.
            like: a tensor with the precision and device of arguments; by default float32.

        Returns:
            The results of `call`.

        Raises:
            ValueError: if the call raises an error or gives anything else than the contract wants.
        """
        given = self.given(n, torch.zeros(()) if like is None else like)
        found = self.tried(given)
        self.check(given, found)
        return found

    def tried(self, given: Given) -> Any:
        """The piece's results, with an error in one sentence.

        Args:
            given: arguments.

        Raises:
            ValueError: if the call raises an error.
        """
        try:
            return self.call(given)
        except Exception as error:
            shapes = {name: tuple(value.shape) for name, value in given.items()}
            told = "; ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
            raise ValueError(
                f"The {self}: {self.method} with {told or 'no arguments'} raised {_told(error)}"
            ) from error

    def wants(self, what: str, got: Any, shape: tuple[int, ...]) -> None:
        """Raise unless a result is a tensor of a shape.

        Args:
            what: names the result.
            got: the result.
            shape: the shape that is wanted.

        Raises:
            ValueError: if it is anything else.
        """
        found = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        if found != shape:
            raise ValueError(f"The {self}: {what} must be a tensor of shape {shape}, got {found}.")


def _made(like: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1) of a shape, with the precision and device of another tensor."""
    return torch.rand(shape, dtype=like.dtype, device=like.device)


def _told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class _OfDistribution(Trial):
    """A piece that gives a distribution."""

    def values(self, found: Any) -> dict[str, Tensor]:
        try:
            expanded = found if found.batch_shape else found.expand(torch.Size((3,)))
            sample = expanded()
            # Of the sample's value, since a sample of a normal moves with its mean.
            return {"sample": sample, "log_prob": expanded.log_prob(sample.detach())}
        except Exception as error:
            raise ValueError(
                f"The {self} must give a distribution that can be expanded, drawn and scored; "
                f"{type(found).__name__} raised {_told(error)}"
            ) from error


class PriorTrial(_OfDistribution):
    """p(z^K), see `pyro_rnp.priors.Prior`."""

    field, method = "prior", "forward"

    def call(self, given: Given) -> Any:
        return self.piece()

    def check(self, given: Given, found: Any) -> None:
        check_event("prior", found, (self.config.program_size,), ())


class GuideTrial(_OfDistribution):
    """q(z^K | x), see `pyro_rnp.guides.TopGuide`."""

    field, method = "guide", "posterior"

    def given(self, n: int, like: Tensor) -> Given:
        return {"images": _made(like, n, *self.shape)}

    def call(self, given: Given) -> Any:
        return self.piece.posterior(given["images"])

    def check(self, given: Given, found: Any) -> None:
        check_event("guide", found, (self.config.program_size,), (len(given["images"]),))


class LikelihoodTrial(_OfDistribution):
    """p(x | canvas), see `pyro_rnp.likelihoods.Likelihood`."""

    field, method = "likelihood", "forward"

    def given(self, n: int, like: Tensor) -> Given:
        return {"canvas": 1.2 * _made(like, n, *self.shape)}  # sums of patches may pass 1

    def call(self, given: Given) -> Any:
        return self.piece(given["canvas"])

    def check(self, given: Given, found: Any) -> None:
        check_event("likelihood", found, self.shape, tuple(given["canvas"].shape[:-3]))

    def of_seen(self, given: Given) -> Tensor | None:
        """The log-probability of images of which every second pixel is missing.

        Args:
            given: arguments.

        Returns:
            (N,), or None where pixels are not independent, so that none may be missing.
        """
        found = self.call(given)
        if not independent(found):
            return None
        pixels = found()
        seen = (torch.arange(pixels[0].numel()) % 2 == 0).view(pixels[0].shape).expand_as(pixels)
        return of_seen(found, seen).log_prob(pixels * seen)


class LowerGuideTrial(Trial):
    """Random sites below the top, see `pyro_rnp.guides.LowerGuide`."""

    field, method = "lower_guide", "forward"

    def given(self, n: int, like: Tensor) -> Given:
        c = self.config
        return {
            "images": _made(like, n, *self.shape),
            "z": _made(like, n, c.program_size) * 2 - 1,
            "a": _made(like, n, 6) * 2 - 1,
            "glimpsed": _made(like, n, c.channels, c.patch_size, c.patch_size) * 2 - 1,
        }

    def call(self, given: Given) -> Any:
        found: dict[str, Any] = {}
        features, n = self.piece.look(given["images"]), len(given["images"])
        each = self.config.learn_scales == "predicted"
        for depth, kind in product(range(1, self.config.depth + 1), "az"):
            if not self.config.random(kind, depth):  # type: ignore[arg-type]
                continue
            for siblings, step in ((1, 0), (2, self.config.steps[depth - 1] - 1)):
                several = siblings if depth > 1 else 1
                glimpsed = given["glimpsed"].repeat(several, 1, 1, 1)
                predicted = given[kind].repeat(several, 1)
                scale = predicted.new_full(predicted.shape if each else (), 0.3)
                result = self.piece(
                    kind, (*[0] * (depth - 1), step), predicted, scale,
                    glimpsed if self.piece.glimpses else None, features,
                )  # fmt: skip
                name = f"of {several * n} sites {kind}, {depth} below the top, the"
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise TypeError(f"forward must return two tensors, got {result!r:.100}")
                found |= {f"{name} mean": result[0], f"{name} standard deviation": result[1]}
        return found

    def check(self, given: Given, found: Any) -> None:
        for name, value in found.items():
            size = self.config.program_size if " sites z" in name else 6
            self.wants(name, value, (int(name.split()[1]), size))


class PlacementTrial(Trial):
    """Parts on a canvas, see `pyro_rnp.placements.Placement`."""

    field, method = "placement", "blank, patch, canvas, cover or leaf"

    def given(self, n: int, like: Tensor) -> Given:
        channels, size = self.config.channels, self.config.patch_size + 2
        action = like.new_tensor([0.4, 0.3, 0.2, 0.1, -0.1, 0.2]).expand(n, -1)
        return {
            "appearance": _made(like, n, self.piece.appearance_size),
            "pixels": _made(like, n, channels, size, size),
            "to_source": inverse_matrix(action).contiguous(),
        }

    def call(self, given: Given) -> Any:
        piece, size = self.piece, self.config.image_size
        found = {
            "blank": piece.blank(),
            "patch": piece.patch(given["appearance"]),
            "canvas": piece.canvas(given["pixels"], given["to_source"], size),
            "cover": piece.cover(given["to_source"], size),
        }
        if piece.continuous:
            found["leaf"] = piece.leaf(given["appearance"], given["to_source"], size)
        return found

    def check(self, given: Given, found: Any) -> None:
        n, (channels, size, _), patch = len(given["to_source"]), self.shape, self.config.patch_size
        wanted = {
            "blank": (self.piece.appearance_size,),
            "patch": (n, channels, patch, patch),
            "cover": (n, 1, size, size),
        }
        for name, value in found.items():
            self.wants(name, value, wanted.get(name, (n, channels, size, size)))


class CompositionTrial(Trial):
    """Parts that overlap, see `pyro_rnp.compositions.Composition`."""

    field, method = "composition", "__call__"

    def given(self, n: int, like: Tensor) -> Given:
        placed = _made(like, 3 if n > 1 else 1, n, *self.shape)
        return {"placed": placed, "covers": torch.ones_like(placed[:, :, :1]) * 0.7}

    def call(self, given: Given) -> Any:
        shares = self.piece(given["placed"], given["covers"] if self.piece.opaque else None)
        return {} if shares is None else {"shares": shares}

    def check(self, given: Given, found: Any) -> None:
        for name, value in found.items():
            shape = list(given["placed"].shape)
            if isinstance(value, Tensor) and value.ndim == 5 and value.shape[2] == 1:
                shape[2] = 1
            self.wants(name, value, tuple(shape))


TRIALS: Mapping[str, type[Trial]] = {
    trial.field: trial
    for trial in (
        PriorTrial,
        GuideTrial,
        LowerGuideTrial,
        LikelihoodTrial,
        PlacementTrial,
        CompositionTrial,
    )
}
"""The trial of each kind of piece, by the field of the configuration that it stands for."""


@contextmanager
def unseen(*modules: nn.Module) -> Iterator[None]:
    """Leave random states and Pyro's parameter store as they were; its handlers see nothing.

    Args:
        modules: they are in evaluation mode, so that a call does not change their buffers.
    """
    modes = {one: one.training for module in modules for one in module.modules()}
    for one in modes:
        one.training = False
    state = pyro.util.get_rng_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        store = pyro.get_param_store().scope(unowned())
        with poutine.block(), torch.random.fork_rng(devices), store:
            yield
    finally:
        pyro.util.set_rng_state(state)
        for one, mode in modes.items():
            one.training = mode
