"""Is it the same character? Classification by one example, and more of what one image shows.

Both need a model that has learned what images of a class share: `pyro_rnp.class_model`.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from inference.data.omniglot import shrink
from inference.isolation import frozen
from pyro_rnp import RNP, ParseTree
from pyro_rnp.checks import Images
from pyro_rnp.class_model import type_prior
from pyro_rnp.sites import centre, drawn


@torch.no_grad()
def log_given(
    rnp: RNP,
    tests: Images,
    examples: Images,
    num_samples: int = 100,
    seed: int = 0,
) -> Float[Tensor, "t e"]:
    """Log p(x_test | x_example, they are of one class) - log p(x_test), in nats, of each pair.

    By how much the example makes the test more probable: log E[p(z | z') / p(z)] over programs z
    of the test and z' of the example, each from its posterior, for which the guide stands.

    Args:
        tests: (T, C, H, W) in [0, 1].
        examples: (E, C, H, W) in [0, 1].
        num_samples: of either; 0 takes the means of the posteriors alone.

    Raises:
        ValueError: if the prior does not know what images of a class share, or the images are
            not what the model reads.
    """
    prior = type_prior(rnp)
    tests, examples = rnp.check(tests), rnp.check(examples)
    with frozen(rnp, seed):
        z, known = (  # (S, T, |z|) and (S, E, |z|)
            drawn(q, (num_samples,)) if num_samples else centre(q).unsqueeze(0)
            for q in (rnp.guide.posterior(x) for x in (tests, examples))
        )
        each = [prior.log_like(z, one).logsumexp(-1) for one in known.unbind(1)]
        ratio = torch.stack(each, -1) - prior().log_prob(z).unsqueeze(-1)  # (S, T, E)
    return ratio.logsumexp(0) - 2 * math.log(len(z))


@torch.no_grad()
def exemplars(rnp: RNP, example: Images, num: int, seed: int = 0) -> ParseTree:
    """Trees of new images of the class of one that is given, (1, C, H, W) in [0, 1].

    Raises:
        ValueError: as `log_given`.
    """
    prior = type_prior(rnp)
    example = rnp.check(example)
    with frozen(rnp, seed):
        known = drawn(rnp.guide.posterior(example), (num,))[:, 0]
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
