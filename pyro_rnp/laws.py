"""The laws of the contracts of pieces, and `check`, which tries a piece on them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_rnp.affine import inverse_matrix
from pyro_rnp.compositions import Composition
from pyro_rnp.config import PIECES, RNPConfig
from pyro_rnp.contract import METHODS, PYRO, OwnSites, check_object
from pyro_rnp.guides import LowerGuide, TopGuide
from pyro_rnp.likelihoods import Likelihood
from pyro_rnp.model import RNP
from pyro_rnp.params import unowned
from pyro_rnp.placements import Placement
from pyro_rnp.priors import Prior
from pyro_rnp.trials import TRIALS, Given, Trial, unseen

CONTRACTS: dict[str, type] = {
    "prior": Prior,
    "guide": TopGuide,
    "lower_guide": LowerGuide,
    "likelihood": Likelihood,
    "placement": Placement,
    "composition": Composition,
}
"""The abstract class of each kind of piece, by the field that it stands for."""
DENSITIES = ("prior", "guide", "likelihood")
INSIDE = ("lower_guide", "likelihood", "placement", "composition")
"""Kinds of pieces that are called inside of the plate of images."""
SINGLE, DOUBLE = torch.zeros(()), torch.zeros((), dtype=torch.double)
FAR = 4.0
"""Half-widths by which a part is out of sight."""

Law = Callable[[Trial, RNP], None]
LAWS: dict[str, tuple[tuple[str, ...], Law]] = {}
"""Laws by name, in the order in which they are tried: the kinds that they hold for, and a function
that raises a ValueError in one sentence if a piece breaks the law."""


def check(piece: Any, config: RNPConfig | None = None, kind: str | None = None) -> Any:
    """Try a piece of one's own on the laws of its contract.

    A copy of the piece is called on few small made images; the piece itself, the random state and
    Pyro's parameter store stay as they are. `RNP(config, prior=...)` looks at the shapes alone.

    >>> import pyro.distributions as dist
    >>> class Narrow(Prior):
    ...     def __init__(self, size):
    ...         super().__init__()
    ...         self.scale = torch.nn.Parameter(torch.full((size,), 0.5))
    ...     def forward(self):
    ...         return dist.Normal(torch.zeros(3), self.scale).to_event(1)
    >>> config = RNPConfig(image_size=8, patch_size=4, steps=(2,), program_size=3)
    >>> check(Narrow(3), config)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: The prior Narrow must follow the model's device: on another device than the CPU ...

    Args:
        piece: an object, as `RNP` takes it, which `copy.deepcopy` can copy; or text that names a
            piece, as `mixture:components=3`.
        config: the model's; by default `RNPConfig()`, which has 28x28 grey images and |z| = 32.
        kind: the argument of `RNP` that takes the piece: `prior`, `guide`, `lower_guide`,
            `likelihood`, `placement` or `composition`. By default the piece's base class or its
            methods say which; text needs it.

    Returns:
        The piece, which is good; of text the piece that it names.

    Raises:
        ValueError: in one sentence that says which law is broken, and what the piece gave.
    """
    config = RNPConfig() if config is None else config
    kind = kind_of(piece) if kind is None else kind
    if kind not in CONTRACTS:
        raise ValueError(f"kind must be one of {', '.join(CONTRACTS)}, got {kind!r}.")
    if isinstance(piece, str):
        piece = PIECES[kind].make(piece, config)
    found = broken(piece, config, kind)
    if found is not None:
        raise ValueError(found[1]) from found[2]
    return piece


def kind_of(piece: Any) -> str:
    """The kind of a piece, from its base class or its methods.

    Args:
        piece: the object.

    Returns:
        A key of `CONTRACTS`.

    Raises:
        ValueError: if it is text, a class or nothing that could be a piece.
    """
    for kind, base in CONTRACTS.items():
        if isinstance(piece, base):
            return kind
    if isinstance(piece, str | type):
        what = f"the class {piece.__name__}" if isinstance(piece, type) else f"the text {piece!r}"
        raise ValueError(f"check takes an object, or text with a kind, got {what}.")
    for kind in ("guide", "lower_guide", "placement", "composition"):
        if all(hasattr(piece, method) for method in METHODS[kind]):
            return kind
    if isinstance(piece, nn.Module) and type(piece).forward is not nn.Module.forward:
        parameters = inspect.signature(piece.forward).parameters.values()
        needed = [p for p in parameters if p.default is p.empty and p.kind in (0, 1)]
        return "likelihood" if needed else "prior"
    raise ValueError(
        f"It is not clear which kind of piece {type(piece).__name__} is; say kind= one of "
        f"{', '.join(CONTRACTS)}."
    )


def broken(
    piece: Any, config: RNPConfig, kind: str
) -> tuple[str, str, BaseException | None] | None:
    """The first law that a piece breaks.

    Args:
        piece: the object.
        config: the model's.
        kind: a key of `CONTRACTS`.

    Returns:
        The law's name, the sentence, and the error behind it; None if the piece is good.
    """
    name = "object"
    with PYRO, unseen(), torch.enable_grad():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed devices too
        try:
            check_object(kind, piece)
            name = "copy"
            copied = _copied(piece, kind)
            name = "call"
            rnp = RNP(config, "check", **{kind: copied})
            rnp.eval()
            trial = TRIALS[kind](rnp.pieces()[kind], config)
            for name, (kinds, law) in LAWS.items():  # noqa: B007 (the error is of this law)
                if kind in kinds:
                    with pyro.get_param_store().scope(unowned()):  # of pieces that are PyroModules
                        law(trial, rnp)
        except ValueError as error:
            return name, str(error), error.__cause__
    return None


def _copied(piece: Any, kind: str) -> Any:
    try:
        copied = deepcopy(piece)
    except Exception as error:
        raise ValueError(
            f"The {kind.replace('_', ' ')} {type(piece).__name__} must be one that copy.deepcopy "
            f"copies: a tensor that was computed from parameters is computed anew in each call, "
            f"not kept; got {type(error).__name__}: {' '.join(str(error).split())[:100]}"
        ) from error
    if isinstance(copied, nn.Module):
        copied.zero_grad()
    return copied


def _law(name: str, *kinds: str) -> Callable[[Law], Law]:
    def named(law: Law) -> Law:
        LAWS[name] = (kinds, law)
        return law

    return named


def _seed(seed: int = 0) -> None:
    torch.default_generator.manual_seed(seed)


def _run(trial: Trial, given: Given) -> dict[str, Tensor]:
    """Values of a call with one seed."""
    found = trial.tried(given)
    _seed()
    return trial.values(found)


@_law("shape", *CONTRACTS)
def _shape(trial: Trial, rnp: RNP) -> None:
    for n in (1, 3):
        trial.once(n)
    if trial.field == "likelihood":  # vectorised particles
        given = trial.given(3, SINGLE)
        given = {name: value.expand(2, *value.shape) for name, value in given.items()}
        trial.check(given, trial.tried(given))


@_law("plate", *INSIDE)
def _plate(trial: Trial, rnp: RNP) -> None:
    given = trial.given(2, SINGLE)
    with pyro.plate("images", 2, dim=-1), OwnSites():
        trial.call(given)


@_law("names", *DENSITIES)
def _names(trial: Trial, rnp: RNP) -> None:
    trace = poutine.trace(trial.call).get_trace(trial.given(2, SINGLE))
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and (OwnSites.own.fullmatch(name) or name == "images"):
            raise ValueError(
                f"The {trial} must not draw the model's own site {name!r}; give its distribution "
                "back, and name another latent otherwise."
            )


@_law("density", *DENSITIES)
def _scored(trial: Trial, rnp: RNP) -> None:
    trial.values(trial.tried(trial.given(2, SINGLE)))


@_law("arguments", *CONTRACTS)
def _arguments(trial: Trial, rnp: RNP) -> None:
    given = trial.given(2, SINGLE)
    before = {name: value.clone() for name, value in given.items()}
    trial.values(trial.tried(given))
    for name, value in given.items():
        if not torch.equal(value, before[name]):
            raise ValueError(
                f"The {trial} must leave its arguments as they are, but changed {name} in place."
            )


@_law("finite", *CONTRACTS)
def _finite(trial: Trial, rnp: RNP) -> None:
    for name, value in _run(trial, trial.given(3, SINGLE)).items():
        if not value.isfinite().all():
            raise ValueError(
                f"The {trial} must give finite numbers, got {_odd(value)} for {name}"
                f"{' of its own sample' * (name == 'log_prob')}."
            )


def _odd(value: Tensor) -> float:
    return float(value.detach()[~value.isfinite()].flatten()[0])


@_law("range", "lower_guide", "placement", "composition")
def _range(trial: Trial, rnp: RNP) -> None:
    for name, value in _run(trial, trial.given(3, SINGLE)).items():
        low, high = float(value.detach().min()), float(value.detach().max())
        if name.endswith("deviation") and low <= 0:
            raise ValueError(f"The {trial}: {name} must be positive, got {low:.3g}.")
        if name in ("patch", "cover", "shares") and (low < 0 or high > 1):
            raise ValueError(
                f"The {trial}: {name} must lie in [0, 1], got values from {low:.3g} to {high:.3g}."
            )


@_law("outside", "placement")
def _outside(trial: Trial, rnp: RNP) -> None:
    given = trial.given(2, SINGLE)
    away = torch.tensor([0.3, 0.3, 0.0, 0.0, FAR, 0.0]).expand(2, -1)
    found = trial.tried({**given, "to_source": inverse_matrix(away)})
    for name in found.keys() & {"canvas", "cover", "leaf"}:
        if found[name].abs().max() > 0:
            raise ValueError(
                f"The {trial}: {name} must be 0 outside of the patch's frame, got "
                f"{float(found[name].detach().abs().max()):.3g} of a patch far beyond the canvas."
            )


@_law("moments", "likelihood")
def _moments(trial: Trial, rnp: RNP) -> None:
    found = trial.call(trial.given(2, SINGLE))
    try:
        mean, possible = found.mean, found.support.check(found())
    except (NotImplementedError, AttributeError) as error:
        raise ValueError(
            f"The {trial} must give a distribution with a mean, the image that the model expects, "
            f"and a support; {type(found).__name__} has not both."
        ) from error
    trial.wants("the mean", mean, (2, *trial.shape))
    if not possible.all():
        raise ValueError(f"The {trial} must give samples in its own support.")


@_law("missing", "guide", "likelihood")
def _missing(trial: Trial, rnp: RNP) -> None:
    given = trial.given(2, SINGLE)
    if trial.field == "likelihood":
        canvas = given["canvas"].requires_grad_()
        try:
            density = trial.of_seen(given)  # type: ignore[attr-defined]
        except ValueError as error:
            raise ValueError(
                f"The {trial} must take 0 at missing pixels, of which the density is left out; it "
                f"raised {' '.join(str(error).split())[:200]}"
            ) from error
        if density is None:
            return
        values = [density]
        if density.requires_grad:
            values += [g for g in torch.autograd.grad(density.sum(), [canvas], allow_unused=True)
                       if g is not None]  # fmt: skip
    elif getattr(trial.piece, "sees_missing", False):
        given["images"][..., ::2] = torch.nan
        values = list(_run(trial, given).values())
    else:
        return
    for value in values:
        if not value.isfinite().all():
            raise ValueError(
                f"The {trial} must leave out missing pixels, but gave {_odd(value)} of images in "
                "which some are missing."
            )


@contextmanager
def _in_double(rnp: RNP) -> Iterator[None]:
    rnp.double()
    try:
        yield
    finally:
        rnp.float()


@_law("precision", *CONTRACTS)
def _precision(trial: Trial, rnp: RNP) -> None:
    with _in_double(rnp):
        found = trial.values(trial.once(2, DOUBLE))
    for name, value in found.items():
        if value.dtype != torch.double and name != "blank":
            raise ValueError(
                f"The {trial} must follow the model's precision: in float64 {name} is {value.dtype}"
                "; make constants by register_buffer, or like a parameter or an argument."
            )


@_law("deterministic", *CONTRACTS)
def _deterministic(trial: Trial, rnp: RNP) -> None:
    given = trial.given(2, DOUBLE)
    if not _draws(trial) and (name := _differ(trial, rnp, given, given)):
        raise ValueError(
            f"The {trial} must give the same for the same arguments, but gave another {name} the "
            "second time; draw random numbers by pyro.sample, or once in __init__."
        )


@_law("alone", "guide", "lower_guide", "likelihood", "placement", "composition")
def _alone(trial: Trial, rnp: RNP) -> None:
    given = trial.given(3, DOUBLE)
    if _draws(trial):
        return
    dim = 1 if trial.field == "composition" else 0
    one = {name: value.narrow(dim, 0, 1) for name, value in given.items()}
    if name := _differ(trial, rnp, given, one):
        raise ValueError(
            f"The {trial} must treat each image by itself, but {name} of an image differs when "
            "others stand beside it."
        )


def _draws(trial: Trial) -> bool:
    """Whether a piece draws sites of its own."""
    nodes = poutine.trace(trial.call).get_trace(trial.given(2, SINGLE)).nodes.values()
    return any(site["type"] == "sample" for site in nodes)


def _density(found: Any, sample: Tensor) -> dict[str, Tensor]:
    """What is compared of a distribution; of a point, which has no density, the point."""
    if isinstance(found, dist.Delta):
        return {"the point": found.v}
    return {"log_prob": found.log_prob(sample)}


def _differ(trial: Trial, rnp: RNP, given: Given, other: Given) -> str | None:
    """What differs for the first image of two calls in evaluation mode; None if nothing does."""
    with torch.no_grad(), _in_double(rnp):
        _seed(1)
        first = trial.tried(given)
        _seed(2)
        second = trial.tried(other)
        if trial.field in DENSITIES:
            sample = first()
            values = _density(first, sample)
            few = sample[: second.batch_shape[-1]] if second.batch_shape else sample
            others = _density(second, few)
        else:
            values, others = trial.values(first), trial.values(second)
    dim = 1 if trial.field == "composition" else 0
    for (name, a), b in zip(values.items(), others.values(), strict=True):
        if a.ndim > dim:  # the first image; of siblings, the first of the first
            a, b = a.narrow(dim, 0, 1), b.narrow(dim, 0, 1)
        if not torch.allclose(a, b, rtol=1e-6, atol=1e-6):
            return name
    return None


@_law("registered", *CONTRACTS)
def _registered(trial: Trial, rnp: RNP) -> None:
    known = set(rnp.parameters())
    for name, value in _run(trial, trial.given(2, SINGLE)).items():
        for leaf in _leaves(value) - known:
            raise ValueError(
                f"The {trial} must compute with parameters that its module has, but {name} depends "
                f"on another tensor of shape {tuple(leaf.shape)} that requires gradients, which "
                "would be neither trained nor saved; make it a torch.nn.Parameter, and a list of "
                "modules a torch.nn.ModuleList."
            )


def _leaves(value: Tensor) -> set[Tensor]:
    """The tensors at which the gradient of a value ends."""
    found, seen, left = set(), set(), [value.grad_fn]
    if value.grad_fn is None:
        return {value} if value.requires_grad else set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.add(leaf)
        left += [after for after, _ in node.next_functions]
    return found


@_law("gradient", *CONTRACTS)
def _gradient(trial: Trial, rnp: RNP) -> None:
    module = trial.piece if isinstance(trial.piece, nn.Module) else nn.Module()
    elsewhere = getattr(trial.piece, "trained_elsewhere", ())
    parameters = {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and name not in elsewhere
    }
    rnp.train()
    values = _run(trial, trial.given(3, SINGLE)).values()
    rnp.eval()
    reached = [value.sum() for value in values if value.requires_grad]
    found: tuple[Tensor | None, ...] = (None,) * len(parameters)
    if reached and parameters:
        total = torch.stack(reached).sum()
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, found, strict=True):
        if gradient is None:
            raise ValueError(
                f"The {trial} must pass a gradient to each of its parameters, but {name} gets none "
                "from what it gives; freeze it by requires_grad_(False), or name it in the piece's "
                "trained_elsewhere if another term trains it."
            )
        if not gradient.isfinite().all():
            raise ValueError(
                f"The {trial} must have finite gradients, got {_odd(gradient)} for {name}."
            )


@_law("differentiable", "likelihood", "placement")
def _differentiable(trial: Trial, rnp: RNP) -> None:
    given = {k: v.requires_grad_() for k, v in trial.given(2, SINGLE).items()}
    found = trial.tried(given)
    wanted = {"canvas": "log_prob"}
    if trial.field == "placement":
        wanted = {"pixels": "canvas", "to_source": "canvas", "appearance": "patch"}
    values = trial.values(found)
    for argument, name in wanted.items():
        value, gradient = values[name], None
        if value.requires_grad:
            gradient = torch.autograd.grad(
                value.sum(), given[argument], retain_graph=True, allow_unused=True
            )[0]
        if gradient is None or not gradient.isfinite().all():
            got = "none" if gradient is None else f"{_odd(gradient)}"
            raise ValueError(
                f"The {trial} must pass a finite gradient from {name} to {argument}, got {got}."
            )


@_law("device", *CONTRACTS)
def _device(trial: Trial, rnp: RNP) -> None:
    """On the device `meta`, which has shapes and no numbers, so that no other machine is needed."""
    rnp.float().to("meta")
    given, wrong = trial.given(2, torch.zeros((), device="meta")), None
    with pyro.validation_enabled(False):  # there are no numbers to validate
        try:
            for name, value in trial.values(trial.call(given)).items():
                if value.device.type != "meta" and name != "blank":
                    wrong = f"{name} is on {value.device} when the model is elsewhere"
        except Exception as error:  # of other kinds: numbers that meta has not
            text = str(error)
            if "device" in text and ("expected" in text.lower() or "same" in text):
                wrong = "on another device than the CPU it mixes tensors of both"
    if wrong is not None:
        raise ValueError(
            f"The {trial} must follow the model's device: {wrong}; make constants by "
            "register_buffer, or like a parameter or an argument."
        )
