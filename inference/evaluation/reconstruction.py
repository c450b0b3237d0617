"""Squared errors by level, and the shares of parts in a reconstruction (the paper's figure 3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from inference.data import ImageSet
from inference.evaluation.metrics import baselines, check_images, without_labels
from inference.isolation import frozen
from pyro_rnp import RNP, ParseTree
from pyro_rnp.affine import warp
from pyro_rnp.checks import Images, as_images
from pyro_rnp.missing import error


def expected(tree: ParseTree, depth: int) -> Float[Tensor, "n c s s"]:
    """Compose an image of the parents' own decodings of the parts at a depth.

    A parent's decoding predicts the whole image in the part's frame, as in the paper's equation
    (1), so where frames overlap the image has the mean of their decodings, and 0 outside of all.

    Args:
        tree: parses of N images.
        depth: 1 for the parts, 2 for the sub-parts.

    Returns:
        (N, C, S, S), an image as its program expects it before these parts run.
    """
    parts, size = tree.nodes(depth), tree.canvas.shape[-1]
    decodings = torch.stack([part.decoding for part in parts if part.decoding is not None], 1)
    maps = tree.matrices(depth)
    linear = torch.linalg.inv(maps[..., :2])
    to_source = torch.cat([linear, -linear @ maps[..., 2:]], -1).flatten(0, 1)

    def drawn(patches: Tensor) -> Tensor:
        shown = warp(patches.flatten(0, 1), to_source, size)
        return shown.unflatten(0, patches.shape[:2]).sum(1)

    return drawn(decodings) / drawn(torch.ones_like(decodings)).clamp(min=1)


@torch.no_grad()
def reconstruction_metrics(
    rnp: RNP,
    images: ImageSet | Images,
    batch_size: int = 500,
    seed: int = 0,
    train: ImageSet | None = None,
) -> dict[str, float | list[float]]:
    """Measure how the levels and parts of parses explain images, from one posterior sample each.

    Args:
        rnp: the model.
        images: (N, C, H, W) in [0, 1], NaN where a pixel is missing, which counts in no error; or
            an image set.
        batch_size: images parsed at once.
        seed: seed of the posterior samples.
        train: the training images; their mean image is scored on the same images as the model.

    Returns:
        `sse_level_K` the squared error of an image, summed over pixels, of the whole program, and
        `sse_level_k`, k < K, as the parents of the parts after k levels expect it, see `expected`.
        `explained_by_step` the share of the images' squared intensity that each step of
        the top program explains beyond those before it; they add up to what the canvas explains.
        `overlap` the share of intensity that lies where another part has more: 0 where parts are
        apart, not a number where nothing is drawn.
        A flat program has `sse_level_0` alone of these. Beside them stands what takes no model,
        see `inference.evaluation.metrics.baselines`.

    Raises:
        ValueError: if the images are not what the model reads.
    """
    data = images if isinstance(images, ImageSet) else without_labels(rnp.check(images))
    check_images(rnp, data)
    depth = rnp.config.depth
    errors = dict.fromkeys(range(min(1, depth), depth + 1), 0.0)
    steps = torch.zeros(rnp.config.steps[0])
    power = intensity = covered = 0.0
    with frozen(rnp, seed):
        for batch in data.split(batch_size):
            x = as_images(batch.images, rnp, look=False)
            tree = rnp.parse(x, sample=True)
            for k in errors:
                canvas = tree.canvas if k == depth else expected(tree, k)
                errors[k] += float(error(canvas, x).square().sum())
            if not depth:
                continue
            shares = tree.contributions(1)
            so_far = torch.cat([torch.zeros_like(shares[:, :1]), shares.cumsum(1)], 1)
            left = error(so_far, x.unsqueeze(1)).square().sum((0, 2, 3, 4))
            steps += (left[:-1] - left[1:]).cpu()
            power += float(x.square().nansum())
            intensity += float(shares.sum())
            covered += float((shares.sum(1) - shares.amax(1)).sum())
    found: dict[str, float | list[float]] = {
        f"sse_level_{k}": value / len(data) for k, value in errors.items()
    }
    if depth:
        found["explained_by_step"] = (steps / power).tolist()
        found["overlap"] = covered / intensity if intensity else float("nan")
    return found | baselines(data, train)
