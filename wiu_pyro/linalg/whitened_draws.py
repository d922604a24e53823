"""Draws of a Gaussian as sums and a few entries, without the draws: what a large layer's scalars need.

In coordinates in which the prior is the standard Normal and the posterior's draws are independent, sums of squares over
all variables cost one pass over the noise. Of a Kronecker eigenbasis (George et al. 2018) the way back to the weights,
two products of large matrices for each draw, is then gone for the asked entries alone.
"""

from __future__ import annotations

import torch
from typing_extensions import override

from wiu_pyro.linalg.diagonal import DiagonalPrecision
from wiu_pyro.linalg.kronecker import EigenbasisPrecision
from wiu_pyro.linalg.precision import Precision

__all__ = ["WhitenedDraws", "row_norms", "whitened_draws"]

ROW = 4_096  # summed in float32; the sums of rows are summed in float64


class WhitenedDraws:
    """Draws δ with covariance Λ⁻¹ in coordinates e, orthogonal to δ / prior sd: sums of squares of the two agree.

    Parameters
    ----------
    precision : Precision
        Λ.
    prior_scale : Tensor, shape (numel,)
    index : Tensor of int64
        The variables whose draws are asked for one by one.
    """

    def __init__(self, precision: Precision, prior_scale: torch.Tensor, index: torch.Tensor) -> None:
        self.precision, self.prior_scale, self.index = precision, prior_scale, index

    def coordinates(self, noise: torch.Tensor) -> torch.Tensor:
        """Return e of standard Normal noise, (draws, numel), which may be overwritten."""
        return self.precision.colour(noise).div_(self.prior_scale)

    def rotated(self, values: torch.Tensor) -> torch.Tensor:
        """Return values in units of the prior sd, (numel,), in the coordinates of e."""
        return values

    def entries(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return δ of the variables asked for, shape (draws, len(index))."""
        return coordinates[:, self.index] * self.prior_scale[self.index]


class _Independent(WhitenedDraws):
    def __init__(self, precision: DiagonalPrecision, prior_scale: torch.Tensor, index: torch.Tensor) -> None:
        super().__init__(precision, prior_scale, index)
        self.root = precision.precision.rsqrt() / prior_scale

    @override
    def coordinates(self, noise: torch.Tensor) -> torch.Tensor:
        return noise.mul_(self.root)


class _InEigenbasis(WhitenedDraws):
    precision: EigenbasisPrecision

    def __init__(self, precision: EigenbasisPrecision, prior_scale: torch.Tensor, index: torch.Tensor) -> None:
        super().__init__(precision, prior_scale, index)
        self.root = precision.inverse.sqrt().reshape(-1)
        _, out, width = precision.matrix_shape
        self.few = 4 * len(index) <= precision.numel
        if self.few:
            rows = index // width
            self.order = rows.argsort(stable=True)
            held, counts = rows.unique(return_counts=True)
            self.rows = list(zip(held.tolist(), counts.tolist(), strict=True))
            self.basis = precision.in_basis[rows // out, index % width][self.order]  # (len(index), in)

    @override
    def coordinates(self, noise: torch.Tensor) -> torch.Tensor:
        return noise.mul_(self.root)

    @override
    def rotated(self, values: torch.Tensor) -> torch.Tensor:
        matrix = values.reshape(self.precision.matrix_shape)
        return (self.precision.out_basis.mT @ matrix @ self.precision.in_basis).reshape(-1)

    @override
    def entries(self, coordinates: torch.Tensor) -> torch.Tensor:
        groups, out, width = self.precision.matrix_shape
        half = self.precision.out_basis @ coordinates.view(-1, groups, out, width)  # (draws, groups, out, in)
        found = coordinates.new_empty(len(coordinates), len(self.index))
        if self.few:
            half, first = half.view(len(coordinates), groups * out, width), 0
            for row, count in self.rows:
                own = slice(first, first + count)
                found[:, self.order[own]] = half[:, row] @ self.basis[own].mT
                first += count
        else:
            found = (half @ self.precision.in_basis.mT).view(len(coordinates), -1)[:, self.index]
        return found * self.prior_scale[self.index]


def whitened_draws(precision: Precision, prior_scale: torch.Tensor, index: torch.Tensor) -> WhitenedDraws:
    """Return the draws of N(0, Λ⁻¹) in the cheapest coordinates in which the prior is the standard Normal.

    Parameters
    ----------
    precision : Precision
        Λ.
    prior_scale : Tensor, shape (numel,)
        Prior sd, strictly positive.
    index : Tensor of int64
        The variables whose draws are asked for one by one.

    Returns
    -------
    WhitenedDraws

    Examples
    --------
    >>> precision = DiagonalPrecision(torch.tensor([4.0, 1.0]))
    >>> draws = whitened_draws(precision, torch.tensor([1.0, 2.0]), torch.tensor([1]))
    >>> coordinates = draws.coordinates(torch.ones(1, 2))
    >>> coordinates.tolist(), draws.entries(coordinates).tolist()
    ([[0.5, 0.5]], [[1.0]])
    """
    if isinstance(precision, DiagonalPrecision):
        return _Independent(precision, prior_scale, index)
    if isinstance(precision, EigenbasisPrecision):
        columns = prior_scale.view(precision.matrix_shape)
        if torch.allclose(precision.whitener.to(columns).expand_as(columns), columns, rtol=1e-5, atol=0.0):
            return _InEigenbasis(precision, prior_scale, index)
    return WhitenedDraws(precision, prior_scale, index)


def row_norms(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares of each row, shape (rows,), float64, without a copy of the values in float64.

    Parameters
    ----------
    values : Tensor, shape (rows, numel)

    Returns
    -------
    Tensor
    """
    full = values.shape[1] // ROW * ROW
    parts = values[:, :full].unflatten(1, (-1, ROW)) if full else values[:, :0, None]
    total = torch.linalg.vector_norm(parts, dim=-1).double().square().sum(1)
    return total + torch.linalg.vector_norm(values[:, full:], dim=-1).double().square()
