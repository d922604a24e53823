"""Columns left out of the GGN: what a tolerance promises, and that it holds, against all columns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.curvature.networks import rules_of
from wiu_pyro.curvature import (
    CategoricalOutput,
    ColumnTruncation,
    CurvaturePass,
    DiagonalCurvature,
    EigenvalueCorrectedFactors,
    FullLayerCurvature,
    HessianColumns,
    KroneckerFactors,
    Portions,
)
from wiu_pyro.curvature import truncation as module
from wiu_pyro.datasets import load


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list[tuple[torch.Tensor, ...]]]:
    """Return a network trained on real digits, and batches of them."""
    x, y = load("digits", split="train").tensors
    x, y = x.flatten(1)[:1200], y[:1200]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 10))
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(150):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    net = net.double().eval()
    return net, list(x.double().split(100))


def accumulated(net, batches, kind, truncation=None, *, passes=1):
    found = {name: kind(rule) for name, rule in rules_of(net).items()}
    modules = {name: one.rule.module for name, one in found.items()}
    passed = CurvaturePass(lambda batch: CategoricalOutput(net(batch[0])), modules)
    for number in range(passes):
        for shown in passed.run(
            [(x,) for x in batches],
            lambda likelihood, _: HessianColumns(likelihood),
            portions=Portions.fitting(torch.device("cpu"), alone=kind is KroneckerFactors),
            truncation=truncation,
        ):
            for name, one in found.items():
                one.take(name, shown)
        for one in found.values():
            if number + 1 < passes:
                one.end_pass(number)
    return found


def trace_norm_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return (torch.linalg.eigvalsh(exact - found).abs().sum() / torch.linalg.eigvalsh(exact).abs().sum()).item()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_error_of_each_gradient_factor_is_within_the_tolerance(trained, tolerance):
    net, batches = trained
    truncation = ColumnTruncation(tolerance)
    exact = accumulated(net, batches, KroneckerFactors)
    found = accumulated(net, batches, KroneckerFactors, truncation)
    for name in exact:
        error = trace_norm_error(found[name].grad_factor[0], exact[name].grad_factor[0])
        assert 0 < error <= tolerance
        torch.testing.assert_close(found[name].input_factor, exact[name].input_factor)
    assert max(truncation.lost.values()) <= tolerance
    assert truncation.num_columns == 9 * 1200
    assert truncation.num_kept < 0.9 * truncation.num_columns


@pytest.mark.parametrize("kind", [DiagonalCurvature, FullLayerCurvature])
def test_other_structures_lose_no_more_than_the_tolerance(trained, kind):
    net, batches = trained
    if kind is FullLayerCurvature:
        batches = batches[:3]
    exact = accumulated(net, batches, kind)
    found = accumulated(net, batches, kind, ColumnTruncation(1e-2))
    for name in exact:
        whole, part = (next(iter(each[name].sums().values())) for each in (exact, found))
        whole, part = (one if one.dim() == 1 else one.diagonal() for one in (whole, part))
        assert (part <= whole + 1e-9).all()
        assert 0 < (whole - part).sum() <= 1e-2 * whole.sum()


def test_eigenvalue_corrected_factors_take_both_passes(trained):
    net, batches = trained
    exact = accumulated(net, batches, EigenvalueCorrectedFactors, passes=2)
    found = accumulated(net, batches, EigenvalueCorrectedFactors, ColumnTruncation(1e-3), passes=2)
    for name in exact:
        ratio = found[name].squares.sum() / exact[name].squares.sum()
        assert 0.99 < ratio < 1.0


def test_loss_is_measured_on_batches_that_had_no_part_in_the_choice(trained, monkeypatch):
    net, batches = trained
    monkeypatch.setattr(module, "AUDIT_EVERY", 3)
    truncation = ColumnTruncation(1e-2)
    accumulated(net, batches, KroneckerFactors, truncation)
    assert truncation.lost != truncation._chosen
    assert 0 < max(truncation.lost.values()) < 3e-2


def test_loss_above_the_tolerance_shows_when_later_data_are_unlike_the_first(trained, monkeypatch):
    """First data on which the largest columns decide, then data of which all columns are small."""
    net, batches = trained
    monkeypatch.setattr(module, "AUDIT_EVERY", 2)
    unsure, sure = [0.05 * x for x in batches[:2]], [3 * x for x in batches[2:]]
    truncation = ColumnTruncation(1e-3)
    accumulated(net, [*unsure, *sure], KroneckerFactors, truncation)
    assert max(truncation.lost.values()) > 1e-3


def test_loss_above_the_tolerance_shows_in_a_pass_too_short_for_a_second_whole_batch(trained):
    """Twelve batches, of which the first alone is taken whole and decides: the others' outputs tell them apart."""
    net, batches = trained
    unlike = [0.05 * batches[0], *[3 * x for x in batches[1:]]]
    truncation = ColumnTruncation(1e-3)
    exact = accumulated(net, unlike, KroneckerFactors)
    found = accumulated(net, unlike, KroneckerFactors, truncation)
    errors = [trace_norm_error(found[name].grad_factor[0], exact[name].grad_factor[0]) for name in exact]
    assert max(errors) > 1e-3
    assert max(truncation.lost.values()) > 1e-3


def test_parts_of_the_first_whole_batch_do_not_count_as_a_measurement(trained):
    """A part of it may have chosen a norm by which nothing was ever left out."""
    net, batches = trained
    truncation = ColumnTruncation(1e-3)
    accumulated(net, batches, DiagonalCurvature, truncation)  # takes a batch in parts
    assert not truncation._sums


def test_groups_hold_each_datum_at_most_once_with_its_largest_columns():
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(4, 200, 3, generator=generator) * torch.rand(4, 200, 1, generator=generator) ** 6
    truncation = ColumnTruncation(0.1, threshold=0.2)
    norms = columns.square().sum(-1)
    groups = list(truncation.groups(columns, most=64))
    rows = torch.cat([group.rows for group in groups])
    assert len(rows) == len(set(rows.tolist()))
    assert set(rows.tolist()) == set((norms >= 0.2).any(0).nonzero().flatten().tolist())
    for group in groups:
        assert len(group.rows) <= 64 + module.SMALLEST_GROUP // 2
        largest = norms[:, group.rows].sort(0, descending=True).values[: len(group.columns)]
        torch.testing.assert_close(group.columns.square().sum(-1), largest)
        assert (norms[:, group.rows] >= 0.2).sum(0).max() == len(group.columns)
