"""Eigenvalues and roots of positive semi-definite matrices, which may be mostly zero."""

from __future__ import annotations

import torch

from wiu_pyro.errors import CurvatureError

__all__ = ["covariance_root", "symmetric_eigh"]


def covariance_root(covariance: torch.Tensor) -> torch.Tensor:
    """Return R with R R' = Σ, which may be singular; eigenvalues that rounding put below zero count as zero.

    Parameters
    ----------
    covariance : Tensor, shape (batch, size, size)
        Symmetric, positive semi-definite.

    Returns
    -------
    Tensor, shape (batch, size, size)
        Of the same dtype; computed in float64.

    Examples
    --------
    >>> covariance_root(torch.tensor([[[4.0, 0.0], [0.0, 0.0]]])).square().sum(-1).tolist()
    [[4.0, 0.0]]
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp(min=0).sqrt()[:, None, :]).to(covariance.dtype)


def symmetric_eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues and eigenvectors of a positive semi-definite matrix, the zero rows apart.

    Inputs that no datum has, such as pixels of the margin and the padding seen through a stack of convolutions, are
    rows of zeros: their eigenvectors are unit vectors, and what is left is smaller by as much. LAPACK's divide and
    conquer also fails on large matrices that are mostly zero.

    Parameters
    ----------
    matrix : Tensor, shape (groups, size, size)

    Returns
    -------
    values : Tensor, shape (groups, size)
        Ascending, but for rounding below zero.
    vectors : Tensor, shape (groups, size, size)
        In columns.

    Raises
    ------
    CurvatureError
        If neither the eigenvalues nor the singular values converge.

    Examples
    --------
    >>> symmetric_eigh(torch.tensor([[[4.0, 0.0], [0.0, 0.0]]]))[0].tolist()
    [[0.0, 4.0]]
    """
    live = (matrix != 0).any(-1)
    if live.all():
        return _eigh(matrix)
    values = matrix.new_zeros(matrix.shape[:-1])
    vectors = matrix.new_zeros(matrix.shape).mT  # columns in one piece, as LAPACK returns them
    for group, rows in enumerate(live):
        kept, left = rows.nonzero()[:, 0], (~rows).nonzero()[:, 0]
        vectors[group, left, torch.arange(len(left), device=left.device)] = 1
        if len(kept):
            own_values, own_vectors = _eigh(matrix[group, kept][:, kept][None])
            values[group, len(left) :] = own_values[0]
            columns = torch.arange(len(left), len(rows), device=left.device)
            vectors[group, kept[:, None], columns] = own_vectors[0]
    return values, vectors


def _eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        try:
            vectors = torch.linalg.svd(matrix)[0].flip(-1)  # the same for a positive semi-definite matrix
        except torch.linalg.LinAlgError as error:
            raise CurvatureError(
                f"The eigenvalues of a factor of {matrix.shape[-1]} rows are needed, but LAPACK does not find them: "
                f"{error} Take the diagonal for this layer, or more data for its curvature."
            ) from None
        return (vectors * (matrix @ vectors)).sum(-2), vectors
