"""Is it the same character? Classification by one example, and more of what one image shows.

Both need a model that has learned what images of a class share: `inference.classes`.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from inference.classes import types
from inference.data import shrink
from inference.evaluation import log_weights
from inference.objectives import latent
from inference.target import at_rest
from pyro_rnp import RNP, ParseTree
from pyro_rnp.priors import Types

AT_ONCE = 2000
"""Images that are run together."""


@torch.no_grad()
def log_given(
    rnp: RNP,
    tests: Float[Tensor, "t c h w"],
    examples: Float[Tensor, "e c h w"],
    num_samples: int = 100,
    seed: int = 0,
) -> Float[Tensor, "t e"]:
    """Log p(x_test | x_example, they are of one class), in nats, of each test and example.

    p(x_test | x_example) = E[p(x_test | z) p(z | z_example) / q(z | x_test)], over z of the guide
    of the test and z_example of that of the example, which stands for its posterior.

    Args:
        num_samples: of either.

    Raises:
        ValueError: if the prior does not know what images of a class share, or the images are
            not what the model reads.
    """
    prior = types(rnp)
    rnp.check(tests)
    rnp.check(examples)
    with at_rest(rnp, seed):
        known = _programs(rnp, examples, num_samples)[0]  # (S, E, |z|)
        z, weights = _programs(rnp, tests, num_samples)  # (S, T, |z|), (S, T)
        weights = weights - rnp.model.prior().log_prob(z)
        given = torch.stack([_mean_density(prior, z, one) for one in known.unbind(1)], -1)
    return (weights.unsqueeze(-1) + given).logsumexp(0) - math.log(num_samples)


def classify(
    rnp: RNP,
    tests: Float[Tensor, "t c h w"],
    examples: Float[Tensor, "e c h w"],
    num_samples: int = 100,
    seed: int = 0,
) -> Int[Tensor, "t"]:
    """The example of whose class each test most probably is; see `log_given`."""
    return log_given(rnp, tests, examples, num_samples, seed).argmax(1)


def _programs(rnp: RNP, images: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Programs of the guide, (num, N, |z|), and log p(x, all) - log q(all | x) of each."""
    drawn, weights = [], []
    for k in torch.arange(num).split(max(1, AT_ONCE // len(images))):
        guide, values = log_weights(rnp, images.to(rnp.device).repeat(len(k), 1, 1, 1))
        drawn.append(latent(guide)["z"]["value"].unflatten(0, (len(k), -1)))
        weights.append(values.unflatten(0, (len(k), -1)))
    return torch.cat(drawn), torch.cat(weights)


def _mean_density(prior: Types, z: Tensor, known: Tensor) -> Tensor:
    """The log of the mean of p(z | known) over the known programs, (S, |z|): (S, T)."""
    like = prior.like(known)
    base: Any = like.base_dist  # type: ignore[attr-defined]
    scaled = (z / base.scale[0]).flatten(0, -2), base.loc / base.scale[0]
    far = torch.cdist(*scaled).square() / 2
    constant = base.scale[0].log().sum() + z.shape[-1] * math.log(2 * math.pi) / 2
    return ((-far).logsumexp(1) - math.log(len(known)) - constant).view(z.shape[:-1])


@torch.no_grad()
def exemplars(rnp: RNP, example: Float[Tensor, "1 c h w"], num: int, seed: int = 0) -> ParseTree:
    """Trees of new images of the class of one that is given.

    Raises:
        ValueError: as `log_given`.
    """
    prior = types(rnp)
    rnp.check(example)
    with at_rest(rnp, seed):
        known = rnp.guide.posterior(example.to(rnp.device)).sample((num,))[:, 0]
        return rnp.model.run(prior.like(known).sample())


@dataclass(frozen=True)
class Run:
    """One run of a one-shot task: examples of C classes, one of each, and tests."""

    tests: Float[Tensor, "t c h w"]
    examples: Float[Tensor, "e c h w"]
    truth: Int[Tensor, "t"]
    """Which example is of each test's class."""


def read_runs(path: str | Path) -> list[Run]:
    """The 20 runs of Omniglot's one-shot classification (Lake et al., 2015), at 28x28.

    Args:
        path: `all_runs.zip` as it is published.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another file, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if n.endswith("class_labels.txt"))
            if not names:
                raise KeyError("it holds no class_labels.txt")
            return [_run(archive, name) for name in names]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; it is Omniglot's all_runs.zip.") from None
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not Omniglot's all_runs.zip: {error}.") from error


def _run(archive: zipfile.ZipFile, labels: str) -> Run:
    pairs = [line.split() for line in archive.read(labels).decode().splitlines() if line.strip()]
    examples = sorted({example for _, example in pairs})

    def images(names: list[str]) -> Tensor:
        opened = [Image.open(io.BytesIO(archive.read(name))).convert("1") for name in names]
        ink = torch.from_numpy(np.stack([~np.asarray(image) for image in opened]))
        return shrink(ink.unsqueeze(1))

    truth = torch.tensor([examples.index(example) for _, example in pairs])
    return Run(images([test for test, _ in pairs]), images(examples), truth)
