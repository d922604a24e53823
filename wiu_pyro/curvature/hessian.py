"""The exact Hessian of a summed loss, for small networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch.nn.utils import parameters_to_vector
from typing_extensions import override

from wiu_pyro.curvature.accumulated import Accumulated
from wiu_pyro.errors import CurvatureError

__all__ = ["HessianSum", "hessian"]

Batch = tuple[torch.Tensor, ...]


def hessian(
    negative_log_likelihood: Callable[[Batch], torch.Tensor],
    batches: Iterable[Batch],
    parameters: Mapping[str, torch.Tensor],
    *,
    chunk_size: int = 64,
) -> torch.Tensor:
    """Return the exact Hessian of a summed loss, a chunk of rows at a time.

    Parameters
    ----------
    negative_log_likelihood : callable
        Maps a batch to the summed loss of its data, a scalar on the graph of `parameters`.
    batches : iterable of tuple of Tensor
    parameters : mapping of str to Tensor
        Leaves that require gradients, by name; numel is the sum of their sizes.
    chunk_size : int
        Rows computed at once.

    Returns
    -------
    Tensor, shape (numel, numel)
        Float64, symmetrised.

    Raises
    ------
    CurvatureError
        If the loss does not depend on a parameter.
    """
    leaves = list(parameters.values())
    numel = sum(leaf.numel() for leaf in leaves)
    total = torch.zeros(numel, numel, dtype=torch.float64, device=leaves[0].device)
    for batch in batches:
        with torch.enable_grad():
            loss = negative_log_likelihood(batch)
            gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is None:
                    raise CurvatureError(
                        f"Every weight with a prior must shape the loss, but '{name}' does not: no data came through "
                        "its layer. Leave it without a prior, or use it in the network's forward."
                    )
            flat = parameters_to_vector(gradients)
        for start in range(0, numel, chunk_size):
            rows = torch.zeros(min(chunk_size, numel - start), numel, dtype=flat.dtype, device=flat.device)
            rows[torch.arange(len(rows)), start + torch.arange(len(rows))] = 1
            seconds = torch.autograd.grad(
                flat, leaves, rows, retain_graph=True, is_grads_batched=True, materialize_grads=True
            )
            total[start : start + len(rows)] += torch.cat([part.flatten(1) for part in seconds], 1).double()
    return 0.5 * (total + total.mT)


class HessianSum(Accumulated):
    """The exact Hessian of a summed loss, accumulated batch by batch: `matrix` has shape (numel, numel), float64.

    Parameters
    ----------
    negative_log_likelihood : callable
        Maps a batch to the summed loss of its data.
    parameters : mapping of str to Tensor
        Leaves that require gradients, by name.
    """

    def __init__(
        self, negative_log_likelihood: Callable[[Batch], torch.Tensor], parameters: Mapping[str, torch.Tensor]
    ) -> None:
        self.negative_log_likelihood, self.parameters = negative_log_likelihood, parameters
        self.matrix: torch.Tensor | float = 0.0

    @override
    def take(self, name: str, shown: Batch) -> None:
        self.matrix = self.matrix + hessian(self.negative_log_likelihood, [shown], self.parameters)

    @override
    def sums(self) -> dict[str, torch.Tensor]:
        return {"matrix": self.matrix}  # type: ignore[dict-item]

    @override
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        self.matrix = sums["matrix"]
