"""Images and labels of one split, as tensors in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wiu_pyro.errors import DataError

__all__ = ["ImageData", "Split", "from_bytes"]

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """Images and labels of one split.

    Attributes
    ----------
    images : Tensor of float32, (num_images, channels, height, width)
        Grey or colour values, scaled as `scaling` says.
    labels : Tensor of int64, (num_images,)
        Index into `class_names`.
    class_names : tuple of str
        Name of each class, in the order of the labels.
    name : str
        Name of the data set, or the folder's or tar's own name.
    split : str
        ``"train"`` or ``"test"``.
    scaling : str
        How the values came from the stored pixels, for example ``"pixel / 255"``.

    Examples
    --------
    >>> from wiu_pyro import datasets
    >>> digits = datasets.load("digits", split="test")
    >>> digits
    ImageData('digits', test: 360 images, 1 x 8 x 8, 10 classes, pixel / 16)
    >>> x, y = digits.tensors
    >>> x.shape
    torch.Size([360, 1, 8, 8])
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    name: str
    split: str
    scaling: str = "pixel / 255"

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        channels, height, width = self.images.shape[1:]
        return (
            f"ImageData('{self.name}', {self.split}: {len(self)} images, {channels} x {height} x {width}, "
            f"{self.num_classes} classes, {self.scaling})"
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not each has an image in this split."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Number of channels: 1 for grey images, 3 for colour."""
        return self.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images and labels, as `wiu_pyro.fit` takes them."""
        return self.images, self.labels


def from_bytes(pixels: Tensor, labels: Tensor, class_names: tuple[str, ...], *, name: str, split: str) -> ImageData:
    """Return images stored as bytes as float32 values between 0 and 1.

    Parameters
    ----------
    pixels : Tensor of uint8, (num_images, height, width) or (num_images, height, width, channels)
        Stored values, 0 to 255.
    labels : Tensor, (num_images,)
        Index into `class_names`.
    class_names : tuple of str
        Name of each class.
    name, split : str
        What the data are called.

    Returns
    -------
    ImageData
        With scaling ``"pixel / 255"``.

    Raises
    ------
    DataError
        If images and labels differ in number, or a label is out of range.
    """
    if len(pixels) != len(labels):
        raise DataError(
            f"One label per image is needed; the {split} split of '{name}' has {len(pixels)} images and "
            f"{len(labels)} labels. One of its files is damaged: remove them and fetch them again."
        )
    labels = labels.to(torch.int64)
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < len(class_names)):
        raise DataError(
            f"Labels from 0 to {len(class_names) - 1} are needed; the {split} split of '{name}' has labels from "
            f"{int(labels.min())} to {int(labels.max())}. Its label file is damaged or of another data set."
        )
    planes = pixels.unsqueeze(-1) if pixels.ndim == 3 else pixels  # (num_images, height, width, channels)
    images = (
        planes.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    )  # (num_images, channels, height, width)
    return ImageData(images, labels, class_names, name, split)
