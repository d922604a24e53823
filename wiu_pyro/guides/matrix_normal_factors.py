"""The two factors of a layer's matrix-variate Normal, as parameters without constraints.

A covariance is kept by the root diag(s) (I + T), with T strictly lower triangular: s has the unit, T none, and any
values of log s and T are allowed.
"""

from __future__ import annotations

import torch
from torch import nn

from wiu_pyro.curvature import LayerRule

__all__ = ["LayerFactors", "Root"]


class Root(nn.Module):
    """A lower triangular root R of a covariance R R', or its diagonal alone.

    Parameters
    ----------
    log_scale : Tensor, shape (groups, size)
        Where log s starts.
    dense : bool
        Whether there is a T; it starts at zero.
    """

    def __init__(self, log_scale: torch.Tensor, *, dense: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(log_scale.clone())
        size = log_scale.shape[-1]
        self.lower = nn.Parameter(log_scale.new_zeros(len(log_scale), size, size)) if dense else None

    def matrix(self) -> torch.Tensor:
        """Return R, shape (groups, size, size)."""
        scale = self.log_scale.exp()
        if self.lower is None:
            return torch.diag_embed(scale)
        eye = torch.eye(scale.shape[-1], dtype=scale.dtype, device=scale.device)
        return scale[..., None] * (self.lower.tril(-1) + eye)

    def variances(self) -> torch.Tensor:
        """Return the diagonal of R R', shape (groups, size)."""
        squares = (2 * self.log_scale).exp()
        return squares if self.lower is None else squares * (1 + self.lower.tril(-1).square().sum(-1))

    def times(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return R M for M of shape (..., groups, size, k)."""
        if self.lower is None:
            return self.log_scale.exp()[..., None] * matrix
        return self.matrix() @ matrix

    def lengths(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return ‖R' x‖ for each row of x, shape (batch, size), of the only group; shape (batch,)."""
        if self.lower is None:
            return (vectors.square() @ (2 * self.log_scale[0]).exp()).sqrt()
        return torch.linalg.vector_norm(vectors @ self.matrix()[0], dim=-1)


class LayerFactors(nn.Module):
    """The covariance U ⊗ V of a layer's joint matrix of weights and biases, for each group.

    Parameters
    ----------
    rule : MatrixRule
        How the layer's parameters make a matrix.
    log_scale : Tensor, shape (groups, out, in [+ 1])
        Where the log of each weight's sd starts; rows get none of it.
    widest : int
        A side with more entries gets a diagonal factor.
    """

    def __init__(self, rule: LayerRule, log_scale: torch.Tensor, *, widest: int) -> None:
        super().__init__()
        self.rule = rule
        self.matrix_shape = tuple(log_scale.shape)
        columns = (2 * log_scale).exp().mean(1).log() / 2
        self.rows = Root(torch.zeros_like(log_scale[:, :, 0]), dense=log_scale.shape[1] <= widest)
        self.columns = Root(columns, dense=log_scale.shape[2] <= widest)

    @property
    def structure(self) -> str:
        """What the table of layers calls it."""
        diagonal = [name for name, root in (("rows", self.rows), ("columns", self.columns)) if root.lower is None]
        if len(diagonal) == 2:
            return "matrix-normal (diagonal)"
        return f"matrix-normal (diagonal {diagonal[0]})" if diagonal else "matrix-normal"

    def colour(self, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        """Turn standard Normal noise, shape (..., groups, out, in), into draws around zero: parameters by name."""
        coloured = self.columns.times(self.rows.times(noise).mT).mT
        return self.rule.split(coloured.flatten(-3))

    def variances(self) -> torch.Tensor:
        """Return the marginal variances in the rule's order, shape (numel,)."""
        return (self.rows.variances()[:, :, None] * self.columns.variances()[:, None, :]).reshape(-1)

    def log_scale_sum(self) -> torch.Tensor:
        """Return half the log determinant of U ⊗ V, over all groups."""
        _, out, width = self.matrix_shape
        return width * self.rows.log_scale.sum() + out * self.columns.log_scale.sum()
