"""Pretrained models of the project: their weights, and the card of each."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from inference.config import TrainConfig
from inference.outputs import with_error
from inference.reproduction.recipes import portable, start_of, to_flags
from inference.run import Run
from pyro_rnp.checkpoint import SHIPPED, WEIGHTS
from pyro_rnp.files import write

LARGEST = 10_000_000
"""Bytes of a file of pretrained weights, at most."""
SOURCES = {
    "digits": "scikit-learn's handwritten digits, 1,797 of 8x8 pixels, brought to 28x28",
    "mnist": "MNIST (LeCun, Cortes and Burges), 55,000 of its training images",
    "fashion": "Fashion-MNIST (Zalando SE, MIT licence), 55,000 of its training images",
    "omniglot": "Omniglot (Lake, MIT licence) at 28x28, 18 drawings each of the 964 characters of "
    "its background set",
    "omniglot-alphabets": "Omniglot (Lake, MIT licence) at 28x28, all drawings of the 806 "
    "characters of 25 alphabets of its background set",
    "omniglot-new": "Omniglot (Lake, MIT licence) at 28x28, 15 drawings each of the 659 characters "
    "of its evaluation set",
    "omniglot-all": "Omniglot (Lake, MIT licence) at 28x28, 18 drawings each of the characters of "
    "its background set and 15 of its evaluation set",
    "strokes": "made characters of a known grammar",
}
TESTED = {
    "omniglot": "all drawings of the 659 characters of its evaluation set, none of them learned "
    "from",
    "omniglot-alphabets": "all drawings of the 659 characters of its evaluation set, none of them "
    "learned from",
    "omniglot-new": "4 other drawings of each of these characters",
    "omniglot-all": "4 other drawings of each character of the evaluation set",
    "mnist": "its 10,000 test images",
    "fashion": "its 10,000 test images",
}
BESIDE = (
    " `test_sse_mean_image` and `test_sse_blank` are of the mean training image and of a blank "
    "canvas in place of the model's; `test_canvas_variance_ratio` is 0 where all canvases are "
    "alike."
)
BY_LEVEL = (
    " `test_kl_z` is the top program's share of the KL; `test_kl_a_1` and `test_kl_z_1` are those "
    "of the parts' actions and programs, and so on down."
)
LIMITS = (
    "It reads light ink on a dark ground, one channel, at the size of its training images; "
    "`--resize` and `--invert` of the commands bring others to that.",
    "The parse comes from one pass of an encoder: images unlike those that it learned from are "
    "parsed badly, without a warning. `query` with `svi` or `importance` says how far to trust it.",
    "Training finds the parts that explain pixels best; they have no names and are no pen strokes.",
    "The numbers above are means over one test split, from one seed. The preset `fast` was put "
    "together with a look at 2,000 test images of MNIST, `omniglot.yaml` with looks at those of "
    "Omniglot (docs/explanation/limitations.md).",
)


def ship(run: str | Path, name: str, to: Path | None = None) -> Path:
    """Add a run's model to the pretrained models, under a name.

    The model's folder holds `config.json`, `model.safetensors`, `metrics.json` and `curve.json` of
    the run, and the model's card as `README.md`.

    Args:
        run: folder of a run that ended.
        name: name of the pretrained model: letters, digits, `-`, `.` and `_`.
        to: folder of pretrained models; None is that of the project's own sources.

    Returns:
        The model's folder, `to / name`.

    Raises:
        FileNotFoundError: if the run did not end, or `to` is None and the package is installed
            without the project's sources.
        FileExistsError: if there is a model of that name.
        ValueError: if the name has other characters, or the weights are more than `LARGEST` bytes,
            or damaged.
    """
    if to is None and not (SHIPPED.parents[1] / "pyproject.toml").is_file():
        raise FileNotFoundError(
            f"{SHIPPED.parent} is an installed package, which the next installation replaces; name "
            "another folder with --to, or work in a checkout of the project."
        )
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"A name is made of letters, digits, - and _, not {name!r}.")
    trained, folder = Run(run, shipped=False), (to or SHIPPED) / name
    trained.load()  # whole, or refused
    if not trained.ended:
        raise FileNotFoundError(f"{run} has no metrics.json; let the run end first.")
    weights = trained.path / WEIGHTS
    size = weights.stat().st_size
    if size > LARGEST:
        raise ValueError(
            f"{weights} has {size:,} bytes; a pretrained model has at most {LARGEST:,}."
        )
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another --name.")
    trained.describe(folder, portable(trained.path))
    shutil.copyfile(weights, folder / WEIGHTS)
    shipped = Run(folder, shipped=False)
    called = name if folder.parent == SHIPPED else str(folder)
    text = card(called, shipped.config, shipped.metrics or {})
    write(folder / "README.md", text.encode())
    return folder


MASKED_GUIDE = (
    "- `masked.safetensors`: a guide that has seen masks ({masked:,} parameters), for images with "
    'hidden pixels; `load("{name}", masked_guide=True)`, or `--masked_guide true` of `pyro-rnp '
    "query` and `evaluate`. It was trained afterwards and changes nothing above "
    "(docs/how-to/hidden-pixels.md)."
)


def card(name: str, config: TrainConfig, metrics: dict[str, Any], masked: int = 0) -> str:
    """Write a model's card.

    Args:
        name: the name or folder by which `pyro_rnp.load` finds the model.
        config: the configuration that the model was trained under.
        metrics: the content of the run's `metrics.json`.
        masked: parameters of the guide that has seen masks, where one lies beside the weights.

    Returns:
        The card, as Markdown.
    """
    model, data, command = config.model, config.data, " ".join(to_flags(config))
    begun = start_of(config)
    if begun == "RUN":
        command += " --start RUN"
    weights = "another run's weights" if begun == "RUN" else f"the weights of `{begun}`"
    parts = " by ".join(map(str, model.steps))
    kind = f"A recursive neural program, {model.depth} levels of {parts} parts"
    if model.stochastic != "none":
        kind += " with random levels"
    if not model.depth:
        kind = "A flat VAE, to compare with"
    hours, minutes = divmod(round(metrics["seconds"] / 60), 60)
    took = f"{hours} h {minutes} min" if hours else f"{metrics['seconds'] / 60:.1f} minutes"
    root = "" if data in ("digits", "strokes") else " --data-root DIR"
    rows = [name for name in metrics if name.startswith("test_") and not name.endswith("_error")]
    rotated = ", each also rotated by quarter turns" * config.rotated_classes
    lines = [
        f"# {Path(name).name}",
        f"{kind}, |z| = {model.program_size}, {metrics['parameters']:,} parameters, as "
        f'`pyro_rnp.load("{name}")`.',
        f"- Data: {SOURCES.get(data, data)}{rotated}{', moved a little' * bool(config.jitter)}.",
        f"- Made by: `pyro-rnp train {command}{root}`, seed {config.seed}"
        + ("." if begun is None else f", from {weights}."),
        f"- Training: {metrics['images_seen']:,} images in {took} on "
        f"{metrics.get('hardware', 'a CPU')}; {metrics['skipped_steps']} steps skipped. "
        "`curve.json` has the validation scores after each epoch.",
        f"- Test images: {TESTED.get(data, 'the test split')}.",
        *([MASKED_GUIDE.format(masked=masked, name=name)] if masked else []),
        "## On the test split",
        "| figure | value |\n|---|---|\n"
        + "\n".join(f"| `{name}` | {with_error(metrics, name, '.4g')} |" for name in rows),
        "Squared error is summed over an image's pixels, of one posterior sample (`test_sse`) or "
        "at the posterior's centre (`test_sse_mean`); KL and ELBO are in nats; ± standard errors "
        "over images."
        + BY_LEVEL * ("test_kl_z" in metrics)
        + BESIDE * ("test_sse_mean_image" in metrics),
        "## Limits",
        "\n".join(f"- {line}" for line in LIMITS),
    ]
    return "\n\n".join(lines) + "\n"
