"""Image data by name, from a folder or from a tar of one, as tensors ready for a network."""

from wiu_pyro.datasets.image_data import ImageData
from wiu_pyro.datasets.load import load
from wiu_pyro.datasets.places import Listed, available, data_root, fetch

__all__ = ["ImageData", "Listed", "available", "data_root", "fetch", "load"]
