"""Image sets by name, from files, and in the order in which training sees them."""

from inference.data.base import ImageSet, Splits
from inference.data.datasets import DATASETS, DataName, data_name, data_of, load_data

__all__ = ["DATASETS", "DataName", "ImageSet", "Splits", "data_name", "data_of", "load_data"]
