"""Data as batches: a DataLoader, a Dataset, tensors or stored images, all read the same way, again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from wiu_pyro.errors import DataError

__all__ = ["Batches", "as_batches"]

Batch = tuple[torch.Tensor, ...]
RESIDENT_SHARE = 0.25  # of a GPU's free memory, for the data


@dataclass(frozen=True)
class Batches:
    """Batches of data that can be iterated over any number of times.

    Attributes
    ----------
    source : DataLoader or tuple of Tensor
    batch_size : int
        Used for tensors; a DataLoader brings its own.
    generator : Generator or None
        Shuffles tensors anew in each pass when given; None keeps their order.
    device : device or None
        Where batches are moved.
    prepare : callable or None
        Makes a network's inputs of those stored, batch by batch, on the device: floating-point numbers of bytes.
    augment : callable or None
        Changes the inputs as they are stored, at random, before that.
    channels_last : bool
        Whether inputs of four dims, images, are laid out with their channels last.
    """

    source: Any
    batch_size: int
    generator: torch.Generator | None = None
    device: torch.device | None = None
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None
    augment: Callable[[torch.Tensor], torch.Tensor] | None = None
    channels_last: bool = False

    def __len__(self) -> int:
        if isinstance(self.source, tuple):
            return -(-len(self.source[0]) // self.batch_size)
        try:
            return len(self.source)
        except TypeError:
            raise DataError(
                "A known number of batches is needed, but this DataLoader reads an IterableDataset without a length. "
                "Give the dataset a __len__, or use a Dataset that is indexed."
            ) from None

    @property
    def num_data(self) -> int | None:
        """Number of data in one pass; None where the source does not say."""
        if isinstance(self.source, tuple):
            return len(self.source[0])
        size = getattr(self.source, "batch_size", None)  # None: the loader leaves batching to others
        if not size or isinstance(self.source.dataset, IterableDataset):
            return None
        num = len(self.source.sampler)  # what a pass sees: a sampler may leave data out
        return num // size * size if self.source.drop_last else num

    def __iter__(self) -> Iterator[Batch]:
        found = False
        for batch in self._batches():
            found = True
            yield self.ready(batch)
        if not found:
            raise DataError("Data are needed, but there is not a single batch. Check the Dataset or DataLoader.")

    def ready(self, batch: Batch) -> Batch:
        """Return a batch as it is stored in the form that a model is called with.

        Parameters
        ----------
        batch : tuple of Tensor

        Returns
        -------
        tuple of Tensor
            On the device.
        """
        moved = batch if self.device is None else tuple(_moved(part, self.device) for part in batch)
        inputs = moved[0]
        for change in (self.augment, self.prepare):
            inputs = inputs if change is None else change(inputs)
        if self.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return (inputs, *moved[1:])

    def plain(self) -> Batches:
        """Return the same batches without random changes of the inputs."""
        return replace(self, augment=None)

    def _batches(self) -> Iterator[Batch]:
        if not isinstance(self.source, tuple):
            for batch in self.source:
                yield tuple(batch) if isinstance(batch, list | tuple) else (batch,)
            return
        num = len(self.source[0])
        order = None if self.generator is None else torch.randperm(num, generator=self.generator)
        for start in range(0, num, self.batch_size):
            rows = slice(start, start + self.batch_size)
            index = rows if order is None else order[rows].to(self.source[0].device)
            yield tuple(part[index] for part in self.source)


def as_batches(
    data: Any,
    *,
    batch_size: int = 512,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Batches:
    """Read any form of data as batches.

    Parameters
    ----------
    data : DataLoader, Dataset, tensor or tuple of tensors, ImageData, or Batches
        Tensors share their first dim, the data.
    batch_size : int
        For tensors and Datasets.
    generator : Generator, optional
        Shuffle in each pass.
    device : device, optional
        Where batches are moved; tensors go to a GPU once, where they fit into a quarter of its free memory.

    Returns
    -------
    Batches

    Raises
    ------
    DataError
        If the data are of another kind, empty, of different lengths, or the batch size is not positive.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, but is {batch_size}. Pass for example 128.")
    if isinstance(data, Batches):
        return replace(data, generator=generator, device=device, augment=None)
    if hasattr(data, "stored") and hasattr(data, "prepare"):  # ImageData, or what keeps its inputs in another form too
        found = as_batches(data.stored, batch_size=batch_size, generator=generator, device=device)
        return replace(found, prepare=data.prepare)
    if isinstance(data, torch.Tensor):
        data = (data,)
    if isinstance(data, list | tuple) and data and all(isinstance(part, torch.Tensor) for part in data):
        _check_tensors(tuple(data))
        return Batches(_resident(tuple(data), device), batch_size, generator, device)
    if isinstance(data, DataLoader):
        return Batches(data, batch_size, None, device, prepare=getattr(data.dataset, "prepare", None))
    if isinstance(data, Dataset):
        if not isinstance(data, IterableDataset) and len(data) == 0:
            raise DataError("The Dataset is empty; at least one datum is needed.")
        if type(data).__name__ == "TensorDataset":
            return as_batches(tuple(data.tensors), batch_size=batch_size, generator=generator, device=device)
        shuffle = generator is not None and not isinstance(data, IterableDataset)
        loader = DataLoader(data, batch_size=batch_size, shuffle=shuffle, generator=generator)
        return as_batches(loader, batch_size=batch_size, device=device)
    kind = type(data).__name__
    if isinstance(data, list | tuple) and data:
        kind += f" of {type(data[0]).__name__}"
    raise DataError(
        f"Data must be a DataLoader, a Dataset or tensors (x, y), but are a {kind}. "
        "Pass for example (images, labels), both as torch.Tensor."
    )


def _moved(part: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor, to a GPU without waiting for it: from pinned memory alone does the copy run beside the rest."""
    if device.type == "cuda" and part.device.type == "cpu" and not part.is_pinned():
        part = part.pin_memory()
    return part.to(device, non_blocking=True)


def _resident(tensors: Batch, device: torch.device | None) -> Batch:
    """Move all data to a GPU once, where they take a small part of its memory; else batches are moved as they come."""
    if device is None or device.type != "cuda" or all(part.device == device for part in tensors):
        return tensors
    needed = sum(part.numel() * part.element_size() for part in tensors)
    free, _ = torch.cuda.mem_get_info(device)
    return tuple(part.to(device) for part in tensors) if needed <= RESIDENT_SHARE * free else tensors


def _check_tensors(tensors: Batch) -> None:
    lengths = {len(part) if part.dim() else 0 for part in tensors}
    if len(lengths) > 1:
        raise DataError(
            f"Inputs and labels must be as many, but have {', '.join(str(len(part)) for part in tensors)} rows. "
            "Pair each input with its label."
        )
    if lengths == {0}:
        raise DataError("At least one datum is needed, but the tensors are empty. Pass (images, labels).")
