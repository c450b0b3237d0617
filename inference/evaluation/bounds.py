"""The importance-weighted bound on the evidence of images, and the file that keeps bounds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from inference.data import ImageSet
from inference.isolation import frozen
from inference.outputs import write_json
from inference.run import Run
from inference.traces import trace_both
from pyro_rnp import RNP
from pyro_rnp.checks import Images, observed
from pyro_rnp.contract import DensitiesOnly


@torch.no_grad()
def importance_weighted_bound(
    rnp: RNP,
    images: ImageSet | Images,
    particles: int,
    at_once: int = 250,
    keep: Path | None = None,
) -> Float[Tensor, "n"]:
    """Estimate the importance-weighted bound on log p(x) of each image, in nats.

    The bound is log 1/k sum_i p(x, z_i) / q(z_i | x) with k samples z_i of the guide: in
    expectation at least the ELBO and at most log p(x), which it approaches as k grows.

    Source: Burda et al., "Importance weighted autoencoders", 2016.

    Args:
        rnp: the model and its guide, neither of which is changed.
        images: (N, C, H, W) in [0, 1], or beyond under `pyro.validation_enabled(False)`; or an
            image set, of which a batch at a time becomes floats.
        particles: k, at least 1.
        at_once: samples that are run together; less takes less memory and more time.
        keep: a JSON file of the bounds so far. The function writes it as it goes and begins after
            the bounds that it holds. By default nothing is kept.

    Returns:
        (N,) bounds. Samples come from torch's present random state.

    Raises:
        ValueError: if the images are not what the model reads, or the guide draws a site once for
            all images.
    """
    if not isinstance(images, ImageSet):
        images = observed(images, rnp)
    bounds: list[float] = json.loads(keep.read_text()) if keep and keep.exists() else []
    with frozen(rnp):
        size = max(1, at_once // particles)
        starts = range(len(bounds), len(images), size)
        for start in tqdm(starts, "importance-weighted bound", leave=False, delay=5):
            batch = images[start : start + size]
            x = observed(batch.images if isinstance(batch, ImageSet) else batch, rnp)
            done, total = 0, None
            while done < particles:
                k = min(particles - done, max(1, at_once // len(x)))
                more = _log_weights(rnp, x, k).logsumexp(0)
                total = more if total is None else torch.logaddexp(total, more)
                done += k
            assert total is not None
            bounds += (total - math.log(particles)).tolist()
            if keep:
                write_json(keep, bounds)
    one = images[:1].images if isinstance(images, ImageSet) else images[:1]
    return torch.tensor(bounds, dtype=observed(one, rnp).dtype)


def _log_weights(rnp: RNP, images: Tensor, particles: int) -> Tensor:
    """Log p(x, z) - log q(z | x) at samples z for each image, (particles, N), in nats."""
    with DensitiesOnly(together=True):
        return trace_both(rnp.model, rnp.guide, images, particles=particles).log_weights()


def bounds_file(folder: str | Path, run: str | Path, settings: Sequence[object]) -> Path:
    """Return the file in which `importance_weighted_bound` keeps the bounds of one command.

    Args:
        folder: where it lies; it is made if it does not exist.
        run: the run folder, or the name of shipped weights. Other weights get another file.
        settings: all that the bounds depend on besides, as data set, split and seed; each is part
            of the file's name.
    """
    words = [Run(run).fingerprint, *(re.sub(r"\W", "_", str(word)) for word in settings)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / f"{'-'.join(words)}.json"
