"""Image files to arrays of bytes: one by one, or to one array, all of one size and one number of channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from wiu_pyro.errors import DataError

__all__ = ["decode", "decode_all"]

# PIL's mode of a file -> the mode it is read as; alpha is dropped only where it is opaque everywhere
READ_AS = {"1": "L", "L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}


def decode_all(streams: Iterable[tuple[int, IO[bytes]]], names: Sequence[str], source: Path) -> np.ndarray:
    """Decode images into one array.

    Parameters
    ----------
    streams : iterable of (int, binary file)
        Place in the result, and the bytes of the image file.
    names : sequence of str
        Name of the file at each place, for messages.
    source : Path
        The folder or tar they come from, for messages.

    Returns
    -------
    ndarray of uint8, (num_images, height, width, channels)
        One channel for grey images, three for colour.

    Raises
    ------
    DataError
        If an image cannot be read, is transparent or deeper than 8 bits, or has another size or other channels.
    """
    pixels: np.ndarray | None = None
    first = ""
    for place, stream in streams:
        image = decode(stream, names[place], source)
        if pixels is None:
            pixels, first = np.empty((len(names), *image.shape), np.uint8), names[place]
        if image.shape[:2] != pixels.shape[1:3]:
            raise DataError(
                f"Images of one size are needed in {source}; '{first}' has {_size(pixels[0])} and '{names[place]}' has "
                f"{_size(image)} pixels (width x height). Resize them to one size first."
            )
        if image.shape != pixels.shape[1:]:
            raise DataError(
                f"Images all grey or all colour are needed in {source}; '{first}' has {pixels.shape[3]} and "
                f"'{names[place]}' has {image.shape[2]} channels. Convert them to one kind first."
            )
        pixels[place] = image
    if pixels is None:
        raise DataError(f"At least one image is needed in {source}, but it holds none. Put images into it.")
    return pixels


def decode(stream: IO[bytes], name: str, source: Path) -> np.ndarray:
    """Decode one image.

    Parameters
    ----------
    stream : binary file
    name : str
        Of the file, for messages.
    source : Path
        The folder or tar it comes from, for messages.

    Returns
    -------
    ndarray of uint8, (height, width, channels)

    Raises
    ------
    DataError
        If it cannot be read, is transparent or deeper than 8 bits.
    """
    return _decode(stream, name, source)


def _decode(stream: IO[bytes], name: str, source: Path) -> np.ndarray:
    try:
        with Image.open(stream) as image:
            mode = READ_AS.get(image.mode)
            if mode is None:
                raise DataError(
                    f"Images of 8 bits a channel are needed; '{name}' in {source} has the mode {image.mode}. "
                    "Convert it to 8-bit grey or colour first."
                )
            if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                raise DataError(
                    f"Images without transparency are needed; '{name}' in {source} has transparent pixels. "
                    "Put it on a background colour of your choice first."
                )
            array = np.asarray(image.convert(mode))  # (height, width) or (height, width, 3)
    except (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"'{name}' in {source} cannot be read as an image: {error}. Repair or remove the file."
        ) from error
    return array if array.ndim == 3 else array[:, :, None]


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
