"""Matrices of Gaussian posteriors over weights, in torch: diagonal, Kronecker-factored, dense."""

from wiu_pyro.linalg.precision import (
    DensePrecision,
    DiagonalPrecision,
    KroneckerPrecision,
    Precision,
    kl_from_diagonal_normal,
)

__all__ = ["DensePrecision", "DiagonalPrecision", "KroneckerPrecision", "Precision", "kl_from_diagonal_normal"]
