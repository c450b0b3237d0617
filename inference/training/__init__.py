"""Training: Lightning runs the loop, Pyro's ELBO module is the loss."""

from inference.training.diagnostics import verdict
from inference.training.fit import TrainingFailed, train

__all__ = ["TrainingFailed", "train", "verdict"]
