"""Distances of samples from data in the features of a classifier (the paper's figure 5)."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from itertools import chain
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
from pyro_rnp.missing import filled


class Classifier(nn.Module):
    """A small convolutional classifier, whose last hidden layer gives 64 features.

    Args:
        channels: of the images.
        classes: logits of the output.
    """

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
        return self.last(self.features(filled(images)))


@dataclass(frozen=True)
class FeatureClassifier:
    """A trained classifier whose features samples and data are compared in."""

    model: Classifier
    accuracy: float
    """The share of validation images that it classifies right, in [0, 1]."""


@torch.enable_grad()
def train_feature_classifier(
    data: ImageSet, validation: ImageSet, epochs: int = 30, patience: int = 2, seed: int = 0
) -> FeatureClassifier:
    """Train a classifier of a data set's classes, by Adam at 1e-3 and batches of 128.

    Args:
        data: training images with their classes.
        validation: images of the same classes; the weights with the best accuracy on them are
            kept.
        epochs: epochs at most.
        patience: epochs in a row without a better accuracy, after which training stops.
        seed: seed of the weights and of the order of images.
    """
    classes = data.labels.unique()
    with torch.random.fork_rng():
        best, waited = FeatureClassifier(Classifier(data.pixels.shape[1], len(classes)), -1.0), 0
        torch.manual_seed(seed)
        model = Classifier(data.pixels.shape[1], len(classes))
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in tqdm(range(epochs), "classifier", leave=False, delay=5):
            for batch in torch.randperm(len(data)).split(128):
                labels = torch.searchsorted(classes, data.labels[batch])
                loss = F.cross_entropy(model(data[batch].images), labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            accuracy = _accuracy(model, validation, classes)
            waited += 1
            if accuracy > best.accuracy:
                best, waited = FeatureClassifier(copy.deepcopy(model).eval(), accuracy), 0
            if waited == patience:
                break
    return best


def read_feature_classifier(file: Path, data: ImageSet, seed: int) -> FeatureClassifier | None:
    """Read the classifier of a training set from a file.

    Args:
        file: the file, as `keep_feature_classifier` writes it.
        data: the training set.
        seed: the seed of its training.

    Returns:
        The classifier, or None where there is no file.

    Raises:
        ValueError: if it is damaged, or holds a classifier of other images, of another seed or of
            another kind.
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
        model = Classifier(data.pixels.shape[1], len(data.labels.unique()))
    model.load_state_dict(tensors)
    return FeatureClassifier(model.eval(), float(notes["accuracy"]))


def keep_feature_classifier(
    classifier: FeatureClassifier, file: Path, data: ImageSet, seed: int
) -> None:
    """Write a classifier to a file, whole or not at all.

    Args:
        classifier: the classifier.
        file: the file.
        data: the training set of the classifier.
        seed: the seed of its training.

    Raises:
        OSError: if it cannot be written.
    """
    notes = {"of": _identity(data, seed), "accuracy": repr(classifier.accuracy)}
    tensors = {name: value.contiguous() for name, value in classifier.model.state_dict().items()}
    write(file, safetensors.save(tensors, notes))


def _identity(data: ImageSet, seed: int) -> str:
    """A digest of the kind of classifier, its training set and the seed."""
    with torch.device("meta"):
        plain = Classifier(data.pixels.shape[1], len(data.labels.unique()))
    digest = hashlib.sha256(f"{plain} {seed}".encode())
    for tensor in chain((part.images for part in data.split(1000)), [data.labels]):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _accuracy(model: Classifier, data: ImageSet, classes: Tensor) -> float:
    said = torch.cat([model(part.images).argmax(1) for part in data.split(1000)])
    return float((classes[said] == data.labels).double().mean())


@torch.no_grad()
def features(model: Classifier, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
    """Compute the features of images, the last hidden layer, in double precision.

    Args:
        model: the classifier.
        images: (N, C, H, W) in [0, 1].
    """
    return torch.cat([model.features(filled(x)) for x in images.split(1000)]).double()


def frechet_distance(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """The Fréchet distance of two sets of features, each taken as normally distributed.

    Args:
        a: (N, F) features.
        b: (M, F) features.

    Returns:
        |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2); 0 for the same set.

    Source: Heusel et al. (2017), arXiv 1706.08500.
    """
    ca, cb = a.T.cov(), b.T.cov()
    # The eigenvalues of C_a C_b are those of the symmetric C_a^1/2 C_b C_a^1/2.
    values, vectors = torch.linalg.eigh(ca)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    together = torch.linalg.eigvalsh(root @ cb @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return float(apart + ca.trace() + cb.trace() - 2 * together)


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of samples in a feature space, each in [0, 1]."""

    precision: float
    """The share of samples that lie nearer to an image than its third nearest other image."""
    recall: float
    """The share of images that lie nearer to a sample than its third nearest other sample."""


def precision_recall(
    data: Float[Tensor, "n f"], samples: Float[Tensor, "m f"], neighbours: int = 3
) -> PrecisionRecall:
    """Measure the precision and recall of samples in a feature space.

    Args:
        data: (N, F) features of images.
        samples: (M, F) features of samples.
        neighbours: the nearest neighbour, by number, that bounds the region of a point.

    Source: Kynkäänniemi et al. (2019), arXiv 1904.06991.

    Raises:
        ValueError: if images or samples are no more than `neighbours`.
    """
    if min(len(data), len(samples)) <= neighbours:
        raise ValueError(f"There must be more than {neighbours} images and samples.")

    def covered(points: Tensor, by: Tensor) -> float:
        reach = torch.cdist(by, by).kthvalue(neighbours + 1, dim=1).values  # the first is itself
        return float((torch.cdist(points, by) <= reach).any(1).double().mean())

    return PrecisionRecall(covered(samples, data), covered(data, samples))


def sample_scores(
    model: Classifier, data: Float[Tensor, "n c h w"], samples: Float[Tensor, "m c h w"]
) -> dict[str, float]:
    """Compare samples with data in a classifier's features.

    Args:
        model: the classifier.
        data: (N, C, H, W) in [0, 1].
        samples: (M, C, H, W); values are clamped to [0, 1], since sums of patches may exceed 1.

    Returns:
        `frechet`, see `frechet_distance`; `precision` and `recall`, see `precision_recall`.
    """
    a, b = features(model, data), features(model, samples.clamp(0, 1))
    found = precision_recall(a, b)
    return {"frechet": frechet_distance(a, b), "precision": found.precision, "recall": found.recall}


@torch.no_grad()
def sample_quality_metrics(
    rnp: RNP,
    splits: Splits,
    num: int,
    seed: int = 0,
    rotated_classes: bool = False,
    classifier: Path | None = None,
) -> dict[str, float | int]:
    """Compare samples of the prior with test images, in the features of a classifier of the set.

    Where test images have missing pixels (NaN), the samples miss the same ones.

    Args:
        rnp: the model.
        splits: its data set.
        num: test images, and as many samples; at most half of the test images.
        seed: seed of the samples, of the rotations and of the classifier's training.
        rotated_classes: whether to rotate each test image by a random number of quarter turns, as
            training did.
        classifier: file of the classifier; it is trained and written there if there is no file.

    Returns:
        `images`, the number of test images and of samples; the scores of the samples, see
        `sample_scores`; with `_floor` behind, those of other test images in place of samples; and
        `classifier_accuracy`, on validation images. Of images of one class, which no classifier
        can tell apart, `images` alone.

    Raises:
        ValueError, FileNotFoundError: as `read_feature_classifier`.
    """
    num = min(num, len(splits.test) // 2)
    if len(splits.train.labels.unique()) < 2:
        return {"images": num}
    scorer = None if classifier is None else read_feature_classifier(classifier, splits.train, seed)
    if scorer is None:
        scorer = train_feature_classifier(splits.train, splits.validation, seed=seed)
        if classifier is not None:
            keep_feature_classifier(scorer, classifier, splits.train, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        images = splits.test[: 2 * num].images
        test, other = (rotate_at_random(images) if rotated_classes else images).chunk(2)
        samples = rnp.sample(len(test)).canvas.to(test).masked_fill(test.isnan(), torch.nan)
        found = sample_scores(scorer.model, test, samples)
    floor = {f"{name}_floor": v for name, v in sample_scores(scorer.model, test, other).items()}
    of = {"images": len(test)}
    return {**of, **found, **floor, "classifier_accuracy": scorer.accuracy}
