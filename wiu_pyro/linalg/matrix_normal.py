"""The covariance of a matrix-variate Normal, U ⊗ V: rows of a layer's weight matrix share V, columns share U.

Gupta and Nagar (1999), Matrix Variate Distributions, chapter 2. Both factors are given by lower triangular roots, so
that nothing of size (numel, numel) is formed.
"""

from __future__ import annotations

import torch
from typing_extensions import override

from wiu_pyro.linalg.dense import DensePrecision
from wiu_pyro.linalg.precision import Precision

__all__ = ["MatrixNormalPrecision"]


class MatrixNormalPrecision(Precision):
    """The precision of MN(0, U, V) for each group, with U = A A' and V = B B'.

    A variable is an entry of a matrix of shape (out, in), flattened row by row, group after group.

    Parameters
    ----------
    row_root : Tensor, shape (groups, out, out)
        A, lower triangular with a positive diagonal.
    column_root : Tensor, shape (groups, in, in)
        B, likewise.
    """

    def __init__(self, row_root: torch.Tensor, column_root: torch.Tensor) -> None:
        self.row_root, self.column_root = row_root, column_root
        self.matrix_shape = (len(row_root), row_root.shape[-1], column_root.shape[-1])
        self.numel = torch.Size(self.matrix_shape).numel()

    @override
    def with_prior(self, prior_precision: torch.Tensor) -> Precision:
        raise self._whole_error()

    @override
    def log_det_at(self, prior_precision: torch.Tensor) -> torch.Tensor:
        raise self._whole_error()

    def _matrices(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.reshape(*flat.shape[:-1], *self.matrix_shape)

    @override
    def colour(self, noise: torch.Tensor) -> torch.Tensor:
        return (self.row_root @ self._matrices(noise) @ self.column_root.mT).reshape(noise.shape)

    @override
    def quadratic(self, delta: torch.Tensor) -> torch.Tensor:
        matrix = self._matrices(delta).double()
        rows = torch.linalg.solve_triangular(self.row_root.double(), matrix, upper=False)
        whitened = torch.linalg.solve_triangular(self.column_root.double(), rows.mT, upper=False)
        return whitened.square().sum((-3, -2, -1))

    @override
    def log_det(self) -> torch.Tensor:
        _, out, width = self.matrix_shape
        rows, columns = (_log_diagonal(root) for root in (self.row_root, self.column_root))
        return -2 * (width * rows + out * columns)

    @override
    def variance(self) -> torch.Tensor:
        rows, columns = (root.square().sum(-1) for root in (self.row_root, self.column_root))
        return (rows[:, :, None] * columns[:, None, :]).reshape(-1)

    @override
    def conditional_variance(self) -> torch.Tensor:
        # 1 / (U⁻¹ ⊗ V⁻¹) on its diagonal
        rows, columns = (_conditional(root) for root in (self.row_root, self.column_root))
        return (rows[:, :, None] * columns[:, None, :]).reshape(-1).to(self.row_root.dtype)

    @override
    def covariance_of(self, jacobian: torch.Tensor) -> torch.Tensor:
        matrix = self._matrices(jacobian)
        whitened = (self.row_root.mT @ matrix @ self.column_root).flatten(-3)
        return whitened @ whitened.mT

    @override
    def covariance_between(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        (one, row, column), (two, other_row, other_column) = (self._places(index) for index in (rows, columns))
        within = self.row_root[one, row] @ self.row_root[two, other_row].mT
        across = self.column_root[one, column] @ self.column_root[two, other_column].mT
        return within * across * (one[:, None] == two)

    def _places(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return group, row and column of variables, each of the index's shape."""
        _, out, width = self.matrix_shape
        return index // (out * width), index // width % out, index % width

    @override
    def marginal(self, index: torch.Tensor) -> DensePrecision:
        block = self.covariance_between(index, index).double()
        return DensePrecision(torch.cholesky_inverse(torch.linalg.cholesky(block)), dtype=self.row_root.dtype)


def _log_diagonal(root: torch.Tensor) -> torch.Tensor:
    return root.diagonal(dim1=-2, dim2=-1).double().log().sum()


def _conditional(root: torch.Tensor) -> torch.Tensor:
    """Return one over the diagonal of (root root')⁻¹, shape (groups, size), float64."""
    eye = torch.eye(root.shape[-1], dtype=torch.float64, device=root.device).expand(root.shape)
    inverse = torch.linalg.solve_triangular(root.double(), eye, upper=False)
    return inverse.square().sum(-2).reciprocal()
