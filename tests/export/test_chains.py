"""Runs of several seeds become chains; nothing else changes, and what does not belong together is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pytest

from tests.synthetic import CONV_LAYERS, LayerSpec, synthetic
from wiu_pyro.errors import SchemaError
from wiu_pyro.export import concat, load, save
from wiu_pyro.export.container import build
from wiu_pyro.schema import attrs, dataset, groups, validate

TINY = {"num_draws": 6, "num_obs": 9, "layers": (LayerSpec("fc1", (4, 6), 0.2), LayerSpec("out", (10, 4), 0.8))}


def run(seed: int = 0, **options: Any) -> Any:
    return synthetic(**(TINY | {"seed": seed, "dead_inputs": ()} | options)).idata


def test_each_run_becomes_a_chain(tmp_path: Path) -> None:
    runs = [run(seed) for seed in (3, 4, 5)]
    joined = load(save(concat(runs), tmp_path / "seeds.nc"))
    assert groups(joined) == groups(runs[0])
    for name in groups(joined):
        data = dataset(joined, name)
        for variable in data.data_vars:
            for chain, part in enumerate(runs):
                alone = dataset(part, name)[variable]
                got, want = data[variable], alone
                if "chain" in alone.dims:
                    got, want = got.sel(chain=chain, drop=True), want.isel(chain=0, drop=True)
                np.testing.assert_array_equal(got.values, want.values)
    assert dataset(joined, "layer_fc1").chain.values.tolist() == [0, 1, 2]
    assert dataset(joined, "constant_data").sizes == dataset(runs[0], "constant_data").sizes


def test_runs_that_hold_several_chains_keep_them_all() -> None:
    joined = concat([run(0, num_chains=2), run(1)])
    assert dataset(joined, "posterior").chain.values.tolist() == [0, 1, 2]
    validate(joined)


def test_the_seeds_are_listed() -> None:
    joined = concat([concat([run(3), run(4)]), run(5)])
    assert attrs(joined)["seed"] == [3, 4, 5]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("yes", "yes"), "yes"),
        (("yes", "no"), "no"),
        (("not assessed", "no"), "no"),
        (("yes", "not assessed"), "not assessed"),
    ],
)
def test_the_joined_runs_have_converged_where_all_have(states: tuple[str, str], expected: str) -> None:
    joined = concat([run(seed, converged=state) for seed, state in enumerate(states)])
    assert attrs(joined)["converged"] == expected


def test_the_largest_change_of_the_loss_is_kept() -> None:
    joined = concat([run(0, converged="yes"), run(1, converged="no"), run(2, converged="not assessed")])
    assert attrs(joined)["convergence_change"] == pytest.approx(0.08)


def test_a_run_that_stopped_earlier_is_filled_with_nan() -> None:
    joined = dataset(concat([run(0, num_epochs=3), run(1, num_epochs=5)]), "training")
    assert np.isnan(joined.loss.values).tolist() == [[False] * 3 + [True] * 2, [False] * 5]


def test_one_run_stays_as_it_is() -> None:
    alone = run(7)
    assert dataset(concat([alone]), "layer_fc1").equals(dataset(alone, "layer_fc1"))


def test_az_summary_takes_joined_runs() -> None:
    table = az.summary(concat([run(seed) for seed in range(4)]))
    assert list(table.index) == ["deviation_rms[fc1]", "deviation_rms[out]"]


REFUSED = {
    "another guide": ({"factorised": False}, "'guide' is 'AutoMeanField' in run 0 and 'AutoKFACLaplace' in run 1"),
    "other layers": ({"layers": CONV_LAYERS}, "same groups are needed.*layer_classifier"),
    "other shapes": (
        {"layers": (LayerSpec("fc1", (5, 6), 0.2), LayerSpec("out", (10, 4), 0.8))},
        "same 'fc1_out'.*4 and 5",
    ),
    "fewer draws": ({"num_draws": 5}, "same 'draw' is needed.*6 and 5 entries"),
    "a subset": ({"max_weights_per_layer": 8}, "run 1 differs from run 0 in group 'layer_fc1'"),
    "other images": ({"data_seed": 1}, "'obs' has no chain and must be the same in every run"),
    "another prior": ({"prior_varies": True}, "same dims are needed in every run.*'prior_sd'"),
    "estimated moments": ({"estimated": True}, "same variables are needed.*sd_conditional"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_belong_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        concat([run(0), run(1, **options)])


def test_subsets_of_other_weights_are_refused() -> None:
    with pytest.raises(SchemaError, match="same 'fc1_weight' is needed"):
        concat([run(seed, max_weights_per_layer=8) for seed in (0, 1)])


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(SchemaError, match="At least one posterior is needed"):
        concat([])


def test_a_run_that_breaks_the_contract_is_refused() -> None:
    broken = {name: dataset(run(), name) for name in groups(run()) if name != "layers"}
    with pytest.raises(SchemaError, match="group 'layers' is needed"):
        concat([run(), build(broken)])
