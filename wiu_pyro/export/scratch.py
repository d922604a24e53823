"""Room for the draws that are kept: in memory, or in files that vanish with the process where they are large."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wiu_pyro.errors import OutputError

__all__ = ["IN_MEMORY", "release", "room_for"]

IN_MEMORY = 256_000_000  # bytes of kept draws, of all sites together


def room_for(shapes: Mapping[str, tuple[int, ...]], folder: Path | None) -> dict[str, np.ndarray]:
    """Return an array for each site, to be filled in.

    Parameters
    ----------
    shapes : mapping of site to tuple of int
    folder : Path or None
        Where arrays lie that are too large for memory together; None keeps all in memory.

    Returns
    -------
    dict of site to ndarray, float32

    Raises
    ------
    OutputError
        If the folder's disk has no room for them.
    """
    sizes = {site: 4 * int(np.prod(shape, dtype=np.int64)) for site, shape in shapes.items()}
    if folder is None or sum(sizes.values()) <= IN_MEMORY:
        return {site: np.empty(shape, np.float32) for site, shape in shapes.items()}
    free = shutil.disk_usage(folder).free
    if 2 * sum(sizes.values()) > free:  # here and in the file
        raise OutputError(
            f"Room for {2 * sum(sizes.values()) / 1e9:,.1f} GB is needed for the draws, once beside the file and once "
            f"in it, but the disk of '{folder}' has {free / 1e9:,.1f} GB left. Keep fewer: max_weights_per_layer=2000, "
            "or a smaller num_samples."
        )
    return {
        site: _on_disk(shape, sizes[site], folder) if sizes[site] else np.empty(shape, np.float32)
        for site, shape in shapes.items()
    }


def _on_disk(shape: tuple[int, ...], size: int, folder: Path) -> np.ndarray:
    with tempfile.TemporaryFile(dir=folder) as file:  # without a name: nothing is left of it whatever happens
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # a disk that fills up is an error here, not a crash later
        else:
            file.truncate(size)
        return np.memmap(file, np.float32, "r+", shape=shape)


def release(array: np.ndarray) -> None:
    """Let go of the memory behind an array that lies in a file; its values stay there.

    Parameters
    ----------
    array : ndarray
        One of `room_for`'s; of one in memory nothing is done.
    """
    if isinstance(array, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)
