"""How good a trained model is, in words, beside canvases that take no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALIKE = 0.01
"""`inference.evaluation.canvas_variance_ratio` below which canvases do not differ."""
MORE_STEPS = (
    "try more training (--minutes, --epochs) or, with the preset fast, --learning_rate 3e-3"
)
"""What to try when canvases do not differ between images."""


def verdict(metrics: Mapping[str, Any]) -> str:
    """Two or three sentences on how good a model is.

    Args:
        metrics: what `metrics.json` of a run holds.

    Returns:
        What it explains beside the mean training image and a blank canvas, whether it beats these,
        whether its canvases differ between images, and what to try if not.
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
    if ratio is not None and ratio < ALIKE:
        return (
            f"{found} The model ignores the image: its canvases do not differ between images. "
            f"{MORE_STEPS[0].upper()}{MORE_STEPS[1:]}."
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
