"""What is kept of the curvature: Kronecker factors, its diagonal, or the whole matrix; all summed over the data.

Kronecker factors follow the expand form of Eschenhagen et al. (2023), which for convolutions is that of Grosse and
Martens (2016): the block of a layer is G ⊗ A with G = Σ_nt g g' and A the mean of a a' over data and positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.nn.utils import parameters_to_vector

from wiu_pyro.curvature.capture import CapturedBatch
from wiu_pyro.curvature.rules import LayerRule, MatrixRule
from wiu_pyro.errors import CurvatureError

__all__ = ["DiagonalCurvature", "FullCurvature", "KroneckerFactors", "LayerCurvature", "hessian"]


@dataclass
class KroneckerFactors:
    """Kronecker factors of one layer's curvature, summed over the data seen.

    Attributes
    ----------
    rule : MatrixRule
    grad_factor : Tensor, shape (groups, out, out)
        Σ over data, positions and columns of g g'.
    input_sum : Tensor, shape (groups, in, in)
        Σ over data and positions of a a'.
    uses : int
        Data times positions seen.
    """

    rule: MatrixRule
    grad_factor: torch.Tensor | float = 0.0
    input_sum: torch.Tensor | float = 0.0
    uses: int = 0

    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        """Add one batch: inputs (batch, *input_shape), gradients (columns, batch, *output_shape)."""
        inputs = self.rule.inputs(layer_input).transpose(0, 1).flatten(1, 2)  # (groups, uses, in)
        outputs = self.rule.output_grads(grads)  # (columns, batch, groups, positions, out)
        outputs = outputs.permute(2, 0, 1, 3, 4).flatten(1, 3)  # (groups, columns * uses, out)
        self.input_sum = self.input_sum + inputs.mT @ inputs
        self.grad_factor = self.grad_factor + outputs.mT @ outputs
        self.uses += inputs.shape[1]

    @property
    def input_factor(self) -> torch.Tensor:
        """A: the mean of a a' over data and positions, shape (groups, in, in)."""
        return self.input_sum / self.uses  # type: ignore[return-value]


@dataclass
class DiagonalCurvature:
    """The exact diagonal of one layer's curvature, summed over the data seen: `diagonal` has shape (numel,)."""

    rule: LayerRule
    diagonal: torch.Tensor | float = 0.0

    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        """Add one batch: inputs (batch, *input_shape), gradients (columns, batch, *output_shape)."""
        self.diagonal = self.diagonal + self.rule.squared_sum(layer_input, grads)


LayerCurvature = KroneckerFactors | DiagonalCurvature


@dataclass
class FullCurvature:
    """The whole curvature of all layers together, in the order of `rules`: `matrix` has shape (numel, numel)."""

    rules: Mapping[str, LayerRule]
    matrix: torch.Tensor | float = 0.0

    def update(self, captured: CapturedBatch) -> None:
        """Add one batch."""
        parts = [rule.jacobian(captured.inputs[name], captured.grads[name]) for name, rule in self.rules.items()]
        jacobian = torch.cat(parts, -1).flatten(0, 1).double()  # (batch * columns, numel)
        self.matrix = self.matrix + jacobian.mT @ jacobian


def hessian(
    negative_log_likelihood: Callable[[tuple[torch.Tensor, ...]], torch.Tensor],
    batches: Iterable[tuple[torch.Tensor, ...]],
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
