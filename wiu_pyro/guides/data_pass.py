"""The data of one Laplace approximation, and how to go over them: progress, checkpoint, shares of several processes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wiu_pyro.curvature import Accumulated, Checkpoint, DataStream, Processes, Totals, accumulate, fingerprint
from wiu_pyro.nn import Batches, count_batches, numbered_batches, unsampled
from wiu_pyro.progress import ProgressBar

if TYPE_CHECKING:
    from wiu_pyro.guides.laplace import LaplaceGuide

__all__ = ["DataPass", "peak_memory_bytes"]

Batch = tuple[torch.Tensor, ...]


class DataPass:
    """The data of one Laplace approximation; iterating gives all batches, `go_over` this process's share.

    Under torch.distributed each process takes every n-th batch, and the sums are added up. Where there are several
    processes or a checkpoint, the batches come in the dataset's own order, whatever the loader shuffles.

    Parameters
    ----------
    batches : Batches
    guide : LaplaceGuide
        Whose point estimate and settings the passes are for.
    checkpoint : str or Path, optional
        Each `go_over` has a file of its own here.
    checkpoint_seconds : float
        Least time between two writings.
    progress : bool
        Show a bar on stderr, in the first process.
    """

    def __init__(
        self,
        batches: Batches,
        guide: LaplaceGuide,
        *,
        checkpoint: str | Path | None = None,
        checkpoint_seconds: float = 60.0,
        progress: bool = False,
    ) -> None:
        self.batches, self.guide = batches, guide
        self.processes = Processes.present()
        self.checkpoint, self.checkpoint_seconds = checkpoint, checkpoint_seconds
        self.progress = progress and self.processes.rank == 0
        self.seconds = 0.0
        self._files: list[Checkpoint] = []
        if self.processes.count > 1:
            self.processes.refuse_differences(**self._belonging())

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def totals(self) -> Totals:
        """Return empty totals, with a seed that is the same in all processes.

        It comes from torch's global random state, which moves on by one draw, where labels are sampled.

        Returns
        -------
        Totals
        """
        sampled = self.guide.config.curvature == "fisher_mc"
        seed = int(torch.randint(2**62, ()).item()) if sampled else 0
        return Totals(self.processes.gather(seed)[0])

    def go_over(
        self,
        parts: Mapping[str, Accumulated],
        show: Callable[[Iterable[Batch], Iterable[int]], Iterable[Any]],
        totals: Totals,
    ) -> None:
        """Fill parts and totals by passes over the data; as `wiu_pyro.curvature.accumulate`.

        Parameters
        ----------
        parts : mapping of str to Accumulated
        show : callable
            Maps batches and their numbers to what they show of the layers.
        totals : Totals
        """
        began = time.perf_counter()
        processes, file = self.processes, self._file(parts)
        own = count_batches(self.batches, processes.rank, processes.count)
        passes = max((part.num_passes for part in parts.values()), default=0)
        with ProgressBar(None if own is None else own * passes, "curvature", self.progress) as bar:
            stream = DataStream(
                self._numbered if processes.count > 1 or file is not None else lambda start, step: iter(self.batches),
                processes=processes,
                checkpoint=file,
                notify=bar.advance,
                device=self.guide.loc.device,
            )
            accumulate(parts, show, stream, totals=totals)
        self.seconds += time.perf_counter() - began

    def _numbered(self, start: int, step: int) -> Iterator[Batch]:
        return numbered_batches(self.batches, start, step)

    def _file(self, parts: Mapping[str, Accumulated]) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        path, stage = Path(self.checkpoint), len(self._files)
        if stage:
            path = path.with_name(f"{path.name}.stage{stage + 1}")
        structures = {name: type(part).__name__ for name, part in parts.items()}
        file = Checkpoint(
            path,
            {**self._belonging(), "layers": repr(structures)},
            seconds=self.checkpoint_seconds,
            processes=self.processes,
        )
        self._files.append(file)
        return file

    def _belonging(self) -> dict[str, Any]:
        """Return what a share or a checkpoint must have in common with the others."""
        held = unsampled(self.guide.model, self.guide.structure.priors)
        prior = self.guide.flat_prior()
        first = next(numbered_batches(self.batches))
        return {
            "weights": fingerprint([self.guide.loc, *(held[name] for name in sorted(held))]),
            "prior": fingerprint([prior.loc, prior.scale]),
            "settings": repr((type(self.guide).__name__, self.guide.config.described())),
            "data": repr((count_batches(self.batches), self.batches.num_data, fingerprint(first))),
        }

    def end(self) -> None:
        """Remove the checkpoints: the posterior is made."""
        for file in self._files:
            file.remove()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory the process has held so far: of tensors on a GPU, of everything on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
