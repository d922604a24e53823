"""Random changes of training images, for a batch at a time.

torchvision's v2 transforms draw one change for all images of a batch. Here each image of a batch has its own, drawn and
applied for all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wiu_pyro.errors import DataError

__all__ = ["FlipAndCrop", "PerImage"]


@dataclass(frozen=True)
class FlipAndCrop:
    """Mirror each image with probability a half, and cut it at a random place out of itself with a black border.

    The usual augmentation of CIFAR-10: `torchvision.transforms.v2.RandomCrop(size, padding=padding)`, then
    `RandomHorizontalFlip`, each image drawn for itself. Random numbers come from torch's global state of the CPU: the
    same on every device.

    Parameters
    ----------
    padding : int
        Width of the border, in pixels; 0 moves nothing.
    flip : bool
        Whether to mirror; not for digits and letters.

    Raises
    ------
    DataError
        If the padding is negative, or what it is called with is no batch of images.

    Examples
    --------
    >>> FlipAndCrop(padding=4)(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 3, 32, 32])
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise DataError(f"padding must be 0 or more pixels, but is {self.padding}. Pass for example 4.")

    def __call__(self, images: Tensor) -> Tensor:
        """Return changed images.

        Parameters
        ----------
        images : Tensor, (batch, channels, height, width)
            Of any type.

        Returns
        -------
        Tensor, of the same shape and type
        """
        _check(images)
        num, _, height, width = images.shape
        shifts = torch.randint(2 * self.padding + 1, (2, num, 1))
        mirrored = torch.rand(num, 1) < 0.5 * self.flip
        rows = torch.arange(height) + shifts[0]  # (batch, height), into the bordered image
        columns = torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width)) + shifts[1]
        place = rows[:, :, None] * (width + 2 * self.padding) + columns[:, None, :]  # (batch, height, width)
        place = place.view(num, 1, -1).to(images.device, non_blocking=True)
        bordered = torch.nn.functional.pad(images, (self.padding,) * 4).flatten(2)
        return bordered.gather(2, place.expand(-1, images.shape[1], -1)).view_as(images)


@dataclass(frozen=True)
class PerImage:
    """A change that is drawn for each image by itself, from a transform that draws one for whatever it is given.

    For any of `torchvision.transforms.v2`. Much slower than `FlipAndCrop`: the images of a batch go through one by one.

    Parameters
    ----------
    transform : callable
        Takes an image (channels, height, width) and returns one; all must come out in one shape.

    Examples
    --------
    >>> from torchvision.transforms import v2
    >>> PerImage(v2.RandomRotation(10))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    transform: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        """Return changed images.

        Parameters
        ----------
        images : Tensor, (batch, channels, height, width)

        Returns
        -------
        Tensor, (batch, channels, height, width)
            Of the size that the transform gives.
        """
        _check(images)
        return torch.stack([self.transform(image) for image in images])


def _check(images: Tensor) -> None:
    if images.dim() != 4:
        raise DataError(
            f"Images (batch, channels, height, width) are needed to be augmented, but these have the shape "
            f"{tuple(images.shape)}. Leave augment out for data that are no images."
        )
