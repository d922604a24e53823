"""Parts of the data's batches: shares that make up the whole, and order that is the same each time."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from wiu_pyro.errors import DataError
from wiu_pyro.nn import as_batches, count_batches, numbered_batches

X, Y = torch.arange(11.0)[:, None], torch.arange(11)
SET = TensorDataset(X, Y)


class Counting(Dataset):
    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int):
        self.asked.append(index)
        return X[index], Y[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(SET)


class OwnLoader(DataLoader):
    pass


SOURCES = {
    "tensors": lambda: as_batches((X, Y), batch_size=3),
    "tensors-shuffled": lambda: as_batches((X, Y), batch_size=3, generator=torch.Generator().manual_seed(0)),
    "loader": lambda: as_batches(DataLoader(SET, batch_size=3)),
    "loader-shuffled": lambda: as_batches(DataLoader(SET, batch_size=3, shuffle=True)),
    "loader-distributed": lambda: as_batches(
        DataLoader(SET, batch_size=3, sampler=DistributedSampler(SET, num_replicas=2, rank=0))
    ),
    "loader-of-ones-own": lambda: as_batches(OwnLoader(SET, batch_size=3)),
    "stream": lambda: as_batches(DataLoader(Stream(), batch_size=3)),
}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("name", SOURCES)
def test_shares_make_up_the_whole_in_the_datas_order(name, count):
    batches = SOURCES[name]()
    shares = [list(numbered_batches(batches, rank, count)) for rank in range(count)]
    in_turn = [shares[number % count][number // count] for number in range(4)]
    assert sum(len(share) for share in shares) == 4  # the fifth process has none
    assert torch.equal(torch.cat([y for _, y in in_turn]), Y)
    assert all(torch.equal(x[:, 0].long(), y) for x, y in in_turn)
    if name != "stream":
        assert [count_batches(batches, rank, count) for rank in range(count)] == [len(share) for share in shares]


def test_batches_left_out_are_not_loaded():
    data = Counting()
    found = list(numbered_batches(as_batches(DataLoader(data, batch_size=3, shuffle=True)), 1, 2))
    assert data.asked == [3, 4, 5, 9, 10]
    assert [y.tolist() for _, y in found] == [[3, 4, 5], [9, 10]]


def test_a_subset_keeps_to_its_indices():
    loader = DataLoader(SET, batch_size=2, sampler=SubsetRandomSampler([8, 1, 5]))
    assert [y.tolist() for _, y in numbered_batches(as_batches(loader))] == [[8, 1], [5]]


def test_workers_and_a_rest_left_out_are_kept():
    loader = DataLoader(SET, batch_size=3, shuffle=True, drop_last=True, num_workers=1)
    assert [y.tolist() for _, y in numbered_batches(as_batches(loader), 1, 2)] == [[3, 4, 5]]


def test_draws_with_replacement_have_no_order():
    loader = DataLoader(SET, batch_size=3, sampler=RandomSampler(SET, replacement=True))
    with pytest.raises(DataError, match="need each datum once, but the loader draws 11 of 11 at random"):
        next(numbered_batches(as_batches(loader)))


def test_length_that_is_not_known_is_none():
    assert count_batches(as_batches(DataLoader(Stream(), batch_size=3))) is None
