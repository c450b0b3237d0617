"""Diagnostics of learning: problems that the loss does not show, and a verdict at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inference.data import ImageSet
from inference.evaluation.metrics import action_spread, actions_of, canvas_variance_ratio
from pyro_rnp import RNP, RNPConfig, coverage
from pyro_rnp.config import covering_scale
from pyro_rnp.kl import site_kl
from pyro_rnp.missing import error, mean_image
from pyro_rnp.sites import drawn

ALIKE = 0.01
"""`inference.evaluation.metrics.canvas_variance_ratio` below which canvases do not differ."""
NEARLY_ALIKE = 0.05
"""The same, of canvases that explain no more than the mean image does."""
STILL = 0.01
"""`inference.evaluation.metrics.action_spread` below which parts do not move between images."""
MORE_STEPS = "try more training (--minutes, --epochs)"
"""Advice for canvases that do not differ between images."""
BLANK = 0.1
"""Intensity up to which a pixel counts as blank."""
NEAR = 2 / 3
"""Share of what parts can cover above which images may need larger parts."""
STAND_STILL = "the parts stand at the same places in every image"
"""Words for parts that do not move between images."""
PATIENCE = 5
"""Looks in a row at which a problem must be there before it is told."""
LATE = 2
"""The same, once half of training is over."""
MIN_KL = 0.1
"""KL in nats below which programs do not depend on the image."""
MIN_SHARE = 0.01
"""Share of the intensity below which a part is not used, and of the canvas below which two parts
are alike."""


def coverage_sentence(config: RNPConfig, images: Tensor) -> str:
    """Tell how much of an image the parts can cover, and what to change if that is too little.

    Args:
        config: the model's.
        images: some of the training images, (N, C, H, W) in [0, 1].

    Returns:
        A sentence, and a second where the images may need more; "" of a flat program.
    """
    shares = coverage(config)
    if not shares:
        return ""
    percent = [f"{100 * share:.0f} %" for share in shares]
    names = ["their sub-parts", *(f"parts at level {d}" for d in range(3, 1 + len(shares)))]
    below = "".join(f", {n} {p}" for n, p in zip(names, percent[1:], strict=False))
    full = float((images > BLANK).any(1).sum() / (~images.isnan()).any(1).sum())
    said = (
        f"Parts can cover at most {percent[0]} of an image{below}; {100 * full:.0f} % of the "
        "training images' pixels are not blank."
    )
    scale = covering_scale(config.steps)
    if full > NEAR * min(shares) and scale > config.max_scale:
        said += f" Larger parts (--max_scale {scale:g}) can cover all and may explain more."
    return said


def missing_sentence(data: ImageSet) -> str:
    """Tell how many pixels are missing.

    Args:
        data: the training images.

    Returns:
        A sentence; "" if none is missing.
    """
    one = data[:1]
    if one.masks is None and one.pixels.dtype == torch.uint8:
        return ""
    parts = (part.images.isnan().any(1).flatten(1) for part in data.split(1000))
    missing = torch.cat([x.double().mean(1) for x in parts])
    if not missing.any():
        return ""
    return (
        f"{100 * float(missing.mean()):.3g} % of the training images' pixels are missing, in "
        f"{int((missing > 0).sum())} of {len(data)} images; no loss and no score counts them."
    )


class Diagnostics:
    """Looks at a model in training now and then, and speaks once of what has lasted.

    It sees a KL that collapses to zero, canvases that do not differ between images, parts that do
    not move between images, a canvas that goes blank, parts that are never used, and parts that
    are all alike; see `problems`. A problem that lasts for `PATIENCE` looks in a row, or for `LATE`
    once half of training is over, is told once, and again only after it was gone.
    """

    def __init__(self) -> None:
        self.since: dict[str, list[int]] = {}
        """By kind of problem: the step at which it began, and for how many looks it has lasted,
        more than `PATIENCE` once it was told."""

    def look(self, rnp: RNP, images: Tensor, step: int, late: bool = False) -> list[str]:
        """Look at the model's parses of some images.

        Args:
            rnp: the model.
            images: (N, C, H, W) in [0, 1]; some tens suffice.
            step: the number of the training step.
            late: whether half of training is over.

        Returns:
            The sentences to say now, one for each problem that has just lasted long enough.
        """
        wrong = problems(rnp, images)
        for kind in [kind for kind in self.since if kind not in wrong]:
            del self.since[kind]
        said = []
        for kind, sentence in wrong.items():
            began, looks = self.since.get(kind, [step, 0])
            if looks < PATIENCE and looks + 1 >= (LATE if late else PATIENCE):
                said.append(f"Since step {began} {sentence}.")
                looks = PATIENCE
            self.since[kind] = [began, looks + 1]
        return said

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint keeps."""
        return {name: list(values) for name, values in self.since.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state in a checkpoint."""
        self.since = {name: list(values) for name, values in state.items()}


@torch.no_grad()
def problems(rnp: RNP, images: Tensor) -> dict[str, str]:
    """Find what is wrong with a model's parses while its loss may still look well.

    Values that are not finite are not judged. The random state stays as it was.

    Args:
        rnp: the model.
        images: (N, C, H, W) in [0, 1].

    Returns:
        A sentence without its beginning ("the canvas is blank, ...") by kind of problem: `kl`,
        `blank`, `ignored` (canvases do not differ between images), `still` (parts do not move
        between images), `part 0` (not used), ..., `alike`. Empty if nothing is wrong.
    """
    posterior, prior = rnp.guide.posterior(images), rnp.model.prior()
    with torch.random.fork_rng([rnp.device] if rnp.device.type == "cuda" else []):
        z = drawn(posterior)
    kl = float(site_kl(posterior, prior.expand(posterior.batch_shape), z).mean())
    found = {}
    if kl < MIN_KL:
        found["kl"] = (
            f"the KL is below {MIN_KL:g} nats: programs do not depend on the image; a smaller "
            "--kl_weight or --model.sigma may help"
        )
    tree = rnp.guide.parse(images, sample=False)
    shares = tree.contributions(1) if rnp.config.depth else tree.canvas.unsqueeze(1)
    intensity = shares.sum((-3, -2, -1))  # of (N, parts, C, H, W)
    missing = images.isnan()
    seen = intensity if not missing.any() else shares.masked_fill(missing.unsqueeze(1), 0.0)
    if float(seen.sum()) < MIN_SHARE * float(images.nansum()):
        found["blank"] = (
            f"the canvas is blank, with less than {MIN_SHARE:.0%} of the images' intensity: parts "
            "have left it or faded; start again with a lower --learning_rate"
        )
        return found
    ratio = canvas_variance_ratio(tree.canvas, images)  # NaN where the images do not differ
    errors = (error(canvas, images).square().sum() for canvas in (tree.canvas, mean_image(images)))
    worse = bool(next(errors) >= next(errors))
    if not found and ratio < (NEARLY_ALIKE if worse else ALIKE):
        found["ignored"] = f"canvases do not differ between images: {MORE_STEPS}"
    if not rnp.config.depth:
        return found
    used = (intensity / intensity.sum(1, keepdim=True).clamp(min=1e-12)).amax(0)
    for part, share in enumerate(used.tolist()):
        if share < MIN_SHARE:
            found[f"part {part}"] = (
                f"part {part} is not used: less than {MIN_SHARE:.0%} of the intensity in each "
                "image; start again with a lower --learning_rate, at which parts stay in the "
                "image, or with fewer parts (--model.steps)"
            )
    apart = (shares - shares[:, :1]).square().sum((-3, -2, -1)).amax(1).sqrt()
    size = shares.square().sum((-3, -2, -1)).amax(1).sqrt()
    if shares.shape[1] > 1 and bool((apart < MIN_SHARE * size).all()):
        found["alike"] = "all parts are alike: each draws the same at the same place"
    if not found and ratio > 0 and action_spread(actions_of(tree), rnp.config) < STILL:
        found["still"] = f"{STAND_STILL}: {MORE_STEPS}"
    return found


def verdict(metrics: Mapping[str, Any]) -> str:
    """Tell in two or three sentences how good a trained model is.

    Args:
        metrics: as `metrics.json` of a run holds them.

    Returns:
        The share of the test images' squared intensity that the model explains beside the mean
        training image and a blank canvas, whether it beats these, whether its canvases differ
        between images, and if not, what to try.
    """
    model, mean_image, blank = (
        float(metrics[f"test_{name}"]) for name in ("sse", "sse_mean_image", "sse_blank")
    )
    share, share_mean = metrics["test_explained"], metrics["test_explained_mean_image"]
    found = (
        f"The model explains {100 * share:.1f} % of the test images' squared intensity (squared "
        f"error {model:.1f} an image), the mean training image {100 * share_mean:.1f} % "
        f"({mean_image:.1f}), a blank canvas 0 % ({blank:.1f})."
    )
    ratio = metrics.get("test_canvas_variance_ratio")  # of one image there is none
    better = model < min(mean_image, blank)
    if ratio is not None and ratio < (ALIKE if model < mean_image else NEARLY_ALIKE):
        return (
            f"{found} The model ignores the image: its canvases do not differ between images. "
            f"{MORE_STEPS[0].upper()}{MORE_STEPS[1:]}."
        )
    if better and metrics.get("test_action_spread", 1) < STILL:
        return (
            f"{found} The model beats both, but {STAND_STILL}: it tells images apart by what its "
            f"parts show alone. For parts that move, {MORE_STEPS}."
        )
    if better:
        differ = "" if ratio is None else ", and its canvases differ between images"
        return f"{found} The model beats both{differ}."
    differ = "The" if ratio is None else "The canvases differ between images, but the"
    return (
        f"{found} {differ} model does not beat "
        f"{'the mean training image' if mean_image <= blank else 'a blank canvas'} yet: "
        f"{MORE_STEPS}."
    )
