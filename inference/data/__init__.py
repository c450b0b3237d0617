"""Images by name and from files, augmentation, and the order in which training sees images."""

from inference.data.base import ImageSet, Splits
from inference.data.datasets import DATASETS, MEMORY, image_shape, load_data

__all__ = ["DATASETS", "MEMORY", "ImageSet", "Splits", "image_shape", "load_data"]
