"""Questions about an image that take long, as values that another process can answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inference.posterior import query
from pyro_rnp import RNP

SHOWN = 12
"""Samples that an answer has."""


@dataclass(frozen=True)
class Question:
    """A question: what is hidden, given what is seen and the parts that are kept."""

    image: Float[Tensor, "c s s"]
    seen: Bool[Tensor, "s s"]
    """The pixels that are seen; none asks for what the kept parts alone tell."""
    given: Mapping[str, Tensor] = field(default_factory=dict)
    """Sites that are kept, (d,) each."""
    seed: int = 0
    num_samples: int = 64
    steps: int = 0
    """Gradient steps, see `query`."""
    methods: tuple[str, ...] = ("guide", "smc")
    """Engines that answer one after another, the fast one first."""


@dataclass(frozen=True)
class Answer:
    """The posterior of an image given a question."""

    method: str
    """The engine, as `query` takes it."""
    mean: Float[Tensor, "c s s"]
    """Mean of the canvas."""
    std: Float[Tensor, "c s s"]
    """Standard deviation of the canvas."""
    samples: Float[Tensor, "k c s s"]
    """Canvases, drawn by weight."""
    trusted: bool
    notes: tuple[str, ...]
    """Why not to trust it, and what to know before."""


@torch.no_grad()
def answer(
    rnp: RNP,
    question: Question,
    method: str = "smc",
    tick: Callable[[], object] | None = None,
    shown: int = SHOWN,
) -> Answer:
    """Answer a question by one engine.

    Args:
        rnp: the model.
        question: the question.
        method: the engine, as `query` takes it.
        tick: called often; an error that it raises ends the query.
        shown: how many samples the answer has.

    Raises:
        ValueError: as `query`.
    """
    any_seen = bool(question.seen.any())
    posterior = query(
        rnp,
        question.image.unsqueeze(0) if any_seen else None,
        given=question.given,
        mask=question.seen if any_seen else None,
        method=method,
        num_samples=question.num_samples,
        steps=question.steps,
        seed=question.seed,
        progress=tick or False,
    )
    return Answer(
        method=method,
        mean=posterior.mean("canvas")[0].cpu(),
        std=posterior.variance("canvas")[0].clamp(min=0).sqrt().cpu(),
        samples=posterior.resample(shown, seed=question.seed)[:, 0].cpu(),
        trusted=bool(posterior.trusted[0]),
        notes=posterior.notes,
    )
