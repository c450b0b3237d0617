"""How much samples of a model look like the data, in numbers (the paper's Figure 5)."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch as safetensors
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm

from inference.data import ImageSet, Splits
from inference.data.augmentation import rotate_at_random
from pyro_rnp import RNP
from pyro_rnp.files import write


class Classifier(nn.Module):
    """A small convolutional classifier, whose last hidden layer is the feature space."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.AdaptiveMaxPool2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
            nn.ReLU(),
        )
        self.last = nn.Linear(64, classes)
        self.to(memory_format=torch.channels_last)  # on a CPU nearly twice as fast

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.last(self.features(images))


@dataclass(frozen=True)
class Judge:
    """A classifier, and the share of validation images that it gets right."""

    model: Classifier
    accuracy: float


@torch.enable_grad()
def train_classifier(
    data: ImageSet, validation: ImageSet, epochs: int = 30, patience: int = 2, seed: int = 0
) -> Judge:
    """A classifier of a data set's classes, by Adam at 1e-3 and batches of 128.

    Args:
        validation: what says when to stop, and which weights are kept; of the same classes.
        epochs: at most.
        patience: epochs in a row that may bring no more accuracy.
    """
    classes = data.labels.unique()
    with torch.random.fork_rng():
        best, waited = Judge(Classifier(data.images.shape[1], len(classes)), -1.0), 0
        torch.manual_seed(seed)
        model = Classifier(data.images.shape[1], len(classes))
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in tqdm(range(epochs), "classifier", leave=False, delay=5):
            for batch in torch.randperm(len(data)).split(128):
                labels = torch.searchsorted(classes, data.labels[batch])
                loss = F.cross_entropy(model(data.images[batch]), labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            accuracy = _accuracy(model, validation, classes)
            waited += 1
            if accuracy > best.accuracy:
                best, waited = Judge(copy.deepcopy(model).eval(), accuracy), 0
            if waited == patience:
                break
    return best


def read_classifier(file: Path, data: ImageSet, seed: int) -> Judge | None:
    """The classifier of these images that a file keeps; None where there is no file.

    Raises:
        ValueError: if it is damaged, or keeps one of other images, another seed or another kind.
        FileNotFoundError: if there is not even its folder.
    """
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent} does not exist; make it to keep a classifier in.")
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as opened:
            notes = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read: {error}; delete it to learn anew.") from error
    if notes.get("of") != _identity(data, seed):
        raise ValueError(
            f"{file} is no classifier as it is now of these images and this seed; delete it, or "
            "name another --classifier."
        )
    with torch.random.fork_rng():  # which initial weights are drawn with
        model = Classifier(data.images.shape[1], len(data.labels.unique()))
    model.load_state_dict(tensors)
    return Judge(model.eval(), float(notes["accuracy"]))


def keep_classifier(judge: Judge, file: Path, data: ImageSet, seed: int) -> None:
    """Write a file for `read_classifier`, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    notes = {"of": _identity(data, seed), "accuracy": repr(judge.accuracy)}
    tensors = {name: value.contiguous() for name, value in judge.model.state_dict().items()}
    write(file, safetensors.save(tensors, notes))


def _identity(data: ImageSet, seed: int) -> str:
    """What a classifier was made of: its kind, its images and the seed."""
    with torch.device("meta"):
        plain = Classifier(data.images.shape[1], len(data.labels.unique()))
    digest = hashlib.sha256(f"{plain} {seed}".encode())
    for tensor in (data.images, data.labels):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _accuracy(model: Classifier, data: ImageSet, classes: Tensor) -> float:
    said = torch.cat([model(x).argmax(1) for x in data.images.split(1000)])
    return float((classes[said] == data.labels).double().mean())


@torch.no_grad()
def features(model: Classifier, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
    """The last hidden layer, in double precision."""
    return torch.cat([model.features(x) for x in images.split(1000)]).double()


def frechet(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """The Fréchet distance of two sets of features, taken as normal (Heusel et al., 2017).

    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2); 0 for the same set.
    """
    ca, cb = a.T.cov(), b.T.cov()
    # The eigenvalues of C_a C_b are those of the symmetric C_a^1/2 C_b C_a^1/2.
    values, vectors = torch.linalg.eigh(ca)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    together = torch.linalg.eigvalsh(root @ cb @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return float(apart + ca.trace() + cb.trace() - 2 * together)


@dataclass(frozen=True)
class Coverage:
    """Precision and recall of samples (Kynkäänniemi et al., 2019)."""

    precision: float
    """The share of samples that lie where data are: within an image's distance to its third
    nearest of the data."""
    recall: float
    """The share of data that lie where samples are, likewise."""


def coverage(
    data: Float[Tensor, "n f"], samples: Float[Tensor, "m f"], neighbours: int = 3
) -> Coverage:
    """How samples and data cover each other in a feature space.

    Raises:
        ValueError: if there are not more of either than neighbours.
    """
    if min(len(data), len(samples)) <= neighbours:
        raise ValueError(f"There must be more than {neighbours} images and samples.")

    def covered(points: Tensor, by: Tensor) -> float:
        reach = torch.cdist(by, by).kthvalue(neighbours + 1, dim=1).values  # the first is itself
        return float((torch.cdist(points, by) <= reach).any(1).double().mean())

    return Coverage(covered(samples, data), covered(data, samples))


def fidelity(
    model: Classifier, data: Float[Tensor, "n c h w"], samples: Float[Tensor, "m c h w"]
) -> dict[str, float]:
    """`frechet`, `precision` and `recall` of samples beside data, in a classifier's features.

    Ink beyond 1, as a sum of patches may have, counts as 1: of images there is no more.
    """
    a, b = features(model, data), features(model, samples.clamp(0, 1))
    found = coverage(a, b)
    return {"frechet": frechet(a, b), "precision": found.precision, "recall": found.recall}


@torch.no_grad()
def sample_numbers(
    rnp: RNP,
    splits: Splits,
    num: int,
    seed: int = 0,
    turned: bool = False,
    classifier: Path | None = None,
) -> dict[str, float | int]:
    """How samples of the prior compare with test images, in a classifier trained on the set.

    Args:
        num: test images, and as many samples; at most half of the test images.
        turned: turn each test image by as many quarters as chance has it, as training did.
        classifier: a file that keeps it; learned and put there if it is not there.

    Returns:
        `images`, how many test images are compared with as many samples; what `fidelity` gives of
        samples; the same of other test images instead, with `_floor` behind; and
        `classifier_accuracy`, of validation images.

    Raises:
        ValueError, FileNotFoundError: as `read_classifier`.
    """
    judge = None if classifier is None else read_classifier(classifier, splits.train, seed)
    if judge is None:
        judge = train_classifier(splits.train, splits.validation, seed=seed)
        if classifier is not None:
            keep_classifier(judge, classifier, splits.train, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        images = splits.test.images[: 2 * min(num, len(splits.test) // 2)]
        test, other = (rotate_at_random(images) if turned else images).chunk(2)
        found = fidelity(judge.model, test, rnp.sample(len(test)).canvas.to(test))
    floor = {f"{name}_floor": v for name, v in fidelity(judge.model, test, other).items()}
    of = {"images": len(test)}
    return {**of, **found, **floor, "classifier_accuracy": judge.accuracy}
