"""Data sets by name, image files, augmentation, and the order in which training sees images."""

from inference.data.base import ImageSet, Splits
from inference.data.datasets import DATASETS, MEMORY, load_data

__all__ = ["DATASETS", "MEMORY", "ImageSet", "Splits", "load_data"]
