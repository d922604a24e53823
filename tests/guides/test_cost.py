"""What a posterior takes, said before it is allocated, and what is done where it would not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from wiu_pyro.curvature import CurvaturePass
from wiu_pyro.errors import CostError, GuideError
from wiu_pyro.guides import (
    AutoBlockDiagonalLaplace,
    AutoDiagonalLaplace,
    AutoEKFACLaplace,
    AutoFullLaplace,
    AutoKFACLaplace,
    AutoLaplace,
    AutoSubnetworkLaplace,
    cost_measured,
)
from wiu_pyro.nn import BayesianNetwork

DATA = (torch.randn(40, 30, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3)


def network() -> BayesianNetwork:
    torch.manual_seed(0)
    return BayesianNetwork(nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 3)), num_data=40).eval()


def test_memory_of_a_diagonal_is_its_sum_its_precision_and_what_that_is_made_of():
    cost = AutoDiagonalLaplace(network()).cost(*DATA)
    assert [layer.name for layer in cost.layers] == ["0", "2"]
    assert [layer.memory_bytes for layer in cost.layers] == [4 * 4 * 620, 4 * 4 * 63]
    assert cost.memory_bytes == 16 * 683
    assert cost.fits


@pytest.mark.parametrize("guide_class", [AutoKFACLaplace, AutoDiagonalLaplace, AutoEKFACLaplace, AutoFullLaplace])
def test_memory_kept_is_about_that_of_the_posterior(guide_class):
    """The tensors that the precisions hold in the end are at most what was said, and at least a third of it."""
    guide = guide_class(network())
    said = guide.cost(*DATA).memory_bytes
    blocks = guide.laplace_approximation(*DATA).blocks
    held = sum(
        value.nbytes for block in blocks for value in vars(block.precision).values() if isinstance(value, torch.Tensor)
    )
    assert said / 3 <= held <= 1.2 * said


def test_scratch_of_a_decomposition_grows_with_the_square_of_the_larger_side():
    cost = AutoKFACLaplace(network()).cost(*DATA)
    assert [layer.scratch_bytes for layer in cost.layers] == [32 * 31**2, 32 * 21**2]
    assert cost.peak_bytes == cost.memory_bytes + max(cost.batch_bytes, 32 * 31**2)


def test_time_grows_with_the_data_and_with_the_passes():
    once = AutoKFACLaplace(network()).cost(*DATA)
    many = AutoKFACLaplace(network()).cost(DATA[0].repeat(50, 1), DATA[1].repeat(50))
    assert many.pass_seconds > 5 * once.pass_seconds
    assert once.decomposition_seconds > 0
    assert "timed on 32 data" in once.measured


def test_time_of_many_classes_is_that_of_one_column_times_their_number(monkeypatch):
    backwards = []
    run = CurvaturePass.run

    def counted(self, batches, columns, **options):
        for shown in run(self, batches, columns, **options):
            backwards.append(next(iter(shown.grads.values())).shape[:2])
            yield shown

    monkeypatch.setattr(CurvaturePass, "run", counted)
    guide = AutoKFACLaplace(network())
    few = guide.cost(*DATA)
    assert "timed on 32 data" in few.measured
    assert {tuple(shape) for shape in backwards} == {(2, 32)}
    backwards.clear()
    monkeypatch.setattr(cost_measured, "MOST_SECONDS", 0.0)
    long = guide.cost(*DATA)
    assert "timed on one datum, times 2 columns" in long.measured
    assert {tuple(shape) for shape in backwards} == {(1, 1)}
    assert long.pass_seconds > 0
    assert few.batch_bytes <= long.batch_bytes <= 2 * few.batch_bytes  # inputs are counted once for each column


def test_data_of_unknown_length_have_an_unknown_time():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(TensorDataset(*DATA))

    cost = AutoKFACLaplace(network()).cost(DataLoader(Stream(), batch_size=8))
    assert cost.pass_seconds is None
    assert "Time: not known over the data" in str(cost)


def test_cost_is_printed_as_a_table():
    shown = str(AutoKFACLaplace(network()).cost(*DATA)).splitlines()
    assert shown[0].split() == ["layer", "structure", "weights", "memory", "scratch", "seconds"]
    assert shown[1].split()[:3] == ["0", "kfac", "620"]
    assert shown[3].endswith("it may take: it fits.")


@pytest.mark.parametrize(
    ("guide_class", "options", "numel"),
    [(AutoFullLaplace, {}, 683), (AutoSubnetworkLaplace, {"num_weights": 50}, 50)],
)
def test_joint_block_takes_three_matrices_in_float64(guide_class, options, numel):
    cost = guide_class(network(), **options).cost(*DATA)
    assert [(layer.structure, layer.memory_bytes) for layer in cost.layers] == [("full", 24 * numel**2)]
    assert cost.pass_seconds > 0


@pytest.mark.parametrize(
    ("guide_class", "options"),
    [(AutoFullLaplace, {}), (AutoSubnetworkLaplace, {"num_weights": 50}), (AutoKFACLaplace, {})],
)
def test_what_is_refused_is_what_the_table_says_does_not_fit(guide_class, options):
    cost = guide_class(network(), **options).cost(*DATA)
    alone = cost.memory_bytes + max(layer.scratch_bytes for layer in cost.layers)
    guide_class(network(), **options, max_bytes=alone).laplace_approximation(*DATA)
    with pytest.raises(CostError, match=f"{guide_class.__name__} .*[Oo]r raise max_bytes"):
        guide_class(network(), **options, max_bytes=alone - 1).laplace_approximation(*DATA)


def test_exact_hessian_of_blocks_is_refused_like_any_other():
    guide = AutoBlockDiagonalLaplace(network(), curvature="hessian", max_bytes=1000)
    with pytest.raises(CostError, match="layer '0'"):
        guide.laplace_approximation(*DATA)


def test_cost_leaves_random_state_and_guide_as_they_were():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    guide = AutoKFACLaplace(network(), curvature="fisher_mc")
    torch.manual_seed(0)
    guide.cost(*DATA)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("structure", "most", "fits"),
    [
        ("full", 60_000, '"kfac" fits there'),
        ("kfac", 30_000, '"diagonal" fits there, with 9.69 KiB: AutoLaplace'),
        ("kfac", 900, r"Keep layers at their point estimate \(AutoLastLayerLaplace\), or raise max_bytes"),
    ],
)
def test_structure_that_does_not_fit_is_refused_with_the_one_that_does(structure, most, fits):
    guide = AutoLaplace(network(), structure={"0": structure, "*": "diagonal"}, max_bytes=most)
    with pytest.raises(CostError, match=rf"it may take; layer '0' \({structure}, 620 weights\) alone takes .*{fits}"):
        guide.laplace_approximation(*DATA)


def test_layer_too_wide_gets_its_exact_diagonal_and_is_named():
    model = network()
    guide = AutoKFACLaplace(model, max_factor_side=30)
    with pytest.warns(
        UserWarning, match="up to 30 rows are taken, but layer '0' needs 31: .* It gets its exact diagonal"
    ):
        posterior = guide.laplace_approximation(*DATA)
    assert [(block.layers[0], block.structure) for block in posterior.blocks] == [("0", "diagonal"), ("2", "kfac")]
    alone = AutoLaplace(model, structure={"0": "diagonal", "*": "kfac"}).laplace_approximation(*DATA)
    assert torch.equal(posterior.get_posterior().variance, alone.get_posterior().variance)
    assert [layer.note for layer in guide.cost(*DATA).layers] == ["wide: not kfac", ""]


def test_wide_layer_may_have_its_factors_or_be_refused():
    factors = AutoKFACLaplace(network(), max_factor_side=30, wide="kfac").laplace_approximation(*DATA)
    assert {block.structure for block in factors.blocks} == {"kfac"}
    with pytest.raises(CostError, match="layer '0' needs 31: .* and a long time to decompose. Use wide=\"diagonal\""):
        AutoKFACLaplace(network(), max_factor_side=30, wide="error").laplace_approximation(*DATA)
    with pytest.raises(GuideError, match="Unknown wide 'block'"):
        AutoKFACLaplace(network(), wide="block")
