"""Layers through the training: what the file holds, when each converged, and layers planted to converge late."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.planted import PlantedLayer, planted
from tests.recorded import Plan, recorded, with_training
from tests.synthetic import synthetic
from wiu_pyro import diagnostics, metrics, schema
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.export.container import build

EVEN = {"fc1": 4.0, "fc2": 4.0, "fc3": 4.0, "out": 4.0}
LATE = EVEN | {"fc2": 12.0}


def asked(times, plan=None, *, tolerance=0.02, patience=5, **options):
    return diagnostics.convergence(recorded(times, plan, **options), tolerance=tolerance, patience=patience)


def regrouped(idata, change):
    """The file with its group `training` changed."""
    groups = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    return build(groups | {"training": change(groups["training"].copy(deep=True))})


def by_steps(data: xr.Dataset) -> xr.Dataset:
    """The same records, as if made after steps of which an epoch has four."""
    layers = data[[name for name in data.data_vars if "layer" in data[name].dims]].rename(epoch="step")
    steps = np.arange(1, data.sizes["epoch"] + 1) * 2
    out = layers.assign_coords(step=steps)
    out["step_loss"] = (("chain", "step"), data["loss"].values)
    out["step_epoch"] = (("chain", "step"), np.tile(steps / 4, (data.sizes["chain"], 1)))
    out["tracked_data"] = (("chain", "step"), data["tracked_data"].values)
    out["loss"] = (("chain", "epoch"), data["loss"].values[:, 1::2])
    out["full_rate_epochs"] = data["full_rate_epochs"] / 2
    return out.assign_attrs(data.attrs | {"tracked": "steps"})


def test_evolution_has_the_files_figures_at_the_epochs_done():
    idata = synthetic(num_chains=2).idata
    table, held = diagnostics.evolution(idata), schema.dataset(idata, "training")
    assert table["epoch"].values.tolist() == list(range(1, 21))
    assert table["kl_per_weight"].dims == ("chain", "epoch", "layer")
    np.testing.assert_allclose(table["kl_per_weight"].values, held["kl_per_weight"].values)
    np.testing.assert_allclose(table["loss"].values, held["loss"].values)
    assert "seeds_kl_per_weight" not in table


def test_evolution_over_five_seeds_has_means_with_intervals_together_over_the_layers():
    table = diagnostics.evolution(recorded(LATE, noise=0.02, chains=5, epochs=20, full=20))
    for epoch in (0, 19):
        found = metrics.student_intervals(table["kl_per_weight"].isel(epoch=epoch).values)
        row = table.isel(epoch=epoch)
        np.testing.assert_allclose(row["seeds_kl_per_weight"], found.estimate)
        np.testing.assert_allclose(row["seeds_kl_per_weight_low"], found.low)
        np.testing.assert_allclose(row["seeds_kl_per_weight_high"], found.high)


def test_epochs_without_a_record_are_left_out():
    def thinned(data):
        for name in data.data_vars:
            if "layer" in data[name].dims:
                data[name][:, ::2] = np.nan
        return data

    table = diagnostics.evolution(regrouped(recorded(LATE), thinned))
    assert table["epoch"].values.tolist() == list(range(2, 101, 2))
    assert bool(table["kl_per_weight"].notnull().all())


def test_records_after_steps_are_told_in_epochs_done():
    idata = recorded(LATE, epochs=80, full=80)
    table = diagnostics.evolution(regrouped(idata, by_steps))
    assert table["epoch"].values[:3].tolist() == [0.5, 1.0, 1.5]
    plain, stepped = diagnostics.convergence(idata), diagnostics.convergence(regrouped(idata, by_steps))
    np.testing.assert_allclose(stepped["converged_epoch"], plain["converged_epoch"] / 2)


def test_the_epoch_is_that_at_which_an_exponential_is_within_the_tolerance():
    """1 + exp(-t / 4): within 2 % from t = 4 log 50 = 15.6 on, up to the window of 7 epochs it is averaged over."""
    table = asked({"fc": 4.0})
    assert float(table["converged_epoch"][0]) == pytest.approx(4 * np.log(50), abs=2)
    np.testing.assert_allclose(table["settled_epoch"], float(table["converged_epoch"][0]))


def test_a_layer_converges_with_the_last_of_its_three_quantities():
    def slow_sd(data):
        epochs = np.arange(1, 101)
        data["sd_to_prior"][:] = (0.4 * (1 + np.exp(-epochs / 10)))[None, :, None]
        return data

    table = diagnostics.convergence(regrouped(recorded({"fc": 4.0}), slow_sd))
    settled = table["settled_epoch"].isel(layer=0)
    assert float(settled.sel(quantity="sd")) > float(settled.sel(quantity="kl")) + 15
    assert float(table["converged_epoch"][0]) == float(settled.sel(quantity="sd"))


def test_a_layer_planted_to_converge_late_is_found():
    for seed in range(5):
        table = asked(LATE, noise=0.005, seed=seed)
        assert table["layer"].values[table["late"].values == 1].tolist() == ["fc2"]
        assert float(table["converged_epoch"].sel(layer="fc2")) == pytest.approx(12 * np.log(50), abs=6)
    text = diagnostics.convergence_statement(table)
    assert "'fc2' converged after all others, beyond the noise from record to record" in text
    assert text.startswith("Converged, by mean, sd and KL staying within 2 % of where they were at the end of the full")
    assert "the full learning rate, epoch 70 of 100: 'fc2' from epoch 4" in text


def test_a_late_layer_is_found_over_the_seeds():
    table = asked(LATE, noise=0.005, chains=5)
    assert table["layer"].values[table["late"].values == 1].tolist() == ["fc2"]
    assert float(table["seeds_converged_epoch_low"].sel(layer="fc2")) > 35
    assert "beyond what the seeds differ by" in diagnostics.convergence_statement(table)


def test_no_layer_is_late_beside_one_that_never_converged_in_some_network():
    def restless(data):
        for name in ("mean_to_prior", "sd_to_prior", "kl_per_weight"):
            data[name].loc[{"chain": 0, "layer": "fc1"}] = np.geomspace(1, 9, data.sizes["epoch"])
        return data

    table = diagnostics.convergence(regrouped(recorded(LATE, noise=0.005, chains=5), restless))
    assert np.isinf(table["converged_epoch"].sel(layer="fc1")[0])
    assert table["late"].sum() == 0


def test_a_late_layer_that_did_not_converge_in_every_network_is_not_said_to_have():
    def restless(data):
        for name in ("mean_to_prior", "sd_to_prior", "kl_per_weight"):
            data[name].loc[{"chain": 0, "layer": "fc2"}] = np.geomspace(1, 9, data.sizes["epoch"])
        return data

    table = diagnostics.convergence(regrouped(recorded(LATE, noise=0.005, chains=5), restless))
    assert table["layer"].values[table["late"].values == 1].tolist() == ["fc2"]
    assert "'fc2' converged after all others or not at all, beyond what the seeds" in diagnostics.convergence_statement(
        table
    )


def test_seeds_that_converge_at_one_record_are_not_given_an_interval_of_no_width():
    said = diagnostics.convergence_statement(asked(EVEN, chains=5))
    assert "(in each of 5 networks)" in said
    epoch = said.split("'fc1' from epoch ")[1].split(" ")[0]
    assert f"{epoch} ({epoch} to {epoch})" not in said


@pytest.mark.slow
@pytest.mark.parametrize(("chains", "files", "most"), [(1, 60, 9), (5, 30, 6)])
def test_layers_that_converge_alike_give_no_finding_at_the_stated_rate(chains, files, most):
    """Five in a hundred at most; a binomial with that rate is above the limit once in a thousand."""
    found = sum(
        int(asked(EVEN, noise=0.005, chains=chains, seed=seed, epochs=40, full=40)["late"].sum())
        for seed in range(files)
    )
    assert found <= most


def test_the_interval_of_one_training_covers_the_epoch_of_the_course_without_its_noise():
    truth = float(asked({"fc": 8.0})["converged_epoch"][0])
    inside = 0
    for seed in range(60):
        row = asked({"fc": 8.0}, noise=0.004, seed=seed).isel(layer=0)
        inside += float(row["converged_epoch_low"]) <= truth + 1 and truth - 1 <= float(row["converged_epoch_high"])
    assert inside >= 50  # of 60 at 95 %: fewer once in two thousand


def test_a_layer_that_moves_to_the_end_has_not_converged():
    table = asked({"fc1": 4.0, "fc2": 100.0})
    row = table.sel(layer="fc2")
    assert np.isinf(row["converged_epoch"])
    assert int(row["late"]) == 1
    text = diagnostics.convergence_statement(table)
    assert "Not converged: 'fc2' (the size of its means and its sd and its KL still moved)." in text


def test_a_rate_that_falls_does_not_make_a_layer_converged():
    """The same layer, still on its way: cut off by a rate that falls to zero, its curve is flat at the end."""

    def frozen(data):
        for name in data.data_vars:
            if "layer" in data[name].dims:
                data[name][:, 70:] = data[name][:, 69:70].values
        return data

    idata = regrouped(recorded({"fc1": 4.0, "fc2": 100.0}), frozen)
    assert np.isinf(diagnostics.convergence(idata)["converged_epoch"].sel(layer="fc2"))


def test_what_moves_while_the_rate_falls_is_said():
    table = asked(EVEN, tail=0.1)
    np.testing.assert_allclose(table["tail_change"], 0.085, atol=0.005)
    assert "While the learning rate fell, these moved on: 'fc1' (" in diagnostics.convergence_statement(table)
    assert "moved on" not in diagnostics.convergence_statement(asked(EVEN))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_noise_alone_is_no_movement_at_the_end_at_the_stated_rate(noise):
    """Five in a hundred at most; a binomial with that rate is above the limit once in a thousand."""
    said = sum(
        "moved on" in diagnostics.convergence_statement(asked(EVEN, noise=noise, seed=seed)) for seed in range(60)
    )
    assert said <= 9


def test_over_seeds_a_movement_at_the_end_is_said_where_its_interval_leaves_out_zero():
    table = asked(EVEN, tail=0.1, chains=5)
    shape = table["tail_change"].shape
    noise = np.random.default_rng(0).normal(size=shape)
    for spread, found in ((0.01, True), (0.5, False)):
        one = table.assign(tail_change=(table["tail_change"].dims, 0.085 + spread * noise))
        each = one["tail_change"].transpose("chain", "quantity", "layer").values.reshape(5, -1)
        ends = metrics.student_intervals(each)
        assert bool((ends.low > 0).all()) == found
        said = diagnostics.convergence_statement(one)
        assert ("moved on: 'fc1' (" in said) == found
        if found:
            places = np.flatnonzero(np.tile(table["layer"].values == "fc1", 3))
            top = places[np.argmax(np.abs(ends.estimate[places]))]
            assert (
                f"up {100 * ends.estimate[top]:.0f} %, {100 * ends.low[top]:.0f} % to {100 * ends.high[top]:.0f} %)"
                in said
            )


def test_a_layer_that_stays_at_the_prior_has_converged_all_along():
    def unidentified(data):
        place = data["layer"].values.tolist().index("fc2")
        rng = np.random.default_rng(0)
        for name in ("kl_per_weight", "mean_to_prior"):
            data[name][..., place] = 1e-3 * rng.uniform(size=(1, 100))
        data["sd_to_prior"][..., place] = 1 + 1e-3 * rng.normal(size=(1, 100))
        return data

    table = diagnostics.convergence(regrouped(recorded({"fc1": 8.0, "fc2": 8.0}), unidentified))
    assert float(table["converged_epoch"].sel(layer="fc2")) == 1


def test_layers_at_their_point_estimate_have_no_epoch():
    def held(data):
        for name in data.data_vars:
            if "layer" in data[name].dims:
                data[name][..., 0] = np.nan
        return data

    table = diagnostics.convergence(regrouped(recorded(LATE), held))
    assert np.isnan(table["converged_epoch"][0])
    assert int(table["late"].sel(layer="fc2")) == 1
    assert "fc1" not in diagnostics.convergence_statement(table)


def test_early_stopping_is_on_what_was_trained_by_or_on_the_validation_loss_where_there_is_one():
    loss = np.concatenate([np.linspace(3, 1, 20), np.full(80, 1.5)])
    idata = recorded(LATE)
    on_loss = regrouped(idata, lambda data: data.assign(loss=(("chain", "epoch"), loss[None])))
    table = diagnostics.convergence(on_loss, patience=7)
    assert (float(table["early_stop_epoch"]), float(table["early_stop_best"])) == (27.0, 20.0)
    text = diagnostics.convergence_statement(table)
    assert (
        "on −ELBO (7 epochs without a new best) would have stopped after epoch 27: before 'fc2' had converged" in text
    )
    assert "after 'fc1', 'fc3', 'out' had converged" in text
    point = {"meaning": "-log joint density, summed over the data"}
    on_joint = regrouped(on_loss, lambda data: data.assign(loss=data["loss"].assign_attrs(point)))
    assert "on −log joint density (5" in diagnostics.convergence_statement(diagnostics.convergence(on_joint))
    nll = regrouped(idata, lambda data: data.assign(validation_nll=(("chain", "epoch"), loss[None])))
    assert "Early stopping on the validation NLL" in diagnostics.convergence_statement(diagnostics.convergence(nll))
    assert np.isnan(diagnostics.convergence(idata)["early_stop_epoch"])


def test_a_training_of_few_epochs_is_not_assessed():
    table = asked(LATE, epochs=12, full=8)
    assert table.attrs["assessed"] == 0
    assert bool(table["converged_epoch"].isnull().all())
    assert "was not assessed: fewer than 10 records" in diagnostics.convergence_statement(table)


def test_the_heat_maps_distance_is_within_one_from_the_converged_epoch_on():
    table = asked(LATE)
    worst = table["distance"].max("quantity").sel(layer="fc2")
    epoch = float(table["converged_epoch"].sel(layer="fc2"))
    full = worst.sel(epoch=worst["epoch"] <= 70)
    assert bool((full.sel(epoch=full["epoch"] >= epoch) <= 1).all())
    assert float(full.sel(epoch=epoch - 1)) > 1
    assert bool(worst.sel(epoch=worst["epoch"] > 70).isnull().all())


def test_how_a_point_estimate_was_seen_is_said():
    def around_point(data):
        data["tracked_data"][:] = 1_000
        return data.assign_attrs(data.attrs | {"tracked_structure": "diagonal", "tracked_curvature": "ggn"})

    text = diagnostics.convergence_statement(diagnostics.convergence(regrouped(recorded(LATE), around_point)))
    assert "seen by the diagonal of the GGN over 1,000 training data around the point estimate" in text


def test_runs_of_different_length_are_each_judged_by_their_own_epochs():
    short = recorded(LATE, epochs=60, full=60)
    long = recorded(LATE, Plan(epochs=100, full=100))
    joined = schema.dataset(long, "training").copy(deep=True)
    parts = [schema.dataset(short, "training").reindex(epoch=np.arange(100)), joined]
    both = with_two_chains(xr.concat(parts, dim="chain", combine_attrs="override"))
    table = diagnostics.convergence(both)
    for chain, alone in enumerate((short, long)):
        np.testing.assert_allclose(
            table["converged_epoch"].isel(chain=chain), diagnostics.convergence(alone)["converged_epoch"]
        )


def with_two_chains(training: xr.Dataset):
    idata = planted({name: PlantedLayer(sd=np.full((2, 3, 4), 0.4)) for name in LATE}, seed=[0, 1])
    return regrouped(with_training(idata, {"kl_per_weight": np.ones((2, 1, 4))}), lambda _: training)


@pytest.mark.parametrize("name", ["evolution", "convergence"])
def test_a_fit_that_was_not_tracked_says_how_to_track_it(name):
    idata = regrouped(recorded(LATE), lambda data: data[["loss"]])
    with pytest.raises(SchemaError, match=r'kept its loss alone. Fit again with wiu_pyro.fit\(..., track="epoch"\)'):
        getattr(diagnostics, name)(idata)


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"patience": 0}])
def test_limits_out_of_range_are_refused(options):
    with pytest.raises(DataError, match="A tolerance between 0 and 1 and a patience of at least 1 are needed"):
        asked(LATE, **options)


def test_records_without_what_convergence_needs_are_refused():
    idata = regrouped(recorded(LATE), lambda data: data.drop_vars("sd_to_prior"))
    with pytest.raises(SchemaError, match="has no sd_to_prior"):
        diagnostics.convergence(idata)


def test_the_statement_takes_its_own_table_alone():
    with pytest.raises(SchemaError, match="'converged_epoch' and 'early_stop_epoch' is needed"):
        diagnostics.convergence_statement(diagnostics.evolution(recorded(LATE)))
