"""Image data by name, from a folder or from a tar of one, kept as bytes and ready for a network batch by batch."""

from wiu_pyro.datasets.augment import FlipAndCrop, PerImage
from wiu_pyro.datasets.image_data import ImageData, Scaling
from wiu_pyro.datasets.image_files import ImageFiles
from wiu_pyro.datasets.load import load
from wiu_pyro.datasets.places import Listed, available, data_root, fetch

__all__ = [
    "FlipAndCrop",
    "ImageData",
    "ImageFiles",
    "Listed",
    "PerImage",
    "Scaling",
    "available",
    "data_root",
    "fetch",
    "load",
]
