"""One-shot classification, and new exemplars of a class from one image of it.

Classification needs a model with a prior of classes (`pyro_rnp.class_model`), trained on several
images of each class at once. Exemplars need that or, for any model, images with labels.
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

from inference.data import ImageSet
from inference.data.omniglot import shrink
from inference.isolation import frozen
from inference.posterior import intervene
from pyro_rnp import RNP, ParseTree
from pyro_rnp.arguments import whole, within
from pyro_rnp.checks import Images
from pyro_rnp.class_model import type_prior
from pyro_rnp.sites import centre, drawn

RUNS = "https://github.com/brendenlake/omniglot/tree/master/python/one-shot-classification"
"""Where the file of the 20 runs of one-shot classification is published."""


@torch.no_grad()
def class_log_likelihood(
    rnp: RNP,
    tests: Images,
    examples: Images,
    num_samples: int = 0,
    seed: int = 0,
) -> Float[Tensor, "t e"]:
    """The gain in log-likelihood of tests by an example of their class, in nats.

    For each pair this is log p(x_test | x_example, both of one class) - log p(x_test), estimated
    as log E[p(z | z') / p(z)] over programs z of the test and z' of the example, which the guide
    draws in place of their posteriors. The prior of classes knows no order of two images, so this
    is also log p(x_example | x_test, both of one class) - log p(x_example): scores of both
    directions are one score.

    Args:
        rnp: a model with a prior of classes.
        tests: (T, C, H, W) in [0, 1].
        examples: (E, C, H, W) in [0, 1].
        num_samples: programs of each image; 0 takes the guide's centre alone, of which a prior with
            a contrast learned what classes share.
        seed: seed of the programs.

    Returns:
        (T, E) gains; the largest of a row names the example of the test's class.

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
def within_class_covariance(rnp: RNP, data: ImageSet) -> Float[Tensor, "z z"]:
    """The covariance of the centres of q(z^K | x) within classes, pooled over the classes.

    Source: the within-class scatter of linear discriminant analysis (Fisher, 1936), divided by the
    number of images minus that of classes.

    Args:
        rnp: the model.
        data: images with the labels of their classes, as `load_data("omniglot").train`.

    Raises:
        ValueError: if there are fewer than two classes, no class has two images, or the images are
            not what the model reads.
    """
    _, label, counts = data.labels.unique(return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError(
            f"How images vary within a class is read from labelled classes of two images or more; "
            f"{len(data)} images of {len(counts)} classes do not say it."
        )
    with frozen(rnp):
        batches = [data[i : i + 500].images for i in range(0, len(data), 500)]
        z = torch.cat([centre(rnp.guide.posterior(rnp.check(x))) for x in batches])
    label, counts = label.to(z.device), counts.to(z.device)
    means = z.new_zeros(len(counts), z.shape[1]).index_add_(0, label, z) / counts.unsqueeze(1)
    apart = z - means[label]
    return apart.mT @ apart / (len(z) - len(counts))


@torch.no_grad()
def exemplars(
    rnp: RNP,
    example: Images,
    num: int,
    seed: int = 0,
    covariance: Float[Tensor, "z z"] | None = None,
    spread: float = 0.5,
) -> ParseTree:
    """Draw trees of new images of the class of one image.

    With a covariance, the program of the example's parse varies by it, and all that its parts
    deviate from what that program predicts stays: a counterfactual, as `intervene` runs it. So a
    model with random levels keeps the example's strokes. Without one, programs are drawn from the
    predictive distribution of a prior of classes.

    Args:
        rnp: any model with a covariance, else one with a prior of classes.
        example: (1, C, H, W) in [0, 1].
        num: images to draw.
        seed: seed of all that is drawn.
        covariance: how programs vary within a class, (|z|, |z|), as `within_class_covariance` gives
            it; None: as the prior says.
        spread: with a covariance, how far programs vary, in its standard deviations, 0 or more. At
            1 they vary as those of a class do, but in straight lines, on which other characters
            lie; with less, more images are of the class, and they are more alike. By default half.

    Raises:
        TypeError: if `num` is no whole number, or the spread no number.
        ValueError: without a covariance, as `class_log_likelihood`; or if the example is not one
            image that the model reads; or the spread is negative.
    """
    whole(1, num=num)
    within(0, spread=spread)
    example = rnp.check(example)
    if len(example) != 1:
        raise ValueError(f"Exemplars are drawn of one image, got {len(example)}.")
    if covariance is None:
        prior = type_prior(rnp)
        with frozen(rnp, seed):
            known = drawn(rnp.guide.posterior(example), (num,))[:, 0]
            return rnp.model.run(prior.like(known).sample())
    tree = rnp.parse(example.expand(num, -1, -1, -1))
    variances, axes = torch.linalg.eigh(covariance.to(tree.program))
    with frozen(rnp, seed):
        noise = torch.randn_like(tree.program) * variances.clamp(min=0).sqrt() * spread
    return intervene(rnp, tree, {"z": tree.program + noise @ axes.mT})


@dataclass(frozen=True)
class Episode:
    """One episode of one-shot classification: an example of each of E classes, and T tests."""

    tests: Float[Tensor, "t c h w"]
    examples: Float[Tensor, "e c h w"]
    truth: Int[Tensor, "t"]
    """The example that is of each test's class."""


def read_episodes(path: str | Path) -> list[Episode]:
    """Read the 20 episodes of Omniglot's one-shot classification, at 28x28.

    Args:
        path: `all_runs.zip` as it is published, see `RUNS`.

    Returns:
        Episodes of 20 classes within one alphabet, with intensities in [0, 1].

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another file, or damaged.

    Source: Lake, Salakhutdinov and Tenenbaum (2015), Science 350(6266).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if n.endswith("class_labels.txt"))
            if not names:
                raise KeyError("it holds no class_labels.txt")
            return [_episode(archive, name) for name in names]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; get all_runs.zip from {RUNS}.") from None
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not Omniglot's all_runs.zip: {error}.") from error


def _episode(archive: zipfile.ZipFile, labels: str) -> Episode:
    pairs = [line.split() for line in archive.read(labels).decode().splitlines() if line.strip()]
    examples = sorted({example for _, example in pairs})

    def images(names: list[str]) -> Tensor:
        opened = [Image.open(io.BytesIO(archive.read(name))).convert("1") for name in names]
        ink = torch.from_numpy(np.stack([~np.asarray(image) for image in opened]))
        return shrink(ink.unsqueeze(1))

    truth = torch.tensor([examples.index(example) for _, example in pairs])
    return Episode(images([test for test, _ in pairs]), images(examples), truth)
