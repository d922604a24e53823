"""Every precision against dense algebra in float64."""

from __future__ import annotations

import pytest
import torch

from wiu_pyro.errors import CurvatureError, PriorError
from wiu_pyro.linalg import (
    DensePrecision,
    DiagonalPrecision,
    EigenbasisPrecision,
    KroneckerPrecision,
    LowRankCovariance,
    MatrixNormalPrecision,
    kl_from_diagonal_normal,
)

WITH_PRIOR = ("diagonal", "kronecker", "kronecker-groups", "kronecker-one-output", "eigenbasis", "dense")
KINDS = (*WITH_PRIOR, "low-rank", "matrix-normal", "matrix-normal-groups")


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


def eigenbasis(groups: int, out: int, in_: int, dtype: torch.dtype) -> tuple[EigenbasisPrecision, torch.Tensor]:
    """Eigenvalues that are no outer product, in a basis made for unequal prior scales."""
    out_basis = torch.stack([torch.linalg.eigh(positive(out, seed=group))[1] for group in range(groups)])
    in_basis = torch.stack([torch.linalg.eigh(positive(in_, seed=20 + group))[1] for group in range(groups)])
    values, q = random(groups, out, in_, seed=4).square(), random(in_, seed=3).abs() + 0.1
    blocks = []
    for u, v, table in zip(out_basis, in_basis, values):
        basis = torch.kron(u, v)
        stretch = q.sqrt().repeat(out)
        blocks.append(stretch[:, None] * (basis * (1 + table.reshape(-1))) @ basis.mT * stretch)
    operator = EigenbasisPrecision(
        out_basis.to(dtype), in_basis.to(dtype), whitener=q.rsqrt().to(dtype), table=1 + values
    )
    return operator, torch.block_diag(*blocks)


def matrix_normal(groups: int, out: int, in_: int, dtype: torch.dtype) -> tuple[MatrixNormalPrecision, torch.Tensor]:
    rows = torch.linalg.cholesky(torch.stack([positive(out, seed=group) for group in range(groups)]))
    columns = torch.linalg.cholesky(torch.stack([positive(in_, seed=30 + group) for group in range(groups)]))
    blocks = [torch.linalg.inv(torch.kron(a @ a.mT, b @ b.mT)) for a, b in zip(rows, columns)]
    return MatrixNormalPrecision(rows.to(dtype), columns.to(dtype)), torch.block_diag(*blocks)


def make(kind: str, dtype: torch.dtype = torch.float64) -> tuple[object, torch.Tensor]:
    """Return an operator and the dense precision it stands for."""
    if kind == "diagonal":
        values, q = random(6).square(), random(6, seed=1).abs() + 0.1
        return DiagonalPrecision(values.to(dtype), q.to(dtype)), (values + q).diag()
    if kind.startswith("kronecker"):
        sizes = {"kronecker": (1, 3, 4), "kronecker-groups": (2, 3, 2), "kronecker-one-output": (1, 1, 5)}
        return kronecker(*sizes[kind], dtype)
    if kind == "eigenbasis":
        return eigenbasis(2, 3, 4, dtype)
    if kind.startswith("matrix-normal"):
        return matrix_normal(2 if kind.endswith("groups") else 1, 3, 4, dtype)
    if kind == "dense":
        matrix, q = positive(6, rank=3), random(6, seed=1).abs() + 0.1
        return DensePrecision(matrix.to(dtype), q.to(dtype)), matrix + q.diag()
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


def test_covariance_between_weights_is_that_entry_of_the_inverse(case):
    operator, dense = case
    rows, columns = torch.tensor([3, 0, 3]), torch.tensor([1, 3, 2, 0])
    found = operator.covariance_between(rows, columns)
    torch.testing.assert_close(found, torch.linalg.inv(dense)[rows][:, columns])


def test_whole_covariance_comes_in_chunks_too(case, monkeypatch):
    operator, dense = case
    monkeypatch.setattr("wiu_pyro.linalg.kronecker.MAX_ELEMENTS", 2 * len(dense))
    everything = torch.arange(len(dense))
    torch.testing.assert_close(operator.covariance_between(everything, everything), torch.linalg.inv(dense))


def other_prior(operator, change: str) -> torch.Tensor:
    """Return a prior precision other than the operator's: one factor on all, or one for each input column."""
    q = operator.prior_precision
    if change == "common":
        return 3.5 * q
    width = operator.matrix_shape[-1] if hasattr(operator, "matrix_shape") else len(q)
    return q * (random(width, seed=12).abs() + 0.3).repeat(len(q) // width)


BASIS_ONLY = ("eigenbasis", "columns")
CHANGES = [(kind, change) for kind in WITH_PRIOR for change in ("common", "columns") if (kind, change) != BASIS_ONLY]


@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_another_prior_changes_the_diagonal_of_the_dense_matrix_alone(kind, change):
    operator, dense = make(kind)
    q = other_prior(operator, change)
    expected = dense + (q - operator.prior_precision).diag()
    found = operator.with_prior(q)
    everything = torch.arange(len(dense))
    torch.testing.assert_close(found.prior_precision, q)
    torch.testing.assert_close(found.covariance_between(everything, everything), torch.linalg.inv(expected))
    torch.testing.assert_close(found.variance(), torch.linalg.inv(expected).diagonal())
    torch.testing.assert_close(found.conditional_variance(), 1 / expected.diagonal())
    torch.testing.assert_close(found.log_det(), torch.logdet(expected))
    back = found.with_prior(operator.prior_precision)
    torch.testing.assert_close(back.variance(), operator.variance())


@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_log_det_and_its_gradient_are_those_of_the_dense_matrix_under_another_prior(kind, change):
    operator, dense = make(kind)
    curvature = dense - operator.prior_precision.diag()
    ratio = (other_prior(operator, change) / operator.prior_precision).requires_grad_()
    found = operator.log_det_at(ratio * operator.prior_precision)
    expected = torch.logdet(curvature + (ratio * operator.prior_precision).diag())
    torch.testing.assert_close(found, expected)
    # along the directions that the structure can take: one factor for each input column, or for all
    width = operator.matrix_shape[-1] if hasattr(operator, "matrix_shape") else len(dense)
    ours, theirs = (torch.autograd.grad(value, ratio)[0].view(-1, width).sum(0) for value in (found, expected))
    if kind == "eigenbasis":
        ours, theirs = ours.sum(), theirs.sum()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", WITH_PRIOR)
def test_log_det_under_a_scaled_prior_and_its_gradient_are_those_of_the_dense_matrix(kind):
    operator, dense = make(kind)
    curvature = dense - operator.prior_precision.diag()
    for value in (0.2, 7.0):
        factor = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        found = operator.log_det_scaled(factor)
        expected = torch.logdet(curvature + (factor * operator.prior_precision).diag())
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found, factor), torch.autograd.grad(expected, factor))


def test_a_common_factor_on_the_prior_decomposes_nothing_again(monkeypatch):
    operator, _ = make("kronecker")

    def refuse(*args):
        raise AssertionError("decomposed again")

    for name in ("eigh", "eigvalsh"):
        monkeypatch.setattr(torch.linalg, name, refuse)
    other = operator.with_prior(2 * operator.prior_precision)
    assert other.in_basis is operator.in_basis
    assert torch.isfinite(operator.log_det_scaled(torch.tensor(2.0, dtype=torch.float64)))


def test_kronecker_precision_keeps_no_factor_beside_its_eigenvectors():
    operator, _ = make("kronecker")
    held = sum(value.numel() for value in vars(operator).values() if isinstance(value, torch.Tensor))
    groups, out, in_ = operator.matrix_shape
    assert held == groups * (out**2 + in_**2 + out + in_ + out * in_) + in_


def test_weights_of_dead_inputs_stay_at_their_prior_when_the_prior_changes():
    grad, inputs = positive(3)[None].float() * 1e5, positive(5)[None].float()
    inputs[:, 2], inputs[:, :, 2] = 0.0, 0.0
    operator = KroneckerPrecision(grad, inputs, torch.tensor([4.0, 4.0, 4.0, 4.0, 1.0]))
    found = operator.with_prior(torch.tensor([9.0, 9.0, 9.0, 9.0, 1.0]).repeat(3))
    torch.testing.assert_close(found.variance().view(3, 5)[:, 2], torch.full((3,), 1 / 9))


def test_eigenvalues_of_one_basis_refuse_a_prior_of_another_ratio():
    operator, _ = make("eigenbasis")
    q = other_prior(operator, "columns")
    with pytest.raises(PriorError, match=r"hold in that basis alone.*Scale the whole layer"):
        operator.with_prior(q)
    with pytest.raises(PriorError, match="hold in that basis alone"):
        operator.log_det_at(q)


def test_kronecker_precision_refuses_a_prior_that_differs_between_outputs():
    operator, _ = make("kronecker")
    with pytest.raises(PriorError, match="one prior precision for each input column"):
        operator.with_prior(operator.prior_precision * torch.arange(1, 13))


@pytest.mark.parametrize("kind", WITH_PRIOR)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: q[:-1], r"shape \(\d+,\), but the shape is"),
        (lambda q: 0 * q, "positive and finite, but the smallest is 0"),
        (lambda q: q * float("nan"), "positive and finite"),
    ],
)
def test_a_prior_that_is_none_is_refused(kind, change, message):
    operator, _ = make(kind)
    with pytest.raises(PriorError, match=message):
        operator.with_prior(change(operator.prior_precision))


@pytest.mark.parametrize(
    "operator",
    [DiagonalPrecision(torch.ones(2)), DensePrecision(torch.eye(2)), make("low-rank")[0], make("matrix-normal")[0]],
    ids=["diagonal", "dense", "low-rank", "matrix-normal"],
)
def test_a_precision_given_whole_has_no_prior_to_change(operator):
    assert operator.prior_precision is None
    q = torch.ones(operator.numel)
    for ask in (lambda: operator.with_prior(q), lambda: operator.log_det_at(q), lambda: operator.log_det_scaled(q[0])):
        with pytest.raises(PriorError, match=r"given whole. Fit the posterior again"):
            ask()


def test_a_prior_too_weak_for_negative_curvature_is_named():
    curvature = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    operator = DensePrecision(curvature, torch.ones(2, dtype=torch.float64))
    with pytest.raises(CurvatureError, match=r"smallest eigenvalue is -0\.4"):
        operator.with_prior(torch.full((2,), 0.1, dtype=torch.float64))
    assert torch.isnan(operator.log_det_scaled(torch.tensor(0.1, dtype=torch.float64)))


@pytest.mark.parametrize("table", [[0.5, 1.0], [float("nan"), 1.0]])
def test_eigenbasis_precision_refuses_negative_or_broken_curvature(table):
    with pytest.raises(CurvatureError, match="finite and not negative"):
        EigenbasisPrecision(
            torch.ones(1, 1, 1), torch.eye(2)[None], whitener=torch.ones(2), table=torch.tensor([[table]])
        )


@pytest.mark.parametrize("kind", KINDS)
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


def test_rounding_of_a_factor_summed_in_float32_is_no_negative_curvature():
    grad = torch.diag(torch.tensor([1.0, -1e-5]))[None]
    operator = KroneckerPrecision(grad, torch.eye(2)[None], torch.ones(2))
    torch.testing.assert_close(operator.variance(), torch.tensor([0.5, 0.5, 1.0, 1.0]))


def test_dense_precision_names_the_smallest_eigenvalue_of_a_saddle():
    with pytest.raises(CurvatureError, match=r"smallest eigenvalue is -0\.5 \(1 of 3 not positive\)"):
        DensePrecision(torch.diag(torch.tensor([1.0, -0.5, 2.0])))


def test_dense_precision_refuses_nan():
    with pytest.raises(CurvatureError, match="holds NaN or infinity"):
        DensePrecision(torch.full((2, 2), float("nan")))
