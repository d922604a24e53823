"""Matrices of Gaussian posteriors over weights, in torch: diagonal, Kronecker-factored, low rank, dense."""

from wiu_pyro.linalg.dense import DensePrecision
from wiu_pyro.linalg.diagonal import DiagonalPrecision
from wiu_pyro.linalg.kronecker import EigenbasisPrecision, KroneckerPrecision, factor_eigh, whitened
from wiu_pyro.linalg.low_rank import LowRankCovariance
from wiu_pyro.linalg.matrix_normal import MatrixNormalPrecision
from wiu_pyro.linalg.precision import Precision, kl_from_diagonal_normal
from wiu_pyro.linalg.symmetric import covariance_root
from wiu_pyro.linalg.whitened_draws import WhitenedDraws, row_norms, whitened_draws

__all__ = [
    "DensePrecision",
    "DiagonalPrecision",
    "EigenbasisPrecision",
    "KroneckerPrecision",
    "LowRankCovariance",
    "MatrixNormalPrecision",
    "Precision",
    "WhitenedDraws",
    "covariance_root",
    "factor_eigh",
    "kl_from_diagonal_normal",
    "row_norms",
    "whitened",
    "whitened_draws",
]
