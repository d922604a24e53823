"""Accumulate over passes of the same data: streaming, with a checkpoint, over the shares of several processes.

Nothing of a batch outlives it: memory is that of the sums and of one batch, whatever the number of data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from wiu_pyro.curvature.accumulated import Accumulated, Totals
from wiu_pyro.curvature.checkpoint import Checkpoint
from wiu_pyro.curvature.processes import Processes
from wiu_pyro.errors import CurvatureError

__all__ = ["DataStream", "accumulate"]

Batch = tuple[torch.Tensor, ...]
TOTALS = "totals"  # of the pass, in a checkpoint; a layer's name stands under "parts"


@dataclass(frozen=True)
class DataStream:
    """The data of the passes, and what happens beside them.

    Attributes
    ----------
    batches : callable
        Maps a first number and a step to an iterator of the batches so numbered; the same in every pass and process.
    processes : Processes
        Who shares them.
    checkpoint : Checkpoint or None
    notify : callable
        Called after each batch of this process.
    device : device
        Where the sums are.
    """

    batches: Callable[[int, int], Iterator[Batch]]
    processes: Processes = Processes()
    checkpoint: Checkpoint | None = None
    notify: Callable[[], None] = lambda: None
    device: torch.device = torch.device("cpu")


def accumulate(
    parts: Mapping[str, Accumulated],
    show: Callable[[Iterable[Batch], Iterable[int]], Iterable[Any]],
    stream: DataStream,
    *,
    totals: Totals | None = None,
) -> None:
    """Go over the data as often as the parts need, and add what each batch shows to each part.

    Parameters
    ----------
    parts : mapping of str to Accumulated
        By layer; filled in place.
    show : callable
        Maps batches and their numbers to what they show, lazily: it asks for a batch when what it gave for the one
        before has been used.
    stream : DataStream
    totals : Totals, optional
        Filled by `show` in the first pass.

    Raises
    ------
    CurvatureError
        If a sum is not finite, naming layer and batch; if the share of another process failed; or if the checkpoint
        belongs to another pass.
    """
    _Accumulation(dict(parts), show, stream, totals or Totals()).run()


class _Accumulation:
    """The state of the passes: which pass, how many of this process's batches are in the sums."""

    def __init__(self, parts: dict[str, Accumulated], show: Any, stream: DataStream, totals: Totals) -> None:
        self.parts, self.show, self.stream, self.totals = parts, show, stream, totals
        self.passes = max((part.num_passes for part in parts.values()), default=0)
        self.number, self.done = 0, 0

    def run(self) -> None:
        self._resume()
        for number in range(self.number, self.passes):
            self.number = number
            self.totals.is_open = self.number == 0
            taking = {name: part for name, part in self.parts.items() if self.number < part.num_passes}
            try:
                self._one_pass(taking)
            except Exception as error:
                self.stream.processes.refuse_failed(error)  # so that the others do not wait for this one
                raise
            self.stream.processes.refuse_failed()
            summed: dict[str, Accumulated] = {**taking, TOTALS: self.totals} if self.number == 0 else dict(taking)
            self.stream.processes.add_up(summed, device=self.stream.device)
            for part in taking.values():
                if self.number + 1 < part.num_passes:
                    part.end_pass(self.number)
            self.done = 0
            if self.stream.checkpoint is not None:
                self._write(self.number + 1)

    def _one_pass(self, taking: Mapping[str, Accumulated]) -> None:
        rank, count = self.stream.processes.rank, self.stream.processes.count
        start = rank + self.done * count
        shown = self.show(self._batches(taking, start, count), itertools.count(start, count))
        for one in shown:
            for name, part in taking.items():
                part.take(name, one)
            del one  # a batch's tensors go before the next one's come

    def _batches(self, taking: Mapping[str, Accumulated], start: int, step: int) -> Iterator[Batch]:
        """Yield this process's batches; what follows the yield happens when one is in the sums."""
        for index, batch in zip(itertools.count(start, step), self.stream.batches(start, step), strict=False):
            yield batch
            self.done += 1
            _refuse_not_finite(taking, index)
            self.stream.notify()
            if self.stream.checkpoint is not None and self.stream.checkpoint.is_due():
                self._write(self.number)

    def _write(self, number: int) -> None:
        assert self.stream.checkpoint is not None  # noqa: S101 (for the type checker)
        self.stream.checkpoint.write(
            {
                "number": number,
                "done": self.done,
                TOTALS: {"sums": self.totals.sums(), "kept": self.totals.kept()},
                "parts": {name: {"sums": _tensors(part), "kept": part.kept()} for name, part in self.parts.items()},
            }
        )

    def _resume(self) -> None:
        checkpoint, processes = self.stream.checkpoint, self.stream.processes
        if checkpoint is None:
            return
        state = checkpoint.read(self.stream.device)
        numbers = processes.gather(None if state is None else state["number"])
        if state is None or len(set(numbers)) > 1:  # some were killed in another pass: all begin anew
            return
        for name, part in self.parts.items():
            part.load_kept(state["parts"][name]["kept"])
            if state["parts"][name]["sums"]:
                part.load_sums(state["parts"][name]["sums"])
        self.totals.load_sums(state[TOTALS]["sums"])
        self.totals.load_kept(state[TOTALS]["kept"])
        self.number, self.done = state["number"], state["done"]
        for _ in range(self.done):
            self.stream.notify()


def _tensors(part: Accumulated) -> dict[str, torch.Tensor]:
    """Return a part's sums, or none where it has not begun (they start as plain zeros)."""
    sums = part.sums()
    return sums if all(isinstance(value, torch.Tensor) for value in sums.values()) else {}


def _refuse_not_finite(parts: Mapping[str, Accumulated], index: int) -> None:
    found = {name: [value.sum().double() for value in part.probes()] for name, part in parts.items()}
    each = {name: sum(values[1:], values[0]) for name, values in found.items() if values}
    if not each:
        return
    device = next(iter(each.values())).device
    if torch.isfinite(torch.stack([one.to(device) for one in each.values()])).all():  # one look, not one for each
        return
    for name, one in each.items():
        if not torch.isfinite(one):
            raise CurvatureError(
                f"A curvature must be finite, but that of layer '{name}' is NaN or infinite since batch {index}. "
                "Look for extreme values in that batch and in the layer's weights; float64 takes larger ones."
            )
