"""How much samples of a model look like the data, in numbers (the paper's Figure 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from inference.data import ImageSet


class Classifier(nn.Module):
    """A small convolutional classifier, whose last hidden layer is the feature space."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
            nn.ReLU(),
        )
        self.last = nn.Linear(64, classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.last(self.features(images))


@torch.enable_grad()
def train_classifier(data: ImageSet, epochs: int = 2, seed: int = 0) -> Classifier:
    """A classifier of a data set's classes, of Adam at 1e-3 and batches of 128."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        labels = data.labels.unique(return_inverse=True)[1]
        model = Classifier(data.images.shape[1], int(labels.max()) + 1)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(data)).split(128):
                loss = F.cross_entropy(model(data.images[batch]), labels[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return model.eval()


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
    """`frechet`, `precision` and `recall` of samples beside data, in a classifier's features."""
    a, b = features(model, data), features(model, samples)
    found = coverage(a, b)
    return {"frechet": frechet(a, b), "precision": found.precision, "recall": found.recall}
