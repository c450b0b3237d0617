"""The configuration of training, apart from training itself, which takes long to import."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from inference.data import MEMORY, Splits, load_data
from inference.data.datasets import absolute, check_source, is_path
from inference.data.masks import MaskKind
from inference.data.prepare import Invert, check_form
from inference.objectives import OBJECTIVES
from pyro_rnp import RNPConfig
from pyro_rnp.arguments import check_fields

_AS_PUBLISHED = {"optimizer": "Adam", "learning_rate": 1e-4}
LEARNING: dict[str, dict[str, Any]] = {
    "fast": {"optimizer": "Muon", "learning_rate": 1e-3},
    "mnist": _AS_PUBLISHED,
    "fashion": _AS_PUBLISHED,
    "omniglot": _AS_PUBLISHED,
}
"""How each preset learns by default. Optimizer and rate of the paper's presets are those of the
authors' published runs: at 3e-4 and 1e-3 all parts of theirs leave the image within some hundred
steps."""

MASKED_GUIDE = "flow:layers=8,units=128"
"""The guide that learns by --mask_training where the model names none."""
MASKS: tuple[MaskKind, ...] = ("halves", "quadrants", "blocks", "pixels")
"""The masks that it learns from where none are named."""

MAY_CHANGE = (
    *("epochs", "minutes", "patience", "checkpoint_minutes", "data_root"),
    *("batch_size", "recompute_levels", "compile"),
    *("accelerator", "devices", "num_nodes", "strategy", "precision"),
)
"""Fields that may change when a run is resumed: its length, its machine and its speed. A change of
any other field would make it another run under the same name."""

RENAMED = {"drawings": "images_per_class", "turned": "rotated_classes"}
"""Former names of fields to present ones. Run folders may hold former names; flags and `--config`
files accept them for one release, with a note."""


def present_names(training: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields that a configuration was saved with their present names.

    Runs from before there was a choice of optimizers learned by Adam.

    >>> present_names({"data": "digits", "turned": True})
    {'optimizer': 'Adam', 'data': 'digits', 'rotated_classes': True}
    """
    former = {"optimizer": "Adam"} if training else {}
    return former | {RENAMED.get(name, name): value for name, value in training.items()}


def read_data(
    source: Any, training: Mapping[str, Any], model: RNPConfig, inverted: bool | None = None
) -> Splits:
    """Load images as a run reads them.

    Those that it learned from are read as in training. Others are brought to the size and the
    channels of the model, and of files dark and light are swapped by the rule of training.

    Args:
        source: as `inference.data.load_data` takes it.
        training: fields of `TrainConfig` by name; those that are missing have their defaults.
        model: the model that reads the images.
        inverted: whether dark and light of all images that it learned from were swapped; None where
            that was decided image by image.
    """
    data = training.get("data", "")
    own = isinstance(source, str) and absolute(source) == absolute(data)
    invert = training.get("invert", "auto") if inverted is None or not own else inverted
    if not own and isinstance(source, str) and not is_path(source):
        invert = "auto"  # a data set by name has a polarity of its own
    return load_data(
        source,
        training.get("data_root"),
        training.get("binarize", False),
        size=training.get("size") if own else model.image_size,
        channels=training.get("channels") if own else model.channels,
        invert=invert,
    )


def check_shape(name: str, shape: Sequence[int], model: RNPConfig) -> None:
    """Raise unless images have the size and the channels that a model reads.

    Args:
        name: of the images, for the message.
        shape: channels, height and width.
        model: the model.

    Raises:
        ValueError: if they have others.
    """
    (channels, height, width), size = shape, model.image_size
    wanted = (model.channels, size, size)
    if tuple(shape) == wanted:
        return
    how = [f"--size {size} scales them"] * ((height, width) != (size, size))
    how += [f"--channels {model.channels} gives them its channels"] * (channels != model.channels)
    images = "The images" if name == MEMORY else f"The images of {name}"
    raise ValueError(
        f"{images} have {channels} channels and {height} x {width} pixels; for this "
        f"model they must have shape (N, {', '.join(map(str, wanted))}): {' and '.join(how)}, or "
        "leave out --image_size and --model.channels."
    )


@dataclass(frozen=True)
class TrainConfig:
    """How to train: the data, the time, the objective, the optimiser, and where the run is kept.

    Raises:
        TypeError: if a field is of another kind than its own, as text for a number.
        ValueError: if a field is out of its range, or two fields exclude each other.
    """

    data: str = "digits"
    """Images to learn from: the path of a folder of image files, of a .npy or of a .npz file;
    torchvision:NAME, as torchvision:KMNIST; or a name: digits (scikit-learn's, embedded, no
    download), mnist, fashion (Fashion-MNIST), omniglot and its variants, or strokes (synthetic
    characters whose true parts are known). The model has their size and channels, unless
    --image_size and --model.channels say that of others."""
    size: int | None = None
    """Height and width in pixels to scale the images to; one that is not square gets margins
    first. By default they stay as they are, and must be squares of one size."""
    channels: int | None = None
    """1 makes the images grey, 3 gives them red, green and blue. By default those of your own are
    grey if all files are."""
    invert: Invert = "auto"
    """Swap dark and light of the images, for dark ink on light paper: true, false, or auto, which
    leaves named data sets and photographs, and swaps drawings on a light ground."""
    classes: list[int] | None = None
    """Classes (digits, garments, characters) to keep in every split; by default all."""
    data_root: str | None = None
    """Folder laid out as torchvision does it (MNIST/raw/...); by default ./data."""
    preset: Literal["fast", "mnist", "fashion", "omniglot"] = "fast"
    """Model to begin with; --model.* changes single fields of it. fast is meant for a CPU; the
    others have the paper's sizes."""
    epochs: int | None = None
    """Passes through the training images."""
    minutes: float | None = None
    """Train for this many minutes instead of a number of epochs. With neither, 4 minutes."""
    patience: int | None = None
    """End training after so many epochs without a better score of the validation images (the ELBO
    with its KL at kl_weight; the squared error where the guide is a point), and keep the weights of
    the best epoch. By default training goes to its end and keeps the last weights."""
    batch_size: int = 64
    """Images per step. Of several processes, each takes as many."""
    optimizer: Literal["Muon", "Adam"] = "Muon"
    """Muon for the matrices of the networks and Adam for the rest, or Adam for all. A step of Muon
    takes longer, above all where encoder_units is large, and gains more. The command line's default
    is Muon with the preset fast and Adam with the others."""
    learning_rate: float = 1e-3
    """The optimizer's largest step size, reached after the warm-up. The command line's default is
    1e-3 with the preset fast and 1e-4 with the others."""
    warmup: int = 100
    """Steps over which the learning rate rises linearly to its largest value."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine falls to zero along a half cosine over all of
    training, constant stays."""
    clip: float = 10.0
    """Largest norm of the gradient (nats per image); a larger gradient is scaled down to it."""
    elbo: str = "TraceMeanField_ELBO"
    """Objective: Trace_ELBO, TraceMeanField_ELBO (the KL in closed form), FreeBits_ELBO:nats=1 or
    RenyiELBO:alpha=0,num_particles=5."""
    kl_weight: float = 1.0
    """Weight (beta) of the KL terms; 1 is the evidence lower bound, less gives sharper images and
    programs that follow the prior less."""
    kl_warmup: float = 0.0
    """Share of training over which the weight of the KL terms rises from 0 to kl_weight, which
    keeps programs from ignoring the image early on."""
    lower_warmup: float = 0.0
    """Share of training over which random levels below the top come in: at its start the parts of
    all images are as the top program predicts them, at its end those of none. So the top program
    learns first to describe the image; otherwise lower levels may learn to do so without it. Where
    nothing is random below the top (--stochastic none) it has no effect."""
    depth_growth: float = 0.0
    """Share of training over which the depth grows: one level at first, then one more after each
    of equal parts of it. Until a level is added, its parents draw its patches by themselves."""
    images_per_class: int = 1
    """Images of the same class that stand side by side in a batch, so that --prior types learns
    what they share; batch_size must be a multiple. From 2 on, the objective is Trace_ELBO by
    default."""
    jitter: float = 0.0
    """Move each training image a little, each time in another way: standard deviation of scale
    (logarithm), rotation (radians), shear, and translation (half-widths)."""
    mask_training: list[MaskKind] | None = None
    """Train a second guide beside the first on images of which masks hide some pixels, so that a
    query on half an image has a proposal at once: any of halves, quadrants, blocks (a rectangle is
    seen or hidden), pixels (a random share) and none (all are seen), with commas between. All else
    learns as without it; with --start RUN --learn new it is added to a trained model. By default
    it is off, or, where --masked_guide names that guide, halves,quadrants,blocks,pixels."""
    rotated_classes: bool = False
    """Learn also from each image rotated by one, two and three quarters, as images of other
    classes."""
    binarize: bool = False
    """Make each pixel 0 or 1, once for all, 1 with the pixel's intensity as probability, as
    --likelihood bernoulli needs."""
    seed: int = 0
    """Seed of the initial weights, of the order of the images, and of the posterior samples."""
    out: str | None = None
    """Run folder to make, which must not exist; by default
    runs/<data>-<preset>-<date and time>."""
    start: str | None = None
    """Run folder, or name of pretrained weights, whose model to begin with. Where another piece is
    chosen, as by --prior flow, the rest begins with these weights; a line says what is new."""
    learn: Literal["all", "guide", "prior", "new"] = "all"
    """Learn all parameters; or those of the guide alone, which fits a guide to other images while
    the model stays; or those of the prior alone, as --prior flow, which takes minutes and makes
    samples better; or those alone that are new, where --start and another piece are given."""
    resume: str | None = None
    """Run folder to go on with, under its own configuration; --epochs or --minutes then count
    from its beginning. Devices, batch size and the like may change too; another model, data set or
    objective needs a new run, with --start."""
    accelerator: str = "auto"
    """Lightning's accelerator: auto takes a CUDA device where there is one."""
    devices: str = "1"
    """Lightning's devices: how many, or which."""
    num_nodes: int = 1
    """Lightning's number of machines; each process on each of them takes batch_size images a
    step."""
    strategy: str = "auto"
    """Lightning's strategy: ddp for several devices or machines."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Lightning's precision; bf16-mixed is for CUDA."""
    recompute_levels: int = 0
    """Levels, counted from the leaves' parents up, whose generated weights are computed again in
    the backward pass instead of kept: less memory for more time, with the same result."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the model by torch.compile, which takes one or two minutes at the first step, several
    with random levels, and then makes steps faster: true, false, or auto, which compiles trainings
    of 30 minutes or 30,000 steps or more. With recompute_levels only the encoder is compiled, and
    auto does not. It needs a C++ compiler."""
    checkpoint_minutes: float = 1.0
    """Minutes between checkpoints; there is also one when the run is stopped."""
    model: RNPConfig = field(default_factory=lambda: RNPConfig.preset("fast"))
    """The model: program, prior, guide and likelihood; see `pyro_rnp.RNPConfig`."""

    def __post_init__(self) -> None:
        for name in ("data", "data_root", "out", "start", "resume"):
            if isinstance(getattr(self, name), Path):
                object.__setattr__(self, name, str(getattr(self, name)))
        if isinstance(self.devices, int | list):
            object.__setattr__(self, "devices", str(self.devices))
        check_fields(self)
        for name in (
            "epochs",
            "minutes",
            "patience",
            "batch_size",
            "learning_rate",
            "clip",
            "num_nodes",
            "checkpoint_minutes",
            "kl_weight",
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value}.")
        for name in ("warmup", "recompute_levels"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.images_per_class < 1 or self.batch_size % self.images_per_class:
            raise ValueError(
                f"images_per_class must be at least 1 and divide batch_size ({self.batch_size}), "
                f"got {self.images_per_class}."
            )
        if not (0 <= self.jitter < 1) or (self.jitter and self.binarize):
            raise ValueError(
                f"jitter must be in [0, 1), and 0 with binarize, since it makes pixels grey; got "
                f"{self.jitter}."
            )
        check_source(self.data)
        check_form(self.size, self.channels)
        OBJECTIVES.make(self.elbo)
        for name in ("kl_warmup", "lower_warmup", "depth_growth"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.learn != "all" and self.start is None:
            raise ValueError(
                f"A {'new piece' if self.learn == 'new' else self.learn} that learns alone needs a "
                "model that stays: give --start, a run folder."
            )
        if self.learn == "guide" and self.model.prior.partition(":")[0] == "vamp":
            raise ValueError(
                "learn must be all with the prior vamp, which is made of what the guide says."
            )
        if self.mask_training is not None and not self.mask_training:
            raise ValueError("mask_training must name one or more kinds of masks.")
        if self.mask_training is None and self.model.masked_guide is not None:
            object.__setattr__(self, "mask_training", list(MASKS))
        elif self.mask_training is not None and self.model.masked_guide is None:
            model = replace(self.model, masked_guide=MASKED_GUIDE)
            object.__setattr__(self, "model", model)
        if self.classes is not None and not self.classes:
            raise ValueError("classes must name one or more classes.")
        if self.out is not None and self.resume is not None:
            raise ValueError("out and resume exclude each other; a run goes on in its own folder.")
        if self.epochs is not None and self.minutes is not None:
            raise ValueError(
                "epochs and minutes exclude each other; give one, and null for the other where a "
                "--config gives that."
            )

    def load_data(self, name: str | None = None) -> Splits:
        """Load the images as training does, of all classes.

        Args:
            name: another data set instead, which is brought to the model's size and channels.
        """
        return read_data(name or self.data, vars(self), self.model)

    @property
    def objective(self) -> str:
        """The name of the objective: `elbo`, but Trace_ELBO where `elbo` has its default and
        `images_per_class` is above 1, since the KL of classes has no closed form.
        """
        default = self.images_per_class > 1 and self.elbo == "TraceMeanField_ELBO"
        return "Trace_ELBO" if default else self.elbo

    def compiles(self, images: int) -> bool:
        """Whether training compiles the model, which depends on the configuration alone.

        Args:
            images: the number of training images.
        """
        if self.compile != "auto":
            return self.compile
        steps = (self.epochs or 0) * images / self.batch_size
        return not self.recompute_levels and (steps >= 30_000 or (self.minutes or 0) >= 30)

    @property
    def duration(self) -> timedelta | None:
        """How long to train; None where epochs are given."""
        if self.epochs is not None:
            return None
        minutes = timedelta(minutes=4 if self.minutes is None else self.minutes)
        return max(minutes, timedelta.resolution)
