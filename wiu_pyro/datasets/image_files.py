"""Images that stay files until they are asked for, for data that do not fit into memory."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wiu_pyro.datasets.decode import decode
from wiu_pyro.datasets.folder import list_images
from wiu_pyro.datasets.image_data import Scaling, Split
from wiu_pyro.errors import DataError

__all__ = ["ImageFiles"]

PACKED = (".gz", ".tgz", ".bz2", ".xz")


class ImageFiles(Dataset):
    """One split of an image folder, or of a tar of one, each image decoded when it is asked for.

    `load` decodes all images once and keeps them, which is faster wherever they fit: 50,000 of 32 x 32 take 150 MB.

    Parameters
    ----------
    path : str or path
        As `load` takes a folder or tar. A tar must not be compressed, as images are read from their place in it.
    split : {"train", "test"}
    transform : callable, optional
        Of one image, uint8 (channels, height, width); one of `torchvision.transforms.v2` that brings all to one size,
        for example. What changes images at random belongs into ``fit(..., augment=...)``, which leaves the curvature
        without.
    prepare : Scaling
        How a network's inputs come from the pixels of a batch; wherever the toolkit takes data, it is done.

    Raises
    ------
    DataError
        If there is nothing at the path, it has another layout, or is a compressed tar.

    Examples
    --------
    >>> train = ImageFiles("images/", split="train", transform=v2.CenterCrop(224))  # doctest: +SKIP
    >>> fit = wiu.fit(model, guide, train.loader(shuffle=True, num_workers=4))  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        split: Split = "train",
        transform: Callable[[Tensor], Tensor] | None = None,
        prepare: Scaling = Scaling(),  # noqa: B008 (frozen)
    ) -> None:
        self.path, self.split = Path(path).expanduser(), split
        if self.path.suffix in PACKED:
            raise DataError(
                f"Images are read from their place in a tar, which must not be compressed, but {self.path} is. "
                "Unpack it and name the folder, or make a plain .tar."
            )
        self.class_names, self._entries = list_images(self.path, split)
        self.transform, self.prepare = transform, prepare
        index = {name: place for place, name in enumerate(self.class_names)}
        self.labels = torch.tensor([index[entry.class_name] for entry in self._entries])

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        entry = self._entries[number]
        with io.BytesIO(self._read(entry.source)) as stream:
            pixels = torch.from_numpy(decode(stream, entry.name, self.path).copy())
        image = pixels.permute(2, 0, 1).contiguous()  # (channels, height, width)
        return (image if self.transform is None else self.transform(image)), self.labels[number]

    def _read(self, source: Path | tarfile.TarInfo) -> bytes:
        if isinstance(source, Path):
            return source.read_bytes()
        with self.path.open("rb") as tar:  # opened anew: workers must not share a position
            tar.seek(source.offset_data)
            return tar.read(source.size)

    def loader(
        self, *, batch_size: int = 128, shuffle: bool = False, num_workers: int = 2, seed: int = 0, **options: Any
    ) -> DataLoader:
        """Return a DataLoader whose workers read and decode while the network computes.

        Parameters
        ----------
        batch_size : int
        shuffle : bool
            In each pass anew.
        num_workers : int
            Processes beside this one; 0 decodes in this one.
        seed : int
            Of the order.
        **options
            Of `torch.utils.data.DataLoader`.

        Returns
        -------
        DataLoader
            Its memory is pinned where there is a GPU, and its workers stay from pass to pass.
        """
        own = {"pin_memory": torch.cuda.is_available(), "persistent_workers": num_workers > 0}
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(self, batch_size, shuffle, num_workers=num_workers, generator=generator, **{**own, **options})
