"""Numbered batches: a part of the data's batches, from a number on and every so many, without loading the others.

Shares of several processes and passes that go on later need batches that mean the same each time. Where a DataLoader
shuffles, the dataset's own order is therefore taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from wiu_pyro.errors import DataError
from wiu_pyro.nn.batches import Batch, Batches

__all__ = ["count_batches", "numbered_batches"]


class _Every(Sampler[list[int]]):
    """Every `step`-th batch of indices from `start` on."""

    def __init__(self, batches: BatchSampler, start: int, step: int) -> None:
        self.batches, self.start, self.step = batches, start, step

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(iter(self.batches), self.start, None, self.step)

    def __len__(self) -> int:
        return max(0, -(-(len(self.batches) - self.start) // self.step))


def numbered_batches(batches: Batches, start: int = 0, step: int = 1) -> Iterator[Batch]:
    """Yield batches number `start`, `start + step`, ... in an order that is the same each time.

    Tensors and indexed datasets are not loaded for batches left out. A loader of a class of one's own, or one with a
    sampler of one's own, is asked for all of its batches: they must come in the same order each time.

    Parameters
    ----------
    batches : Batches
    start, step : int
        From 0; at least 1.

    Yields
    ------
    tuple of Tensor
        On the device of `batches`, without random changes.

    Raises
    ------
    DataError
        If a sampler draws with replacement: no order is its own.
    """
    if isinstance(batches.source, tuple):
        num, size = len(batches.source[0]), batches.batch_size
        found: Any = (
            tuple(part[first : first + size] for part in batches.source)
            for first in range(start * size, num, step * size)
        )
    else:
        loader = _in_order(batches.source)
        if _is_plain(loader):
            found = _loader(loader, _Every(loader.batch_sampler, start, step))
        else:
            found = itertools.islice(iter(loader), start, None, step)
    for batch in found:
        yield batches.plain().ready(tuple(batch) if isinstance(batch, list | tuple) else (batch,))


def count_batches(batches: Batches, start: int = 0, step: int = 1) -> int | None:
    """Return how many batches `numbered_batches` yields; None where the source does not say."""
    try:
        num = len(batches) if isinstance(batches.source, tuple) else len(_in_order(batches.source))
    except (DataError, TypeError):
        return None
    return max(0, -(-(num - start) // step))


def _is_plain(loader: Any) -> bool:
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.batch_sampler) is BatchSampler
    )


def _in_order(loader: Any) -> Any:
    """Return a loader of the same batches with a fixed order in place of a random one."""
    if not _is_plain(loader):
        return loader
    sampler, data = loader.batch_sampler.sampler, loader.dataset
    if isinstance(sampler, RandomSampler):
        if sampler.replacement or len(sampler) != len(data):
            raise DataError(
                "Batches that several processes share, or a checkpoint counts, need each datum once, but the loader "
                f"draws {len(sampler):,} of {len(data):,} at random. Pass one without a sampler."
            )
        fixed: Any = SequentialSampler(data)
    elif isinstance(sampler, DistributedSampler):  # shares are made here, without its repeated data
        fixed = SequentialSampler(data)
    elif isinstance(sampler, SubsetRandomSampler):
        fixed = list(sampler.indices)
    else:
        return loader
    return _loader(loader, BatchSampler(fixed, loader.batch_sampler.batch_size, loader.batch_sampler.drop_last))


def _loader(loader: DataLoader, sampler: Any) -> DataLoader:
    options: dict[str, Any] = {}
    if loader.num_workers:
        options = {"prefetch_factor": loader.prefetch_factor, "multiprocessing_context": loader.multiprocessing_context}
    return DataLoader(
        loader.dataset,
        batch_sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
        **options,
    )
