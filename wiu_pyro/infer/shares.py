"""A training shared by several processes (torch.distributed): each takes its part of every batch.

A part's −ELBO estimates that of the whole data. Weighted by the part's share of the batch's data, the losses and
gradients add up to those of the batch, as with one process: each then takes the same step, with its own optimiser. That
is what DistributedDataParallel does, for a loss that is a sum over the whole data.

Weights that are sampled once for a batch are the same in all processes, whose random states go along; noise of single
data (local reparametrisation, dropout) is drawn apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wiu_pyro.curvature import Processes, fingerprint
from wiu_pyro.errors import FitError, ModelError
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.nn import Batches, inspect_model, numbered_batches, unsampled

if TYPE_CHECKING:
    from wiu_pyro.infer.run import Run

__all__ = ["Shares"]

Batch = tuple[torch.Tensor, ...]


class Shares:
    """One process's part of the batches, and how the parts are put together.

    Parameters
    ----------
    run : Run
        Whose guide is set up.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.processes = Processes.present("gradients", FitError)
        self.common: torch.Tensor | None = None  # the random state that batches are drawn by, where it is another

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.processes.count

    def begin(self, parameters: list[torch.Tensor], batches: Batches) -> None:
        """Look whether all start from the same, and let noise of single data be drawn apart.

        Raises
        ------
        FitError
            If parameters or data differ.
        ModelError
            If a part of a batch would count as if it were all data.
        """
        if self.count == 1:
            return
        held = unsampled(self.run.model, self.run.structure.priors)
        with seeded(0, self.run.device):  # the training draws what it would in one process
            first = next(numbered_batches(batches))
            self.processes.refuse_differences(
                parameters=fingerprint([*parameters, *(held[name] for name in sorted(held))]),
                data=repr((len(batches), batches.num_data, fingerprint(first))),
            )
            self._refuse_unscaled(first)
        if _noise_per_datum(self.run):
            self.common = torch.get_rng_state()
            base = int(torch.randint(2**62, ()).item())
            torch.default_generator.manual_seed(base + self.processes.rank)
            if self.run.device.type == "cuda":
                with torch.cuda.device(self.run.device):
                    torch.cuda.manual_seed(base + self.processes.rank)

    def _refuse_unscaled(self, batch: Batch) -> None:
        whole, half = (tuple(part[:size] for part in batch) for size in (len(batch[0]), -(-len(batch[0]) // 2)))
        found = [inspect_model(self.run.model, *parts).num_data for parts in (whole, half)]
        if abs(found[0] - found[1]) > 0.5:
            raise ModelError(
                f"Processes that share a batch need a likelihood scaled to all data, but half of a batch stands for "
                f"{found[1]:g} and a batch for {found[0]:g}. Use BayesianNetwork, or "
                "pyro.plate('data', size=num_data, subsample=x)."
            )

    def batches(self, batches: Batches) -> Iterator[Batch]:
        """Yield whole batches, the same ones in all processes."""
        if self.common is None:
            yield from batches
            return
        own, source = torch.get_rng_state(), iter(batches)
        while True:  # a loader may shuffle and augment by the global state
            torch.set_rng_state(self.common)
            batch = next(source, None)
            self.common = torch.get_rng_state()
            torch.set_rng_state(own)
            if batch is None:
                return
            yield batch
            own = torch.get_rng_state()

    def of(self, batch: Batch) -> tuple[Batch, float]:
        """Return this process's part of a batch, and the part's share of its data."""
        if self.count == 1:
            return batch, 1.0
        num = len(batch[0])
        first, last = (num * (self.processes.rank + more) // self.count for more in (0, 1))
        if first == last:  # fewer data than processes: a datum that counts nothing keeps the random states together
            return tuple(part[:1] for part in batch), 0.0
        return tuple(part[first:last] for part in batch), (last - first) / num

    def add_up(self, parameters: list[torch.Tensor], value: float) -> float:
        """Replace the gradients by their sum over the processes, and return that of the losses.

        Parameters
        ----------
        parameters : list of Tensor
        value : float
            The loss of this process's part.

        Returns
        -------
        float

        Raises
        ------
        FitError
            If another process failed, or is gone.
        """
        if self.count == 1:
            return value
        found = self._sum(parameters, value, failed=False)
        failed = [rank for rank, flag in enumerate(found[1:]) if flag]
        if failed:
            raise FitError(
                f"The share of every process is needed, but process {failed[0]} of {self.count} failed: see its own "
                "output. Start all again when that is mended."
            )
        return found[0]

    def tell_failure(self, parameters: list[torch.Tensor]) -> None:
        """Let the others know that this process's share failed."""
        if self.count > 1:
            self._sum(parameters, 0.0, failed=True)

    def _sum(self, parameters: list[torch.Tensor], value: float, *, failed: bool) -> list[float]:
        """Return the sum of the losses and which processes failed, in one message with the gradients."""
        own = [0.0] * self.count
        own[self.processes.rank] = float(failed)
        notes = torch.tensor([value, *own], dtype=torch.float64)
        first = parameters[0]
        there = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None or failed else parameter.grad
            for parameter in parameters
        ]
        flat = torch.cat([there.to(first), *(gradient.reshape(-1).to(first) for gradient in gradients)])
        total = self.processes.sum(flat)
        moved = total.split([len(there), *(parameter.numel() for parameter in parameters)])
        for parameter, held, gradient in zip(parameters, moved[0].tolist(), moved[1:], strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if held else None
        return self.processes.sum(notes).tolist()

    def align(self) -> None:
        """Let all hold the running statistics of the first process, as each saw another part of the batches."""
        if self.count == 1 or not isinstance(self.run.model, nn.Module):
            return
        own = float(self.processes.rank == 0)
        for name, buffer in self.run.model.named_buffers():
            if not any(name == site or name.endswith(f".{site}") for site in self.run.structure.priors):
                total = self.processes.sum(buffer.detach().double() * own)
                buffer.copy_(total.to(buffer.dtype))


def _noise_per_datum(run: Run) -> bool:
    """Return whether random numbers are drawn for each datum, beside weights that are drawn once for all."""
    modules: list[Any] = list(run.model.modules()) if isinstance(run.model, nn.Module) else []
    dropout = any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in modules)
    return getattr(run.guide, "estimator", "reparam") != "reparam" or dropout
