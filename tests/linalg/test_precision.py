"""Every precision against dense algebra in float64."""

from __future__ import annotations

import pytest
import torch

from wiu_pyro.errors import CurvatureError
from wiu_pyro.linalg import (
    DensePrecision,
    DiagonalPrecision,
    KroneckerPrecision,
    LowRankCovariance,
    kl_from_diagonal_normal,
)

KINDS = ("diagonal", "kronecker", "kronecker-groups", "kronecker-one-output", "dense", "low-rank")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(size: int, *, seed: int = 0, rank: int | None = None) -> torch.Tensor:
    root = random(size, rank or size + 2, seed=seed)
    return root @ root.mT


def kronecker(groups: int, out: int, in_: int, dtype: torch.dtype) -> tuple[KroneckerPrecision, torch.Tensor]:
    grad = torch.stack([positive(out, seed=group) for group in range(groups)])
    # rank-deficient, as inputs that are always zero make it
    inputs = torch.stack([positive(in_, seed=10 + group, rank=max(1, in_ - 1)) for group in range(groups)])
    q = random(in_, seed=3).abs() + 0.1
    blocks = [torch.kron(g, a) + torch.kron(torch.eye(out, dtype=q.dtype), q.diag()) for g, a in zip(grad, inputs)]
    return KroneckerPrecision(grad.to(dtype), inputs.to(dtype), q.to(dtype)), torch.block_diag(*blocks)


def make(kind: str, dtype: torch.dtype = torch.float64) -> tuple[object, torch.Tensor]:
    """Return an operator and the dense precision it stands for."""
    if kind == "diagonal":
        values = random(6).abs() + 0.1
        return DiagonalPrecision(values.to(dtype)), values.diag()
    if kind.startswith("kronecker"):
        sizes = {"kronecker": (1, 3, 4), "kronecker-groups": (2, 3, 2), "kronecker-one-output": (1, 1, 5)}
        return kronecker(*sizes[kind], dtype)
    if kind == "dense":
        matrix = positive(6) + 0.1 * torch.eye(6, dtype=torch.float64)
        return DensePrecision(matrix.to(dtype)), matrix
    factor, diagonal = random(7, 2), random(7, seed=1).abs() + 0.1
    covariance = factor @ factor.mT + diagonal.diag()
    return LowRankCovariance(factor.to(dtype), diagonal.to(dtype)), torch.linalg.inv(covariance)


@pytest.fixture(params=KINDS)
def case(request):
    return make(request.param)


def test_numel_is_the_size_of_the_matrix(case):
    operator, dense = case
    assert operator.numel == len(dense)


def test_log_det_is_that_of_the_dense_matrix(case):
    operator, dense = case
    torch.testing.assert_close(operator.log_det(), torch.logdet(dense))


def test_quadratic_form_is_that_of_the_dense_matrix(case):
    operator, dense = case
    delta = random(2, 3, len(dense), seed=5)
    torch.testing.assert_close(operator.quadratic(delta), torch.einsum("abi,ij,abj->ab", delta, dense, delta))


def test_marginal_variances_are_the_diagonal_of_the_inverse(case):
    operator, dense = case
    torch.testing.assert_close(operator.variance(), torch.linalg.inv(dense).diagonal())


def test_conditional_variances_are_one_over_the_diagonal(case):
    operator, dense = case
    torch.testing.assert_close(operator.conditional_variance(), 1 / dense.diagonal())


def test_colour_is_a_square_root_of_the_covariance(case):
    operator, dense = case
    root = operator.colour(torch.eye(len(dense), dtype=torch.float64))  # rows: images of the basis vectors
    torch.testing.assert_close(root.mT @ root, torch.linalg.inv(dense))


def test_covariance_of_is_the_sandwich_with_the_jacobian(case):
    operator, dense = case
    jacobian = random(4, 2, len(dense), seed=6)
    torch.testing.assert_close(operator.covariance_of(jacobian), jacobian @ torch.linalg.inv(dense) @ jacobian.mT)


def test_log_prob_and_entropy_are_those_of_torch(case):
    operator, dense = case
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(dense), dtype=dense.dtype), precision_matrix=dense)
    delta = random(3, len(dense), seed=7)
    torch.testing.assert_close(operator.log_prob(delta), normal.log_prob(delta))
    torch.testing.assert_close(operator.entropy(), normal.entropy())


def test_kl_from_diagonal_normal_is_that_of_torch(case):
    operator, dense = case
    delta, q = random(len(dense), seed=8), random(len(dense), seed=9).abs() + 0.2
    zero = torch.zeros_like(delta)
    posterior = torch.distributions.MultivariateNormal(delta, precision_matrix=dense)
    prior = torch.distributions.MultivariateNormal(zero, torch.diag(1 / q))
    expected = torch.distributions.kl_divergence(posterior, prior)
    torch.testing.assert_close(kl_from_diagonal_normal(operator, delta, prior_precision=q), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_operator_agrees_to_single_precision(kind):
    operator, dense = make(kind, torch.float32)
    assert operator.variance().dtype == torch.float32
    assert operator.log_det().dtype == torch.float64
    torch.testing.assert_close(operator.variance().double(), torch.linalg.inv(dense).diagonal(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(operator.log_det(), torch.logdet(dense), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "low-rank"])
def test_marginal_over_some_variables_drops_the_others_from_the_covariance(kind):
    operator, dense = make(kind)
    index = torch.tensor([4, 0, 2])
    expected = torch.linalg.inv(dense)[index][:, index]
    torch.testing.assert_close(operator.marginal(index).covariance_of(torch.eye(3, dtype=torch.float64)), expected)


def test_prior_enters_a_kronecker_precision_without_damping():
    """Where the curvature is zero in a direction, the posterior is the prior there, exactly."""
    grad, inputs = torch.eye(2)[None] * 1e6, torch.diag(torch.tensor([1.0, 0.0]))[None]
    operator = KroneckerPrecision(grad, inputs, torch.tensor([4.0, 9.0]))
    torch.testing.assert_close(operator.variance().view(2, 2)[:, 1], torch.tensor([1 / 9, 1 / 9]))


@pytest.mark.parametrize("bad", [[1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_diagonal_precision_refuses_what_is_not_positive_and_finite(bad):
    with pytest.raises(CurvatureError, match="needs positive finite entries"):
        DiagonalPrecision(torch.tensor(bad))


@pytest.mark.parametrize("factor", ["grad", "input"])
def test_kronecker_precision_refuses_a_factor_that_is_not_finite(factor):
    factors = {"grad": torch.eye(2)[None].clone(), "input": torch.eye(2)[None].clone()}
    factors[factor][0, 0, 0] = float("nan")
    with pytest.raises(CurvatureError, match=f"finite {factor} factor is needed"):
        KroneckerPrecision(factors["grad"], factors["input"], torch.ones(2))


def test_kronecker_precision_refuses_an_indefinite_factor():
    with pytest.raises(CurvatureError, match=r"positive semi-definite grad factor is needed.*-1"):
        KroneckerPrecision(torch.diag(torch.tensor([1.0, -1.0]))[None], torch.eye(2)[None], torch.ones(2))


def test_dense_precision_names_the_smallest_eigenvalue_of_a_saddle():
    with pytest.raises(CurvatureError, match=r"smallest eigenvalue is -0\.5 \(1 of 3 not positive\)"):
        DensePrecision(torch.diag(torch.tensor([1.0, -0.5, 2.0])))


def test_dense_precision_refuses_nan():
    with pytest.raises(CurvatureError, match="holds NaN or infinity"):
        DensePrecision(torch.full((2, 2), float("nan")))
