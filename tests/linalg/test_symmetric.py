"""Eigenvalues of matrices with rows of zeros, and what happens where LAPACK fails."""

from __future__ import annotations

import pytest
import torch

from wiu_pyro.errors import CurvatureError
from wiu_pyro.linalg.symmetric import symmetric_eigh


def factors() -> torch.Tensor:
    """Two positive semi-definite matrices with different rows of zeros, of which one has rank 2, and one without."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 9, 6, generator=generator, dtype=torch.float64)
    rows[1] = rows[1, :2].repeat(5, 1)[:9]
    rows[0][:, [1, 4]] = 0
    rows[1][:, [0]] = 0
    return rows.mT @ rows


def check(matrix: torch.Tensor) -> None:
    values, vectors = symmetric_eigh(matrix)
    torch.testing.assert_close((vectors * values[:, None]) @ vectors.mT, matrix)
    eye = torch.eye(6, dtype=torch.float64).expand(3, -1, -1)
    torch.testing.assert_close(vectors.mT @ vectors, eye)
    torch.testing.assert_close(values.sort(-1).values, torch.linalg.eigvalsh(matrix), atol=1e-12, rtol=1e-9)


def test_vectors_and_values_make_up_the_matrix():
    check(factors())


def test_matrix_of_zeros_has_unit_vectors():
    values, vectors = symmetric_eigh(torch.zeros(2, 3, 3))
    assert not values.any()
    assert torch.equal(vectors, torch.eye(3).expand(2, -1, -1))


def fail(*_: object) -> None:
    raise torch.linalg.LinAlgError("did not converge.")


def test_singular_vectors_stand_in_where_eigenvalues_do_not_converge(monkeypatch):
    matrix = factors()
    expected = torch.linalg.eigvalsh(matrix)
    monkeypatch.setattr(torch.linalg, "eigh", fail)
    values, vectors = symmetric_eigh(matrix)
    torch.testing.assert_close((vectors * values[:, None]) @ vectors.mT, matrix)
    torch.testing.assert_close(values.sort(-1).values, expected, atol=1e-12, rtol=1e-9)


def test_matrix_that_cannot_be_decomposed_is_refused(monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", fail)
    monkeypatch.setattr(torch.linalg, "svd", fail)
    with pytest.raises(CurvatureError, match=r"factor of 4 rows.*did not converge\. Take the diagonal"):
        symmetric_eigh(torch.eye(4)[None])
