"""Matrices of Gaussian posteriors over weights, in torch: diagonal, Kronecker-factored, low rank, dense."""

from wiu_pyro.linalg.low_rank import LowRankCovariance
from wiu_pyro.linalg.precision import (
    DensePrecision,
    DiagonalPrecision,
    KroneckerPrecision,
    Precision,
    kl_from_diagonal_normal,
)

__all__ = [
    "DensePrecision",
    "DiagonalPrecision",
    "KroneckerPrecision",
    "LowRankCovariance",
    "Precision",
    "kl_from_diagonal_normal",
]
