"""How to train, as typed fields; apart from the training itself, which takes long to import."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from inference.data import DataName
from inference.objectives import OBJECTIVES
from pyro_rnp import RNPConfig

RATES = {"fast": 1e-3, "mnist": 1e-4, "fashion": 1e-4, "omniglot": 1e-4}
"""Learning rates that commands begin with; that of the paper's presets is that of the authors'
published runs. At 1e-3 and 3e-4 all their parts leave the image within some hundred steps."""

MAY_CHANGE = (
    *("epochs", "minutes", "checkpoint_minutes", "data_root"),
    *("batch_size", "recompute_levels"),
    *("accelerator", "devices", "num_nodes", "strategy", "precision"),
)
"""Fields that may change when a run is resumed: its length, its machine and its speed. A change of
any other field would make it another run under the same name."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train: the data, the time, the optimiser, and where the run is kept."""

    data: DataName = "digits"
    """What to learn: scikit-learn's digits (embedded), MNIST, Fashion-MNIST, Omniglot, or made
    characters with known parts."""
    classes: list[int] | None = None
    """Classes (digits, garments) to keep in every split; by default all."""
    data_root: str | None = None
    """Folder laid out as torchvision does it (MNIST/raw/...); by default ./data."""
    preset: Literal["fast", "mnist", "fashion", "omniglot"] = "fast"
    """The model to start from; --model.* changes single fields of it. "fast" is meant
    for a CPU, the others are the paper's."""
    epochs: int | None = None
    """Passes through the training images."""
    minutes: float | None = None
    """Train for so long instead. With neither, 4 minutes."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 1e-3
    """Adam's step size at its peak; for commands 1e-3 is the default of the preset fast, 1e-4 of
    the others."""
    warmup: int = 100
    """Steps in which the learning rate rises to its peak."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up: it falls to zero along a half cosine over
    all of training, or stays constant."""
    clip: float = 10.0
    """Largest norm of a gradient (in nats per image); a larger one is scaled down."""
    elbo: str = "TraceMeanField_ELBO"
    """Objective: Trace_ELBO, TraceMeanField_ELBO (the KL in closed form), FreeBits_ELBO:nats=1 or
    RenyiELBO:alpha=0,num_particles=5."""
    kl_weight: float = 1.0
    """Weight (beta) of the KL terms; 1 is the evidence lower bound."""
    kl_warmup: float = 0.0
    """Share of training in which the weight of the KL rises from 0 to kl_weight."""
    depth_growth: float = 0.0
    """Share of training in which depth grows: one level at first, then one more at each of equal
    parts of it. A level that is not run yet is drawn by its parents' own decodings."""
    drawings: int = 1
    """Images of a class that a batch holds side by side, so that --prior types learns what they
    share; batch_size must be a multiple. From 2 on, the objective is Trace_ELBO by default."""
    jitter: float = 0.0
    """Move each training image a little, in another way every time: standard deviation of scale
    (logarithm), rotation (radians), shear, and translation (half-widths)."""
    turned: bool = False
    """Learn from each image turned by quarters too, as images of other classes."""
    binarize: bool = False
    """Make each pixel 0 or 1, once for all, 1 with the pixel's intensity as probability: what
    --likelihood bernoulli needs."""
    seed: int = 0
    """Seed of the weights, the data order and the posterior samples."""
    out: str | None = None
    """Run folder to make; None is runs/<data>-<preset>-<date and time>."""
    start: str | None = None
    """Run folder whose configuration and weights to begin with."""
    learn: Literal["all", "guide"] = "all"
    """What learns: all, or the guide alone, as when a model that stays meets other images."""
    resume: str | None = None
    """Run folder to go on with, under its own configuration; --epochs or --minutes extend it to
    so many in all. Devices, batch size and the like may change too; another model, data set or
    objective needs a new run, with --start."""
    accelerator: str = "auto"
    """Lightning's accelerator: "auto" takes CUDA where there is one."""
    devices: str = "1"
    """Lightning's devices: how many, or which."""
    num_nodes: int = 1
    """Lightning's machines; every process of all of them takes --batch_size images a step."""
    strategy: str = "auto"
    """Lightning's strategy: "ddp" for several devices or machines."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Lightning's precision; bf16-mixed is for CUDA."""
    recompute_levels: int = 0
    """Levels, from the leaves' parents up, whose generated weights are written again in the
    backward pass instead of kept: less memory for more time, the same result."""
    checkpoint_minutes: float = 1.0
    """Minutes between checkpoints; there is one too when the run is stopped."""
    model: RNPConfig = field(default_factory=lambda: RNPConfig.preset("fast"))
    """The program."""

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "minutes",
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
        if self.drawings < 1 or self.batch_size % self.drawings:
            raise ValueError(
                f"drawings must be at least 1 and divide batch_size ({self.batch_size}), got "
                f"{self.drawings}."
            )
        if not (0 <= self.jitter < 1) or (self.jitter and self.binarize):
            raise ValueError(
                f"jitter must be in [0, 1), and 0 with binarize, since it makes pixels grey; got "
                f"{self.jitter}."
            )
        OBJECTIVES.make(self.elbo)
        for name in ("kl_warmup", "depth_growth"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.learn == "guide" and self.start is None:
            raise ValueError(
                "A guide that learns alone needs a model that stays: give --start, a run folder."
            )
        if self.learn == "guide" and self.model.prior.partition(":")[0] == "vamp":
            raise ValueError(
                "learn must be all with the prior vamp, which is made of what the guide says."
            )
        if self.classes is not None and not self.classes:
            raise ValueError("classes must name one or more classes.")
        if self.out is not None and self.resume is not None:
            raise ValueError("out and resume exclude each other; a run goes on in its own folder.")
        if self.epochs is not None and self.minutes is not None:
            raise ValueError(
                "epochs and minutes exclude each other; give one, and null for the other where a "
                "--config gives that."
            )

    @property
    def objective(self) -> str:
        """`elbo`; where a batch holds classes, which have no closed form, Trace_ELBO by default."""
        default = self.drawings > 1 and self.elbo == "TraceMeanField_ELBO"
        return "Trace_ELBO" if default else self.elbo

    @property
    def duration(self) -> timedelta | None:
        """Time to train for; None where epochs are given."""
        if self.epochs is not None:
            return None
        minutes = timedelta(minutes=4 if self.minutes is None else self.minutes)
        return max(minutes, timedelta.resolution)
