"""`prune` against networks in which it is known what every weight is worth, and against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from pyro.infer import MCMC
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import nn

import wiu_pyro as wiu
from tests.interventions.planted_networks import UNUSED, USED, all_needed, images, network_at, planted, two_layers
from wiu_pyro import metrics
from wiu_pyro.errors import DataError
from wiu_pyro.infer import draw_weights
from wiu_pyro.interventions import prune

USELESS = UNUSED / (USED + UNUSED)
SHARES = (0.25, 0.5, USELESS, 0.75)


@pytest.fixture(scope="module")
def found():
    return prune(*planted(), sparsities=SHARES)


def one_shot(criterion, **place):
    return {"criterion": criterion, "ranking": "global", "procedure": "one_shot", "network": "mean", **place}


@pytest.mark.parametrize("criterion", ["signal_to_noise", "kl", "bayesian_model_reduction"])
def test_useless_weights_are_found_to_the_last(found, criterion):
    rise = found["error_difference"].sel(one_shot(criterion))
    np.testing.assert_array_equal(rise.values[:3], 0)
    assert float(rise[3]) > 0.01
    assert float(found["safe_sparsity"].sel(one_shot(criterion))) == USELESS


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_chance_and_size_lose_the_useful_weights_first(found, criterion):
    assert float(found["error_difference_low"].sel(one_shot(criterion))[1]) > 0.01
    assert float(found["safe_sparsity"].sel(one_shot(criterion))) == 0


def test_evidence_gains_by_each_useless_weight_whose_mean_is_small_and_by_no_other(found):
    assert float(found["evidence_sparsity"]) == 0  # means of two sds: q(0) is below p(0)
    change = found["evidence_change"].sel(ranking="global", criterion="bayesian_model_reduction")
    np.testing.assert_allclose(change.values[0], -2 * round(0.25 * 48), rtol=1e-5)  # ½ 2² each
    assert float(change[3]) < -1000


def test_network_that_needs_all_its_weights_has_no_safe_sparsity():
    fit, data = all_needed()
    table = prune(fit, data, sparsities=(0.05, 0.25))
    assert (table["safe_sparsity"] == 0).all()
    assert (table["layer_safe_sparsity"] == 0).all()


def test_a_few_images_show_no_sparsity_to_be_safe(found):
    few = prune(*planted(300), sparsities=SHARES)
    assert float(few["error_difference"].sel(one_shot("signal_to_noise"))[0]) == 0
    assert float(few["safe_sparsity"].sel(one_shot("signal_to_noise"))) == 0
    assert few.attrs["num_images"] == 300


def test_rankings_by_signal_to_noise_and_by_size_have_nothing_useful_in_common(found):
    common = found["kept_in_common"].sel(criterion="signal_to_noise")
    np.testing.assert_array_equal(common.sel(other="signal_to_noise"), 1)
    assert float(common.sel(other="magnitude", sparsity=USELESS)) == 0


def test_figures_are_those_of_the_network_written_out_with_zeros():
    fit, data = two_layers()
    table = prune(fit, data, sparsities=(0.3, 0.6))
    weights = {site: value.clone() for site, value in fit.point_estimate.items()}
    for ranking in ("global", "uniform"):
        sites = ["0.weight", "2.weight"]
        size = {site: weights[site].abs() for site in sites}
        pruned = dict(weights)
        groups = [sites] if ranking == "global" else [["0.weight"], ["2.weight"]]
        for group in groups:
            every = torch.cat([size[site].reshape(-1) for site in group])
            limit = every.sort().values[round(0.6 * len(every)) - 1]
            for site in group:
                pruned[site] = weights[site] * (size[site] > limit)
        p = network_at(fit, pruned, data[0])
        one = table.sel(ranking=ranking, criterion="magnitude", procedure="one_shot", network="mean", sparsity=0.6)
        assert float(one["error"]) == 1 - metrics.accuracy(p, data[1].numpy())
        assert float(one["nll"]) == pytest.approx(metrics.nll(p, data[1].numpy()), rel=1e-4)
        assert float(one["ece"]) == pytest.approx(metrics.ece(p, data[1].numpy()), abs=1e-5)


def test_one_layer_alone_loses_the_share_and_the_others_nothing():
    fit, data = two_layers()
    table = prune(fit, data, criteria=("magnitude",), sparsities=(0.5,))
    pruned = {site: value.clone() for site, value in fit.point_estimate.items()}
    size = pruned["2.weight"].abs()
    pruned["2.weight"] *= size > size.reshape(-1).sort().values[11]
    p = network_at(fit, pruned, data[0])
    assert float(table["layer_nll"].sel(layer="2").squeeze()) == pytest.approx(
        metrics.nll(p, data[1].numpy()), rel=1e-4
    )


def test_unpruned_network_is_that_of_the_point_estimate_and_of_the_draws():
    fit, data = two_layers(guide=wiu.guides.AutoMeanField)
    table = prune(fit, data, criteria=("magnitude",), sparsities=(0.5,), num_samples=8, seed=3)
    expected = wiu.infer.predict(fit, data, num_samples=8, seed=3)
    labels = data[1].numpy()
    for network, p in {"mean": expected.point_mean, "predictive": expected.mean}.items():
        assert float(table["unpruned_nll"].sel(network=network)) == pytest.approx(metrics.nll(p, labels), rel=1e-4)


def test_sampled_predictive_is_that_of_draws_with_zeros():
    fit, data = two_layers(guide=wiu.guides.AutoMeanField)
    options = {"criteria": ("magnitude",), "rankings": ("uniform",), "sparsities": (0.5,), "num_samples": 5}
    table = prune(fit, data, **options, seed=1)
    keep = {}
    for site in ("0.weight", "2.weight"):
        size = fit.point_estimate[site].abs()
        keep[site] = size > size.reshape(-1).sort().values[size.numel() // 2 - 1]
    draws = draw_weights(fit, num_samples=5, seed=1)
    p = np.mean(
        [network_at(fit, {site: value * keep.get(site, 1) for site, value in draw.items()}, data[0]) for draw in draws],
        axis=0,
    )
    found = table["nll"].sel(network="predictive").squeeze()
    assert float(found) == pytest.approx(metrics.nll(p, data[1].numpy()), rel=1e-4)


def test_linearised_predictive_is_that_of_the_slope_at_the_pruned_mean():
    fit, data = two_layers()
    options = {"criteria": ("magnitude",), "rankings": ("uniform",), "sparsities": (0.5,), "num_samples": 4}
    table = prune(fit, data, **options)
    assert table.attrs["predictive"] == "linearised"
    mean, keep = fit.point_estimate, {}
    for site in ("0.weight", "2.weight"):
        size = mean[site].abs()
        keep[site] = size > size.reshape(-1).sort().values[size.numel() // 2 - 1]
    pruned = {site: (value * keep.get(site, 1)).double() for site, value in mean.items()}
    x, step, parts = data[0].double(), 1e-5, []

    def logits(weights):
        hidden = torch.tanh(x @ weights["0.weight"].T + weights["0.bias"])
        return hidden @ weights["2.weight"].T + weights["2.bias"]

    for draw in draw_weights(fit, num_samples=4, seed=0):
        change = {site: ((draw[site] - mean[site]) * keep.get(site, 1)).double() for site in mean}
        ahead, behind = (logits({s: pruned[s] + sign * step * change[s] for s in mean}) for sign in (1, -1))
        parts.append(torch.softmax(logits(pruned) + (ahead - behind) / (2 * step), -1).numpy())
    found = table["nll"].sel(network="predictive").squeeze()
    assert float(found) == pytest.approx(metrics.nll(np.mean(parts, axis=0), data[1].numpy()), rel=1e-3)


def test_unpruned_linearised_predictive_agrees_with_the_closed_form_within_its_noise():
    fit, data = two_layers()
    table = prune(
        fit, data, criteria=("magnitude",), rankings=("global",), per_layer=False, sparsities=(0.5,), num_samples=100
    )
    exact = wiu.infer.predict(fit, data, num_samples=1000)
    found = float(table["unpruned_nll"].sel(network="predictive"))
    assert found == pytest.approx(metrics.nll(exact.mean, data[1].numpy()), rel=0.1)


def test_several_seeds_stand_along_chain_with_intervals_over_them():
    fit, data = planted(500)
    fits = [replace(fit, seed=seed) for seed in range(5)]
    table = prune(fits, data, criteria=("signal_to_noise", "random"), sparsities=SHARES)
    assert table.sizes["chain"] == 5
    rise = table["error_difference"].sel(one_shot("random"))
    expected = metrics.student_intervals(rise.transpose("chain", "sparsity").values)
    np.testing.assert_allclose(table["seeds_error_difference_high"].sel(one_shot("random")), expected.high)
    assert float(table["seeds_safe_sparsity"].sel(one_shot("signal_to_noise"))) == USELESS
    assert float(table["seeds_safe_sparsity"].sel(one_shot("random"))) == 0


def test_one_network_given_five_times_is_no_five_seeds():
    fit, data = planted(20)
    assert "seeds_error_low" not in prune([fit] * 5, data, criteria=("random",), sparsities=(0.5,))
    with pytest.raises(DataError, match="of 6 networks seed 0 stands more than once. Give each seed once"):
        prune([fit, *(replace(fit, seed=seed) for seed in range(5))], data, sparsities=(0.5,))


def test_four_seeds_have_a_mean_and_no_interval():
    table = prune([planted(20)[0]] * 4, images(100), criteria=("random",), sparsities=(0.5,))
    assert "seeds_error" in table
    assert "seeds_error_low" not in table
    assert "seeds_safe_sparsity" not in table


def test_layer_at_its_point_estimate_keeps_its_weights():
    fit, data = two_layers(guide=wiu.guides.AutoLastLayerLaplace)
    table = prune(fit, data, sparsities=(0.5,))
    assert table["layer"].values.tolist() == ["2"]
    assert table["num_candidates"].values.tolist() == [8 * 3]


def test_point_estimate_is_pruned_by_size_and_by_chance_alone():
    fit, data = two_layers(guide=AutoDelta, epochs=1)
    table = prune(fit, data, sparsities=(0.5,))
    assert set(table["criterion"].values) == {"magnitude", "random"}
    assert "signal_to_noise: This criterion needs an uncertainty" in table.attrs["left_out"]
    with pytest.raises(DataError, match="needs an uncertainty of the weights"):
        prune(fit, data, criteria=("kl",))


@pytest.mark.parametrize("guide", [AutoNormal, wiu.guides.AutoDiagonalLaplace, wiu.guides.AutoFullLaplace])
def test_other_posteriors_are_pruned_too(guide):
    fit, data = two_layers(guide=guide, epochs=5)
    table = prune(fit, data, train_data=data, sparsities=(0.5,), num_samples=3)
    assert table.attrs["left_out"] == ""
    assert np.isfinite(table["error"].values).all()


def test_draws_of_mcmc_are_pruned_chain_by_chain_by_their_estimated_moments(monkeypatch):
    fit, data = two_layers(guide=wiu.guides.AutoMeanField, epochs=3)
    draws = list(draw_weights(fit, num_samples=6))
    mcmc = MCMC.__new__(MCMC)
    mcmc.kernel = type("Kernel", (), {"model": fit.model})()
    stacked = {site: torch.stack([draw[site] for draw in draws]).view(2, 3, *draws[0][site].shape) for site in draws[0]}
    monkeypatch.setattr(mcmc, "get_samples", lambda group_by_chain=False: stacked, raising=False)
    table = prune(mcmc, data, criteria=("signal_to_noise",), sparsities=(0.5,), model=fit.model)
    assert table.sizes["chain"] == 2
    assert table.attrs["moments"] == "estimated"


def test_prior_that_is_learned_leaves_out_what_needs_a_prior():
    fit, data = two_layers(guide=wiu.guides.AutoMeanField, epochs=2)
    structure = fit.structure
    learned = wiu.infer.Fit(
        **{**vars(fit), "structure": type(structure)(**{**vars(structure), "dependent_priors": ("0.weight",)})}
    )
    table = prune(learned, data, sparsities=(0.5,))
    assert "kl: This criterion needs priors that depend on nothing else" in table.attrs["left_out"]
    assert "kl" not in table["criterion"].values
    assert np.isnan(table["evidence_change"].values).all()


def test_compensation_moves_nothing_where_the_posterior_factorises():
    table = prune(*planted(200), criteria=("random",), sparsities=(0.3,), compensate=True)
    assert table["procedure"].values.tolist() == ["one_shot", "compensated"]
    assert float(table["nll"].std("procedure").max()) < 1e-6


def test_fine_tuning_mends_what_pruning_broke():
    fit, data = two_layers()
    table = prune(
        fit, data, train_data=data, criteria=("random",), sparsities=(0.5,), fine_tune_epochs=30, learning_rate=0.03
    )
    nll = table["nll"].sel(ranking="global", network="mean").squeeze()
    assert float(nll.sel(procedure="fine_tuned")) < 0.5 * float(nll.sel(procedure="one_shot"))


def test_table_keeps_through_a_file(found, tmp_path):
    found.to_netcdf(tmp_path / "pruning.nc", engine="h5netcdf")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "pruning.nc", engine="h5netcdf"), found)


def test_regression_is_refused():
    data = (torch.ones(8, 3), torch.ones(8))
    model = wiu.nn.BayesianNetwork(nn.Linear(3, 1), likelihood="normal", num_data=8)
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), data, epochs=0)
    with pytest.raises(DataError, match="judged by error, NLL and calibration of a classification"):
        prune(fit, data)


def test_binary_classification_is_pruned():
    data = (torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40).float() % 2)
    model = wiu.nn.BayesianNetwork(nn.Linear(3, 1), likelihood="bernoulli", num_data=40)
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), data, epochs=0)
    table = prune(fit, data, criteria=("magnitude",), sparsities=(0.5,), num_samples=2)
    p = wiu.infer.predict(fit, data, num_samples=2)
    assert float(table["unpruned_error"].sel(network="mean")) == np.mean((p.point_mean[:, 0] > 0.5) != data[1].numpy())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"criterion": "kl"}, "no option 'criterion'. Did you mean 'criteria'"),
        ({"criteria": ("snr",)}, "Unknown criterion of pruning 'snr'"),
        ({"rankings": ("layer",)}, "Unknown ranking 'layer'"),
        ({"sd": "both"}, "Unknown sd 'both'"),
        ({"sparsities": (0.9, 0.5)}, "must ascend between 0 and 1"),
        ({"sparsities": (95.0,)}, "must ascend between 0 and 1"),
        ({"num_samples": 1}, "0 or at least 2"),
        ({"margin": 0.0}, "0.1 percentage points is 0.001"),
        ({"fine_tune_epochs": 1, "criteria": ("random",)}, "Fine-tuning needs training data"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(DataError, match=said):
        prune(planted(20)[0], images(20), **options)


def test_data_without_labels_are_refused():
    with pytest.raises(DataError, match="Labels are needed to judge"):
        prune(planted(20)[0], images(20)[0])


def test_loader_that_shuffles_gives_the_same_figures():
    fit, data = planted(50)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=20, shuffle=True)
    options = {"criteria": ("magnitude",), "sparsities": (0.5,)}
    found, expected = (prune(fit, each, **options) for each in (loader, data))
    xr.testing.assert_allclose(found[["error", "nll", "ece"]], expected[["error", "nll", "ece"]])


def test_no_posterior_is_refused():
    with pytest.raises(DataError, match="At least one posterior"):
        prune([], images(20))
