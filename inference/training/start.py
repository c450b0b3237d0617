"""Begin with the weights of another run, also where a piece was exchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import fields
from typing import Literal

from inference.run import Run
from pyro_rnp import RNP

PARTS = {
    "model.prior": "prior",
    "model.likelihood": "likelihood",
    "model.recursion.renderer": "placement",
    "model.recursion": "program",
    "model.scales": "scales of random sites",
    "guide.top": "guide",
    "guide.lower": "lower guide",
    "guide.masked": "masked guide",
}
"""The piece of a model's parameters, by the first words of their names."""


def begin(rnp: RNP, first: Run) -> tuple[list[str], str]:
    """Put the weights of another run into a model, as far as they have its names and shapes.

    Args:
        rnp: the model, changed in place.
        first: the other run.

    Returns:
        The names of the model's parameters that begin anew, and a sentence that tells which pieces
        these belong to and which of the other run are left out; "" where the models are alike.

    Raises:
        FileNotFoundError, ValueError: as `Run.load_weights`; ValueError if nothing fits.
    """
    new, left = first.load_weights(rnp, partial=True)
    before, now = first.model_config, rnp.config
    pairs = {f.name: (getattr(before, f.name), getattr(now, f.name)) for f in fields(now)}
    other = [f"{name} {old}, here {own}" for name, (old, own) in pairs.items() if old != own]
    if not (other or new or left):
        return [], ""
    return new, (
        f"Weights of {first.path} are taken where they fit ({'; '.join(other) or 'same fields'}). "
        f"New: {_pieces(new, rnp.state_dict())}. Left out: {_pieces(left, left)}."
    )


def freeze(rnp: RNP, learn: Literal["all", "guide", "prior", "new"], new: Collection[str]) -> None:
    """Let a model learn only some of its parameters.

    Args:
        rnp: the model.
        learn: `TrainConfig.learn`.
        new: the names of the parameters that `begin` did not find.

    Raises:
        ValueError: if what is new is to learn and nothing is, or the prior and it has no parameter.
    """
    if learn == "new" and not new:
        raise ValueError(
            "learn must be all or guide, since no parameter of this model is new: the run that it "
            "starts from has them all."
        )
    stays = {
        "all": lambda name: False,
        "guide": lambda name: name.startswith("model."),
        "prior": lambda name: not name.startswith("model.prior."),
        "new": lambda name: name not in new,
    }[learn]
    kept = [parameter for name, parameter in rnp.named_parameters() if stays(name)]
    if learn == "prior" and len(kept) == len(list(rnp.parameters())):
        raise ValueError(
            f"The prior {rnp.config.prior} has nothing to learn; choose another, as --prior flow."
        )
    for parameter in kept:
        parameter.requires_grad_(False)


def _pieces(names: Iterable[str], every: Iterable[str]) -> str:
    """The pieces that some parameters belong to, with how many of them where it is not all.

    >>> _pieces(["model.prior.a", "guide.top.a"], ["model.prior.a", "guide.top.a", "guide.top.b"])
    'prior, guide (1 of 2 tensors)'
    """
    some, all_ = (Counter(map(_piece, each)) for each in (names, every))
    whole = {piece: some[piece] == all_[piece] for piece in some}
    return (
        ", ".join(
            piece if whole[piece] else f"{piece} ({some[piece]} of {all_[piece]} tensors)"
            for piece in some
        )
        or "nothing"
    )


def _piece(name: str) -> str:
    return next((piece for start, piece in PARTS.items() if name.startswith(f"{start}.")), name)
