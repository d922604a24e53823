"""Any form of data as batches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from wiu_pyro.errors import DataError
from wiu_pyro.nn import as_batches
from wiu_pyro.nn.batches import _resident

X, Y = torch.arange(10.0)[:, None], torch.arange(10)
SET = TensorDataset(X, Y)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(SET)


@pytest.mark.parametrize(
    "data", [(X, Y), [X, Y], SET, torch.utils.data.Subset(SET, range(10)), DataLoader(SET, batch_size=4)]
)
def test_every_form_of_data_gives_the_same_batches(data):
    batches = as_batches(data, batch_size=4)
    for _ in range(2):  # again and again
        found = list(batches)
        assert [len(x) for x, _ in found] == [4, 4, 2]
        assert torch.equal(torch.cat([y for _, y in found]), Y)
    assert (len(batches), batches.num_data) == (3, 10)


def test_inputs_alone_are_batches_of_one_tensor():
    assert [len(batch) for batch in as_batches(X, batch_size=5)] == [1, 1]


@pytest.mark.parametrize("data", [(X, Y), torch.utils.data.Subset(SET, range(10))])
def test_generator_shuffles_anew_in_each_pass_and_pairs_stay_together(data):
    def passes(seed):
        batches = as_batches(data, batch_size=4, generator=torch.Generator().manual_seed(seed))
        return [list(batches) for _ in range(2)]

    orders = [[int(value) for _, y in one for value in y] for one in passes(0)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == list(range(10))
    assert all(torch.equal(x[:, 0].long(), y) for one in passes(0) for x, y in one)
    assert orders == [[int(value) for _, y in one for value in y] for one in passes(0)]


@pytest.mark.parametrize(
    ("loader", "num_data"),
    [
        (DataLoader(SET, batch_size=4, drop_last=True), 8),
        (DataLoader(SET, batch_size=2, sampler=SubsetRandomSampler(range(6))), 6),
        (DataLoader(SET, batch_size=None), None),
        (DataLoader(SET, batch_sampler=BatchSampler(SequentialSampler(range(6)), 3, False)), None),
        (DataLoader(Stream(), batch_size=4), None),
    ],
    ids=["drop-last", "sampler", "unbatched", "batch-sampler", "stream"],
)
def test_number_of_data_is_what_one_pass_sees_or_unknown(loader, num_data):
    assert as_batches(loader).num_data == num_data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("images.png", "must be a DataLoader, a Dataset or tensors .* but are a str"),
        ([], "must be a DataLoader, a Dataset or tensors"),
        ([(X, Y)], "but are a list of tuple. Pass for example"),
        ((X.numpy(), Y.numpy()), "but are a tuple of ndarray. Pass for example .images, labels., both as torch.Tensor"),
        ((X, Y[:4]), "Inputs and labels must be as many, but have 10, 4 rows"),
        ((X[:0], Y[:0]), "At least one datum is needed"),
        (TensorDataset(X[:0], Y[:0]), "The Dataset is empty"),
    ],
)
def test_what_are_no_data_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        as_batches(data)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_must_be_positive(batch_size):
    with pytest.raises(DataError, match=f"batch_size must be at least 1, but is {batch_size}"):
        as_batches((X, Y), batch_size=batch_size)


def test_loader_without_a_batch_is_refused():
    with pytest.raises(DataError, match="not a single batch"):
        list(as_batches(DataLoader(SET, batch_size=20, drop_last=True)))


def test_length_of_a_stream_is_refused_with_the_way_out():
    with pytest.raises(DataError, match="IterableDataset without a length"):
        len(as_batches(DataLoader(Stream(), batch_size=4)))


class Moved:
    """Stands for a tensor that says where it was moved."""

    def __init__(self) -> None:
        self.device, self.to = torch.device("cpu"), lambda device: (self, device)

    def numel(self) -> int:
        return 10

    def element_size(self) -> int:
        return 4


@pytest.mark.parametrize(("free", "moved"), [(160, True), (159, False)])
def test_data_go_to_a_gpu_at_once_where_they_fit_into_a_quarter_of_its_free_memory(monkeypatch, free, moved):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1000))
    part, gpu = Moved(), torch.device("cuda", 0)
    assert _resident((part,), gpu) == (((part, gpu),) if moved else (part,))


def test_data_stay_where_they_are_on_the_cpu():
    assert as_batches((X, Y), device=torch.device("cpu")).source[0] is X
