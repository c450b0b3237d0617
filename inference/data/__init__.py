"""Image sets by name, from files, and in the order in which training sees them."""

from inference.data.base import ImageSet, Splits
from inference.data.datasets import DATASETS, DataName, load_data

__all__ = ["DATASETS", "DataName", "ImageSet", "Splits", "load_data"]
