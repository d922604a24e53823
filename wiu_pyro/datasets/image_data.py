"""Images and labels of one split, as tensors in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from wiu_pyro.errors import DataError

__all__ = ["ImageData", "Scaling", "Split", "from_bytes"]

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Scaling:
    """How a network's inputs come from stored pixels: (pixel / divisor − mean) / sd, for each channel.

    Parameters
    ----------
    divisor : float
        Of the stored values.
    mean, sd : tuple of float, one for each channel, or empty
        Subtracted and divided by after the divisor; empty does neither.

    Examples
    --------
    >>> Scaling()(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([[[[0., 1.]]]])
    >>> str(Scaling(mean=(0.5,), sd=(0.25,)))
    '(pixel / 255 - mean) / sd, mean (0.5), sd (0.25)'
    """

    divisor: float = 255.0
    mean: tuple[float, ...] = ()
    sd: tuple[float, ...] = ()

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 inputs of pixels, (batch, channels, height, width); those that are float already pass."""
        values = pixels if pixels.is_floating_point() else pixels.to(torch.float32).div_(self.divisor)
        if not self.mean:
            return values
        mean, sd = (torch.tensor(part, device=pixels.device)[:, None, None] for part in (self.mean, self.sd))
        return (values - mean) / sd

    def __str__(self) -> str:
        if not self.mean:
            return f"pixel / {self.divisor:g}"
        mean, sd = (", ".join(f"{value:.4g}" for value in part) for part in (self.mean, self.sd))
        return f"(pixel / {self.divisor:g} - mean) / sd, mean ({mean}), sd ({sd})"


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """Images and labels of one split, kept as bytes.

    `wiu_pyro.fit`, `wiu_pyro.to_inference_data` and all else that takes data take it as it is, and make floating-point
    numbers of a batch at a time: a quarter of the memory of `tensors`.

    Attributes
    ----------
    pixels : Tensor of uint8, (num_images, channels, height, width)
        As stored.
    labels : Tensor of int64, (num_images,)
        Index into `class_names`.
    class_names : tuple of str
        Name of each class, in the order of the labels.
    name : str
        Name of the data set, or the folder's or tar's own name.
    split : str
        ``"train"`` or ``"test"``.
    prepare : Scaling
        How a network's inputs come from the pixels.

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

    pixels: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    name: str
    split: str
    prepare: Scaling = Scaling()

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        channels, height, width = self.pixels.shape[1:]
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
        return self.pixels.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[2], self.pixels.shape[3]

    @property
    def scaling(self) -> str:
        """How the inputs come from the stored pixels, in words, for example ``"pixel / 255"``."""
        return str(self.prepare)

    @property
    def images(self) -> Tensor:
        """All images as a network takes them: float32, (num_images, channels, height, width), made anew each time."""
        return self.prepare(self.pixels)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images and labels as tensors."""
        return self.images, self.labels

    @property
    def stored(self) -> tuple[Tensor, Tensor]:
        """Pixels and labels as they are kept."""
        return self.pixels, self.labels

    def first(self, number: int) -> ImageData:
        """Return the first images; all where there are no more."""
        return replace(self, pixels=self.pixels[:number], labels=self.labels[:number])

    def normalised(self, mean: tuple[float, ...], sd: tuple[float, ...]) -> ImageData:
        """Return the same images, for inputs from which a mean is taken and which are divided by a sd.

        Parameters
        ----------
        mean, sd : tuple of float, one for each channel
            Of the pixels after division, usually `channel_moments` of the training images.

        Returns
        -------
        ImageData

        Raises
        ------
        DataError
            If they are not one for each channel, or a sd is not positive.
        """
        if not len(mean) == len(sd) == self.in_channels or min(sd) <= 0:
            raise DataError(
                f"A mean and a positive sd are needed for each of the {self.in_channels} channels, but there are mean "
                f"{mean} and sd {sd}. ImageData.channel_moments() gives both."
            )
        return replace(self, prepare=replace(self.prepare, mean=tuple(mean), sd=tuple(sd)))

    def channel_moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and sd of each channel over all images, of the pixels after division.

        Returns
        -------
        mean, sd : tuple of float, one for each channel
        """
        counts = [
            torch.bincount(self.pixels[:, channel].flatten(), minlength=256) for channel in range(self.in_channels)
        ]
        weights = torch.stack(counts).double()  # (channels, 256)
        weights /= weights.sum(1, keepdim=True)
        values = torch.arange(256, dtype=torch.float64) / self.prepare.divisor
        mean = weights @ values  # (channels,)
        variance = (weights * (values - mean[:, None]).square()).sum(1)
        return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


def from_bytes(pixels: Tensor, labels: Tensor, class_names: tuple[str, ...], *, name: str, split: str) -> ImageData:
    """Return images stored as bytes, after a look at their labels.

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
    return ImageData(planes.permute(0, 3, 1, 2).contiguous(), labels, class_names, name, split)
