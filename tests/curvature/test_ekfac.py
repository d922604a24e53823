"""Eigenvalue-corrected factors against the exact block, formed by `torch.func` one datum at a time."""

from __future__ import annotations

import pytest
import torch

from tests.curvature.networks import build, captured, ggn_of_layer, rules_of
from wiu_pyro.curvature import EigenvalueCorrectedFactors, KroneckerFactors
from wiu_pyro.curvature.rules import MatrixRule
from wiu_pyro.errors import CurvatureError, PriorError

F64 = torch.float64
NETWORKS = ("linear", "mlp", "no-bias", "sequence", "conv", "stride-padding", "grouped", "depthwise")


def both(name: str, *, batch: int | None = None, columns: torch.Tensor | None = None):
    """Yield each layer's KFAC and EKFAC after their passes, with the exact GGN block."""
    net, x = build(name)
    x = x[:batch]
    found = captured(net, x, lambda likelihood, _: likelihood.sqrt_hessian())
    for layer, rule in rules_of(net).items():
        if not isinstance(rule, MatrixRule):
            continue
        kfac, ekfac = KroneckerFactors(rule), EigenvalueCorrectedFactors(rule)
        if columns is not None:
            ekfac.check_prior(layer, columns[: rule.in_features].repeat(rule.numel // rule.in_features))
        kfac.update(found.inputs[layer], found.grads[layer])
        ekfac.update(found.inputs[layer], found.grads[layer])
        ekfac.end_pass(0)
        ekfac.update(found.inputs[layer], found.grads[layer])
        yield rule, kfac, ekfac, ggn_of_layer(net, x, layer)


def dense(precision) -> torch.Tensor:
    return torch.linalg.inv(precision.covariance_of(torch.eye(precision.numel, dtype=F64)))


def curvature_of(factors, rule, *, columns: torch.Tensor | None = None) -> torch.Tensor:
    """The curvature that a structure stands for: its precision without the prior."""
    q = torch.ones(rule.in_features, dtype=F64) if columns is None else columns[: rule.in_features]
    prior = q.repeat(rule.numel // rule.in_features)
    return dense(factors.precision(prior, scale=1.0)) - prior.diag()


@pytest.mark.parametrize("name", NETWORKS)
def test_eigenvalues_are_the_exact_blocks_diagonal_in_the_basis_of_the_factors(name):
    for _, _, ekfac, exact in both(name):
        basis = torch.block_diag(*[torch.kron(u, v) for u, v in zip(ekfac.out_basis, ekfac.in_basis)])
        torch.testing.assert_close(ekfac.squares.reshape(-1), (basis.mT @ exact @ basis).diagonal())


@pytest.mark.parametrize("name", NETWORKS)
def test_ekfac_is_never_further_from_the_exact_block_than_kfac(name):
    for rule, kfac, ekfac, exact in both(name):
        errors = [(curvature_of(one, rule) - exact).norm().item() for one in (ekfac, kfac)]
        assert errors[0] <= errors[1] * (1 + 1e-9)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_ekfac_is_nearest_in_the_measure_of_the_prior_where_its_columns_differ(name):
    columns = torch.linspace(0.5, 3.0, 30, dtype=F64)
    for rule, kfac, ekfac, exact in both(name, columns=columns):
        whitener = columns[: rule.in_features].rsqrt().repeat(rule.numel // rule.in_features)
        errors = [
            ((curvature_of(one, rule, columns=columns) - exact) * whitener * whitener[:, None]).norm().item()
            for one in (ekfac, kfac)
        ]
        assert errors[0] <= errors[1] * (1 + 1e-9)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_ekfac_of_one_datum_is_the_exact_block(name):
    for rule, _, ekfac, exact in both(name, batch=1):
        torch.testing.assert_close(curvature_of(ekfac, rule), exact, rtol=1e-9, atol=1e-10)


def test_ekfac_keeps_the_trace_of_the_exact_block():
    for rule, _, ekfac, exact in both("conv"):
        torch.testing.assert_close(curvature_of(ekfac, rule).trace(), exact.trace())


def test_either_order_of_rotation_gives_the_same():
    """Gradients of a sample are rotated before or after their positions are summed, whichever is cheaper."""
    ((_, _, first, _), *_) = both("conv")
    rule = first.rule
    inputs = torch.randn(4, 1, 30, rule.in_features, dtype=F64)
    outputs = torch.randn(2, 4, 1, 30, rule.out_features, dtype=F64)
    for positions in (2, 30):
        first.squares = torch.zeros(())
        first._add_positions(inputs[:, :, :positions], outputs[:, :, :, :positions])
        joint = torch.einsum("cngto,ngti->cngoi", outputs[:, :, :, :positions], inputs[:, :, :positions])
        expected = (first.out_basis.mT @ joint @ first.in_basis).square().sum((0, 1))
        torch.testing.assert_close(first.squares, expected)


def test_prior_may_change_by_a_factor_after_the_passes():
    for rule, _, ekfac, _ in both("mlp", columns=torch.linspace(0.5, 3.0, 30, dtype=F64)):
        prior = ekfac.column_precision.repeat(rule.out_features)
        expected = dense(ekfac.precision(prior, scale=2.0)) + 3 * prior.diag()
        torch.testing.assert_close(dense(ekfac.precision(4 * prior, scale=2.0)), expected)


def test_prior_of_other_ratios_is_refused():
    rule, _, ekfac, _ = next(both("linear"))
    prior = torch.linspace(1.0, 2.0, rule.in_features, dtype=F64).repeat(rule.out_features)
    with pytest.raises(PriorError, match="ratios they had during the pass, but these changed by factors from 1 to 2"):
        ekfac.precision(prior, scale=1.0)


def test_prior_that_differs_between_outputs_is_refused():
    rule = next(both("linear"))[0]
    with pytest.raises(PriorError, match="one prior scale per input column"):
        EigenvalueCorrectedFactors(rule).check_prior("fc", torch.linspace(1.0, 2.0, rule.numel, dtype=F64))


def test_curvature_that_is_not_finite_is_refused():
    rule, _, ekfac, _ = next(both("linear"))
    ekfac.squares = ekfac.squares * torch.nan
    with pytest.raises(CurvatureError, match="finite curvature is needed"):
        ekfac.precision(torch.ones(rule.numel, dtype=F64), scale=1.0)


def test_parts_of_the_data_add_up_in_both_passes():
    net, x = build("conv")
    parts = [captured(net, part, lambda likelihood, _: likelihood.sqrt_hessian()) for part in (x[:2], x[2:], x)]
    rule = rules_of(net)["0"]
    each, whole = [EigenvalueCorrectedFactors(rule) for _ in range(2)], EigenvalueCorrectedFactors(rule)
    for number in range(2):
        for one, part in zip((*each, whole), parts):
            one.update(part.inputs["0"], part.grads["0"])
        total = {name: each[0].sums()[name] + each[1].sums()[name] for name in each[0].sums()}
        for one in each:
            one.load_sums(total)
        if number == 0:
            for one in (*each, whole):
                one.end_pass(0)
            each[1].load_kept(each[0].kept())
    for one in each:
        torch.testing.assert_close(curvature_of(one, rule), curvature_of(whole, rule), rtol=1e-8, atol=1e-8)
