"""Python lines that give what a session has."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inference.explore.images import png
from inference.explore.models import has_masked_guide
from inference.explore.questions import SHOWN, Question

SOURCES = {
    "inference.explore": ("images_for", "nearest_parts", "open_image"),
    "inference.posterior": ("intervene", "query"),
    "pyro_rnp": ("load",),
}
"""Functions that lines call, by the package from which they import them."""


def with_imports(lines: list[str]) -> str:
    """Return a text of lines, after the imports that they need.

    Args:
        lines: the lines.
    """
    body = "\n".join(lines)
    head = ["import base64", ""]
    head += ["import torch", ""] if "torch." in body else []
    for package, names in SOURCES.items():
        called = [name for name in names if f"{name}(" in body]
        head += [f"from {package} import {', '.join(called)}"] if called else []
    return "\n".join([*head, *lines]) + "\n"


def lines_of_model(name: str) -> list[str]:
    """Return lines that define `rnp`.

    Args:
        name: of a pretrained model, or a run folder.
    """
    masked = ", masked_guide=True" if has_masked_guide(name) else ""
    return ["", f"rnp = load({name!r}{masked})"]


def lines_of_image(name: str, image: Float[Tensor, "c s s"]) -> list[str]:
    """Return lines that define an image.

    Args:
        name: the variable.
        image: its pixels, multiples of 1/255.
    """
    stored = textwrap.wrap(base64.b64encode(png(image)).decode(), 92)
    begin = ["", f"{name} = open_image(base64.b64decode("]
    return [*begin, *(f'    "{some}"' for some in stored), "), rnp.config, invert=False)"]


def lines_of_images(model: str | None, given: Mapping[str, str]) -> list[str]:
    """Return lines that define `images`.

    Args:
        model: its name; None where it is `rnp` alone.
        given: further arguments of `images_for`.
    """
    source = "rnp" if model is None else repr(model)
    more = "".join(f", {name}={value!r}" for name, value in given.items())
    return ["", f"images = images_for({source}{more})"]


def lines_of_sites(values: Mapping[str, Tensor]) -> str:
    """Return tensors by site as Python text.

    Args:
        values: (d,) each.
    """
    texts = []
    for name, value in values.items():
        double = ", dtype=torch.float64" if value.dtype == torch.float64 else ""
        texts.append(f'"{name}": torch.tensor({value.tolist()}{double})')
    return "{" + ", ".join(texts) + "}"


def lines_of_question(question: Question, method: str) -> list[str]:
    """Return lines that define `posterior` and `samples`, for `rnp` and `image`.

    Args:
        question: the question.
        method: the engine that answers it.
    """
    lines = [""]
    arguments = [f"method={method!r}, num_samples={question.num_samples}, steps={question.steps}"]
    if question.seen.any():
        lines += ["seen = torch.tensor([[int(pixel) for pixel in row] for row in ("]
        lines += [f'    "{row}",' for row in rows_of(question.seen)]
        lines += [")]).bool()"]
        arguments = ["image.unsqueeze(0), mask=seen", *arguments]
    arguments += [f"given={lines_of_sites(question.given)}"] if question.given else []
    arguments += [f"seed={question.seed}"]
    lines += ["posterior = query(", f"    rnp, {', '.join(arguments)},", ")"]
    return [*lines, f"samples = posterior.resample({SHOWN}, seed={question.seed})[:, 0]"]


def rows_of(mask: Bool[Tensor, "s s"]) -> list[str]:
    """Return a mask as text, a row a line.

    Args:
        mask: true is 1.
    """
    return ["".join(map(str, row)) for row in mask.int().tolist()]
