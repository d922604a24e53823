"""The processes that share a pass over the data, and how their sums are put together (torch.distributed).

Process `rank` of `count` takes every `count`-th batch. After a pass each tells the others whether it came through, and
the sums are added by ``all_reduce``: all processes hold the same curvature in the end, that of one process to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from wiu_pyro.curvature.accumulated import Accumulated
from wiu_pyro.errors import CurvatureError, WiuError

__all__ = ["Processes"]

T = TypeVar("T")
Spec = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class Processes:
    """The processes of a job.

    Attributes
    ----------
    rank : int
        This process's number, from 0.
    count : int
    what : str
        What they add up, for messages.
    error : type
        Of WiuError: raised where they cannot.
    """

    rank: int = 0
    count: int = 1
    what: str = "curvature"
    error: type[WiuError] = CurvatureError

    @classmethod
    def present(cls, what: str = "curvature", error: type[WiuError] = CurvatureError) -> Processes:
        """Return those of torch.distributed's default group; one process where that is not initialised."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size(), what, error)
        return cls(what=what, error=error)

    def gather(self, value: T) -> list[T]:
        """Return each process's value, by rank.

        Parameters
        ----------
        value : object
            This process's; can be pickled.

        Returns
        -------
        list

        Raises
        ------
        CurvatureError
            If a process is gone.
        """
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        try:
            distributed.all_gather_object(found, value)
        except RuntimeError as error:
            raise self.error(_gone(self, error)) from error
        return found

    def refuse_differences(self, **values: Any) -> None:
        """Raise unless each value is the same in all processes.

        Raises
        ------
        CurvatureError
            Naming the value and the first process that has another.
        """
        everyone = self.gather(values)
        for name, value in everyone[0].items():
            for rank, other in enumerate(everyone):
                if other.get(name) != value:
                    raise self.error(
                        f"Processes that share the data need the same {name}, but those of process {rank} differ from "
                        "process 0's. Load the same network and data in each, or seed each the same."
                    )

    def refuse_failed(self, error: BaseException | None = None) -> None:
        """Tell the others how this process's share went, and raise if that of another failed.

        Raises
        ------
        CurvatureError
            Naming the first process that failed and what it said; not in the process whose own `error` is given.
        """
        said = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is None:
            for rank, words in enumerate(said):
                if words is not None:
                    raise self.error(
                        f"The share of every process is needed, but process {rank} of {self.count} failed: {words} "
                        "Start all again when that is mended."
                    )

    def sum(self, value: torch.Tensor, *, of: str = "") -> torch.Tensor:
        """Return the sum of a tensor over the processes, on its device: nccl takes tensors on a GPU, gloo on the CPU.

        Parameters
        ----------
        value : Tensor, shape (*shape)
            Of the same shape in all.
        of : str
            The layer it is of, for messages.

        Returns
        -------
        Tensor, shape (*shape)

        Raises
        ------
        CurvatureError
            If a process is gone; of another kind where `error` says so.
        """
        if self.count == 1:
            return value
        kind = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        moved = value.detach().to(kind, copy=True).contiguous()
        try:
            distributed.all_reduce(moved)
        except RuntimeError as error:
            raise self.error(_gone(self, error, of)) from error
        return moved.to(value.device)

    def add_up(self, parts: Mapping[str, Accumulated], *, device: torch.device) -> None:
        """Replace each part's sums by those over all processes; a process without data counts as zero.

        Parameters
        ----------
        parts : mapping of str to Accumulated
            The same in all processes.
        device : device
            Where a process without data makes its zeros.

        Raises
        ------
        CurvatureError
            If a process is gone.
        """
        if self.count == 1:
            return
        for name, part in parts.items():
            mine = {key: value for key, value in part.sums().items() if isinstance(value, torch.Tensor)}
            specs: dict[str, Spec] = {}
            for other in self.gather({key: (tuple(value.shape), value.dtype) for key, value in mine.items()}):
                specs |= other
            total = {}
            for key, (shape, dtype) in sorted(specs.items()):
                value = mine[key] if key in mine else torch.zeros(shape, dtype=dtype, device=device)
                total[key] = self.sum(value, of=name)
            if total:
                part.load_sums(total)


def _gone(processes: Processes, error: BaseException, layer: str = "") -> str:
    what = f" of layer '{layer}'" if layer else ""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"All {processes.count} processes are needed to add up the {processes.what}{what}, but process "
        f"{processes.rank} lost the others ({reason}). One was killed, or ended early: see its own output. Start all "
        "again; with checkpoint= they go on where they were."
    )
