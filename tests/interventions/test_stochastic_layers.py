"""Only some layers uncertain: predictions, whose the variance is, and what intervals there are, on known networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from pyro.infer import autoguide
from torch import nn

import wiu_pyro as wiu
from wiu_pyro import metrics
from wiu_pyro.errors import DataError, GuideError, LikelihoodError
from wiu_pyro.guides import AutoFullLaplace, AutoKFACLaplace, AutoLaplace, AutoMeanField, init_to_network
from wiu_pyro.infer import functional_distribution
from wiu_pyro.interventions import stochastic_layers
from wiu_pyro.nn import as_batches
from wiu_pyro.testing import small_classifier

QUICK = {"num_samples": 4, "effect_draws": 0, "num_bootstrap": 20}


class Parallel(nn.Module):
    """A sum of two linear layers, each with its own inputs: linear in all weights."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(2, 1, bias=False)
        self.two = nn.Linear(3, 1, bias=False)

    def forward(self, x):
        return self.one(x[:, :2]) + self.two(x[:, 2:])


def parallel(**options):
    torch.manual_seed(0)
    x = torch.randn(20, 5)
    model = wiu.nn.BayesianNetwork(Parallel(), likelihood="normal", noise_scale=0.5, num_data=20)
    return model, (x, x.sum(1, keepdim=True))


def with_scales(model, data, scales: dict[str, float], means: dict[str, float] | None = None):
    """Return a mean-field fit whose sds (and means) are set by hand, by layer."""
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=0)
    with torch.no_grad():
        for site, place, _ in fit.guide.sites():
            layer = site.rpartition(".")[0]
            fit.guide.log_scale[place] = float(np.log(scales[layer]))
            if means:
                fit.guide.loc[place] = means[layer]
    values = {name: value.clone() for name, value in fit.guide.point_estimate().items()}
    return wiu.infer.Fit(**{**vars(fit), "point_estimate": values})


def within(found: xr.Dataset, truth: np.ndarray, *, effect: str, response: str = "output", times: float = 4) -> None:
    one = found.sel(effect=effect, response=response)
    np.testing.assert_array_less(np.abs(one["effect_share"] - truth), times * one["effect_se"] + 1e-9)


def test_layers_of_a_linear_model_have_the_shares_their_inputs_and_sds_give_them():
    model, data = parallel()
    fit = with_scales(model, data, {"one": 0.5, "two": 1.5})
    squares = data[0].square().sum(0).numpy()
    parts = np.array([0.25 * squares[:2].sum(), 2.25 * squares[2:].sum()])
    found = stochastic_layers(fit, data, num_samples=400, num_bootstrap=20, effect_draws=100)
    for effect in ("first_order", "total", "shapley"):
        within(found, parts / parts.sum(), effect=effect)
    np.testing.assert_allclose(found["effect_share"][0], found["effect_share"][1], atol=1e-9)
    share = found["variance_share"].sel(response="output", kind="restricted")
    alone = share.sel(layer_set=["only one", "only two"]).values
    np.testing.assert_allclose(alone, parts / parts.sum(), rtol=0.2)  # 400 draws of 2 weights: sd 7 %
    assert share.sel(layer_set="all") == 1
    assert share.sel(layer_set="none") == 0
    value = found["value"].sel(kind="restricted", layer_set="all", metric="output_variance").item()
    assert value == pytest.approx(parts.sum() / 20, rel=0.2)


def test_two_layers_in_a_row_share_their_interaction():
    """Of a product with means m and sds s, layer 1 has m₂²s₁² alone and s₁²s₂² together with layer 2."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model = wiu.nn.BayesianNetwork(net, likelihood="normal", noise_scale=1.0, num_data=1)
    data = (torch.ones(1, 1), torch.ones(1, 1))
    fit = with_scales(model, data, {"0": 1.0, "1": 0.5}, {"0": 2.0, "1": 1.0})
    alone, both = np.array([1.0, 1.0]), 0.25
    found = stochastic_layers(fit, data, effect_draws=600, num_samples=2, num_bootstrap=2)
    for effect, shared in {"first_order": 0.0, "total": both, "shapley": both / 2}.items():
        within(found, (alone + shared) / (2 + both), effect=effect)
    assert found["effect_share"].sel(effect="shapley").sum() == pytest.approx(1, abs=1e-9)


def test_where_one_layer_alone_is_uncertain_all_three_effects_say_so():
    model, data = small_classifier()
    fit = with_scales(model, data, {"0": 0.3, "2": 1e-4})
    found = stochastic_layers(fit, data, effect_draws=20, num_samples=20, num_bootstrap=20)
    for effect in ("first_order", "total", "shapley"):
        for response in ("probability", "output"):
            share = found["effect_share"].sel(effect=effect, response=response).values
            np.testing.assert_allclose(share, [1, 0], atol=1e-4)
    held = wiu.fit(model, AutoMeanField(model, point="2"), data, epochs=0)
    assert stochastic_layers(held, data, **QUICK)["layer_set"].values.tolist() == ["none", "all"]


def jacobian_of(model, fit, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Differentiate the outputs datum by datum, (N, outputs, weights) of each site."""
    values = {name: value.double() for name, value in fit.point_estimate.items()}
    net = model.net.double()
    grads = torch.func.vmap(
        torch.func.jacrev(lambda w, one: torch.func.functional_call(net, w, (one[None],))[0]), in_dims=(None, 0)
    )(values, x.double())
    net.float()
    return {name: grad.flatten(2).detach().numpy() for name, grad in grads.items()}


def centred_variance(jacobian: np.ndarray, covariance: np.ndarray) -> float:
    centred = jacobian - jacobian.mean(1, keepdims=True)
    return float(np.einsum("ncw,wv,ncv->", centred, covariance, centred))


def dense(fit) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the layer of each weight, and the whole covariance, in the order of the flat vector."""
    guide = fit.guide
    every = torch.arange(len(guide.loc))
    owner = np.concatenate([[site.split(".")[0]] * (place.stop - place.start) for site, place, _ in guide.sites()])
    return owner, guide.get_posterior().covariance(every, every).double().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("guide_class", [AutoKFACLaplace, AutoFullLaplace])
def test_effects_on_linearised_outputs_are_those_of_the_dense_gaussian(guide_class):
    model, data = small_classifier()
    fit = wiu.fit(model, guide_class(model), data, epochs=0)
    owner, covariance = dense(fit)
    by_site = jacobian_of(model, fit, data[0])
    jacobian = np.concatenate([by_site[site] for site, *_ in fit.guide.sites()], axis=-1)
    precision, whole = np.linalg.inv(covariance), centred_variance(jacobian, covariance)
    left = {}  # the variance that a layer leaves when the other is known
    for layer in ("0", "2"):
        place = np.flatnonzero(owner == layer)
        given = np.linalg.inv(precision[np.ix_(place, place)])
        left[layer] = centred_variance(jacobian[..., place], given) / whole
    total = np.array([left["0"], left["2"]])
    found = stochastic_layers(fit, data, num_samples=4, effect_draws=4, num_bootstrap=10)
    shares = found["effect_share"].sel(response="output")
    np.testing.assert_allclose(shares.sel(effect="total"), total, rtol=1e-3)
    np.testing.assert_allclose(shares.sel(effect="first_order"), 1 - total[::-1], atol=2e-3)
    np.testing.assert_allclose(shares.sel(effect="shapley"), (total + 1 - total[::-1]) / 2, atol=2e-3)
    assert (found["effect_se"].sel(response="output") == 0).all()
    if guide_class is AutoKFACLaplace:
        np.testing.assert_allclose(shares.sel(effect="total"), shares.sel(effect="first_order"), atol=1e-6)
    place = np.flatnonzero(owner == "2")
    marginal = centred_variance(jacobian[..., place], covariance[np.ix_(place, place)]) / whole
    share = found["variance_share"].sel(response="output", layer_set="only 2")
    assert share.sel(kind="restricted").item() == pytest.approx(marginal, rel=1e-3)
    assert share.sel(kind="refitted").item() == pytest.approx(left["2"], rel=1e-3)


@pytest.mark.slow
def test_effects_on_probabilities_of_correlated_layers_agree_between_draws_of_weights_and_closed_form():
    """Of a network that is linear in its weights, sampled and linearised are the same model."""
    torch.manual_seed(1)
    x = torch.randn(30, 5)
    net = Parallel()
    model = wiu.nn.BayesianNetwork(net, likelihood="bernoulli", num_data=30)
    data = (x, (x.sum(1, keepdim=True) > 0).float())
    fit = wiu.fit(model, AutoFullLaplace(model), data, epochs=0)
    closed = stochastic_layers(fit, data, **{**QUICK, "effect_draws": 300})
    drawn = stochastic_layers(fit, data, predictive="sampled", **{**QUICK, "effect_draws": 300})
    for response in ("probability", "output"):
        error = np.sqrt(closed["effect_se"] ** 2 + drawn["effect_se"] ** 2).sel(response=response)
        gap = np.abs(closed["effect_share"] - drawn["effect_share"]).sel(response=response)
        np.testing.assert_array_less(gap, 4 * error)
    assert not np.allclose(closed["effect_share"].sel(effect="total"), closed["effect_share"].sel(effect="first_order"))


def test_random_orders_agree_with_all_sets():
    model, data = small_classifier()
    fit = with_scales(model, data, {"0": 0.3, "2": 0.3})
    exact = stochastic_layers(fit, data, **{**QUICK, "effect_draws": 60})
    paths = stochastic_layers(fit, data, most_exact=1, **{**QUICK, "effect_draws": 60})
    error = np.sqrt(exact["effect_se"] ** 2 + paths["effect_se"] ** 2)
    np.testing.assert_array_less(np.abs(exact["effect_share"] - paths["effect_share"]), 4 * error + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [None, "marginal-likelihood"])
@pytest.mark.filterwarnings("ignore:The posterior's prior is the model's:UserWarning")
def test_refitted_kfac_layers_are_those_of_auto_laplace_on_the_same_point_estimate(tuning):
    model, data = small_classifier()
    whole = wiu.fit(model, AutoKFACLaplace(model), data, epochs=0, tune_prior=tuning)
    alone = AutoLaplace(model, structure={"2": "kfac"})
    refit = wiu.fit(model, alone, data, epochs=0, start=whole, tune_prior=tuning)
    parts = functional_distribution(model, refit.guide, as_batches(data))
    found = torch.cat([part.covariance for part in parts])
    expected = (found.diagonal(dim1=1, dim2=2).sum(1) - found.sum((1, 2)) / 3).mean().item()
    value = stochastic_layers(whole, data, **QUICK)["value"].isel(chain=0).sel(metric="output_variance")
    assert value.sel(kind="refitted", layer_set="only 2").item() == pytest.approx(expected, rel=1e-4)
    same = value.sel(kind="restricted", layer_set="only 2").item() == pytest.approx(expected, rel=1e-3)
    assert same == (tuning is None)


@pytest.mark.slow
def test_refitted_full_laplace_is_that_of_those_layers_alone():
    model, data = small_classifier()
    whole = wiu.fit(model, AutoFullLaplace(model), data, epochs=0)
    refit = wiu.fit(model, AutoFullLaplace(model, layers="2"), data, epochs=0, start=whole)
    one, other = (
        stochastic_layers(fit, data, **QUICK)["value"].sel(metric="output_variance").isel(chain=0)
        for fit in (whole, refit)
    )
    expected = other.sel(kind="restricted", layer_set="all").item()
    assert one.sel(kind="refitted", layer_set="only 2").item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.training
def test_refitted_mean_field_is_trained_with_the_others_at_a_point_estimate():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=20, learning_rate=1e-2)
    without = stochastic_layers(fit, data, **QUICK)
    assert without["value"].sel(kind="refitted", layer_set="only 2").isnull().all()
    assert without.attrs["refitted_reason"] == "refits are trained, and no train_data were given"
    found = stochastic_layers(fit, data, train_data=data, **QUICK)
    values = found["value"].isel(chain=0).sel(metric="nll")
    assert values.sel(layer_set="only 2", kind="restricted") != values.sel(layer_set="only 2", kind="refitted")
    assert values.sel(layer_set="all", kind="restricted") == values.sel(layer_set="all", kind="refitted")
    assert found["refit_converged"].sel(layer_set="only 2").item() == 0
    assert found["refit_converged"].sel(layer_set="all").item() == -1


def test_pyros_guides_are_restricted_and_refitted_where_a_guide_for_it_is_given():
    model, data = small_classifier()
    guide = autoguide.AutoLowRankMultivariateNormal(model, init_loc_fn=init_to_network(model))
    fit = wiu.fit(model, guide, data, epochs=1)
    found = stochastic_layers(fit, data, train_data=data, **{**QUICK, "effect_draws": 4})
    assert "has no form with some layers at a point estimate" in found.attrs["refitted_reason"]
    assert found["effect_share"].sel(effect="shapley").sum("layer").values == pytest.approx(1)

    def make(model, layers):
        return AutoMeanField(model, point=[name for name in ("0", "2") if name not in layers])

    found = stochastic_layers(fit, data, train_data=data, refit=make, refit_epochs=1, **QUICK)
    assert found["value"].sel(kind="refitted").notnull().all()


def test_the_whole_posterior_and_the_point_estimate_predict_as_elsewhere():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=1)
    away = 5 * torch.randn(15, 4, generator=torch.Generator().manual_seed(1))
    found = stochastic_layers(fit, data, ood=away, **{**QUICK, "num_samples": 30})
    values = found["value"].isel(chain=0).sel(kind="restricted")
    known, other = (wiu.infer.predict(fit, one, num_samples=30, seed=0) for one in (data, away))
    labels = data[1].numpy()
    for name, mean in {"all": known.mean, "none": known.point_mean}.items():
        one = values.sel(layer_set=name)
        assert one.sel(metric="nll").item() == pytest.approx(metrics.nll(mean, labels), rel=1e-4)
        assert one.sel(metric="brier").item() == pytest.approx(metrics.brier(mean, labels), rel=1e-4)
        assert one.sel(metric="ece").item() == pytest.approx(metrics.ece(mean, labels), rel=1e-4)
        assert one.sel(metric="error").item() == pytest.approx(1 - metrics.accuracy(mean, labels))
    flags = np.arange(39) >= 24
    for score in ("entropy", "mutual_information"):
        name = {"entropy": "predictive_entropy"}.get(score, score)
        scores = np.concatenate([getattr(one, name) for one in (known, other)])
        found_auroc = values.sel(layer_set="all", metric=f"auroc_{score}").item()
        assert found_auroc == pytest.approx(metrics.auroc(scores, flags), abs=1e-3)


def test_intervals_are_paired_and_over_images_with_one_network():
    model, data = small_classifier(num_data=200)
    fit = with_scales(model, data, {"0": 0.5, "2": 0.5})
    found = stochastic_layers(fit, data, num_samples=20, effect_draws=0, num_bootstrap=400)
    assert found.attrs["interval"] == "images"
    row = found.sel(metric="nll", kind="restricted")
    low, high = row["difference_low"].sel(layer_set="none"), row["difference_high"].sel(layer_set="none")
    whole, point = (wiu.infer.predict(fit, data, num_samples=20, seed=0).mean,
                    wiu.infer.predict(fit, data, num_samples=2).point_mean)  # fmt: skip
    labels = data[1].numpy()
    paired = metrics.mean_with_se(metrics.nll_pointwise(point, labels) - metrics.nll_pointwise(whole, labels))
    assert row["difference"].sel(layer_set="none").item() == pytest.approx(paired.value, rel=1e-3)
    assert 1.8 * paired.se < (high - low).item() / 2 < 3.2 * paired.se  # simultaneous over a few sets
    assert row["difference_low"].sel(layer_set="all").isnull()
    share = found.sel(response="output", kind="restricted", layer_set="only 2")
    assert share["variance_share_low"] < share["variance_share"] < share["variance_share_high"]


@pytest.mark.slow
def test_with_five_networks_intervals_are_over_seeds():
    fits = []
    for seed in range(5):
        model, data = small_classifier(seed=seed)
        fits.append(wiu.fit(model, AutoKFACLaplace(model), data, epochs=1, seed=seed))
    found = stochastic_layers(fits, data, **{**QUICK, "effect_draws": 4})
    assert (found.attrs["interval"], found.attrs["num_seeds"]) == ("seeds", 5)
    each = found["value"].sel(metric="nll", kind="restricted")
    away = (each - each.sel(layer_set="all")).drop_sel(layer_set="all")
    expected = metrics.student_intervals(away.transpose("chain", "layer_set").values)
    np.testing.assert_allclose(
        found["difference_low"].sel(metric="nll", kind="refitted").drop_sel(layer_set="all"), expected.low, rtol=1e-6
    )
    by_chain = found["effect_by_chain"].sel(effect="total", response="output").transpose("chain", "layer").values
    expected = metrics.student_intervals(by_chain)
    np.testing.assert_allclose(found["effect_low"].sel(effect="total", response="output"), expected.low)


def test_table_survives_the_disk_and_nothing_global_is_touched(tmp_path):
    model, data = small_classifier()
    fit = wiu.fit(model, AutoKFACLaplace(model), data, epochs=0)
    state = torch.get_rng_state()
    found = stochastic_layers(fit, data, ood=data[0] + 1, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    found.to_netcdf(tmp_path / "table.nc", engine="h5netcdf")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "table.nc", engine="h5netcdf"), found)
    again = stochastic_layers(fit, data, ood=data[0] + 1, **QUICK)
    xr.testing.assert_identical(again, found)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"families": ("some",)}, GuideError, "Unknown family of layer sets 'some'"),
        ({"num_draws": 3}, GuideError, "has no option 'num_draws'"),
        ({"kinds": ("cut",)}, GuideError, "Unknown kind 'cut'"),
        ({"predictive": "both"}, GuideError, "Unknown predictive 'both'"),
        ({"effect_draws": 1}, DataError, "effect_draws must be 0, or at least 2"),
        ({"num_samples": 1}, DataError, "num_samples must be at least 2"),
        ({"level": 1.0}, DataError, "level between 0 and 1"),
        ({"predictive": "linearised"}, GuideError, "needs the guide of a Laplace approximation"),
    ],
)
def test_wrong_options_are_refused(options, kind, message):
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=0)
    with pytest.raises(kind, match=message):
        stochastic_layers(fit, data, **options)


def test_what_is_no_fit_has_no_labels_or_another_likelihood_is_refused():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=0)
    with pytest.raises(GuideError, match="What wiu_pyro.fit returned is needed"):
        stochastic_layers(fit.guide, data)
    with pytest.raises(DataError, match="these have no labels"):
        stochastic_layers(fit, data[0])
    held = wiu.fit(model, AutoMeanField(model, point="0"), data, epochs=0)
    with pytest.raises(GuideError, match="posteriors are over the same layers, got 2 over 0, 2; 2"):
        stochastic_layers([fit, held], data)
    several = wiu.nn.BayesianNetwork(nn.Linear(4, 2), likelihood="bernoulli", num_data=24)
    pair = (data[0], (data[0][:, :2] > 0).float())
    two = wiu.fit(several, AutoMeanField(several), pair, epochs=0)
    with pytest.raises(LikelihoodError, match="Bernoulli likelihood with one output is needed"):
        stochastic_layers(two, pair)


def test_intervals_of_variance_shares_have_the_noise_of_the_draws():
    model, data = parallel()
    fit = with_scales(model, data, {"one": 0.5, "two": 0.5})
    squares = data[0].square().sum(0).numpy()
    truth, found = squares[:2].sum() / squares.sum(), []
    for seed in range(20):
        table = stochastic_layers(fit, data, seed=seed, num_samples=40, effect_draws=0, num_bootstrap=200)
        one = table.sel(response="output", kind="restricted", layer_set="only one")
        found.append([float(one[f"variance_share{end}"]) for end in ("", "_low", "_high")])
    value, low, high = np.transpose(found)
    assert ((low < truth) & (truth < high)).sum() >= 17
    assert value.std(ddof=1) < (high - low).mean() / 2  # two sets at once: the half width is about 2.2 sds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AutoDiagonalLaplace", {}),
        ("AutoEKFACLaplace", {}),
        ("AutoBlockDiagonalLaplace", {}),
        ("AutoLastLayerLaplace", {}),
        ("AutoSubnetworkLaplace", {"fraction": 0.5}),
        ("AutoSubnetworkLaplace", {"fraction": 0.5, "structure": "diagonal"}),
    ],
)
def test_every_laplace_posterior_answers_and_restricted_sets_are_those_of_held_draws(name, options):
    model, data = small_classifier()
    fit = wiu.fit(model, getattr(wiu.guides, name)(model, **options), data, epochs=0)
    few = {**QUICK, "num_samples": 300, "effect_draws": 4}
    found = stochastic_layers(fit, data, **few)
    assert found["effect_share"].sel(effect="shapley").sum("layer").values == pytest.approx(1)
    layers = found["layer"].values.tolist()
    chosen = layers[-1]
    jacobian = jacobian_of(model, fit, data[0])
    draws = list(wiu.infer.draw_weights(fit, num_samples=1500))
    moved = 0
    for site, grads in jacobian.items():
        if site.split(".")[0] == chosen:
            change = torch.stack([draw[site] - fit.point_estimate[site] for draw in draws]).flatten(1).double().numpy()
            moved = moved + np.einsum("ncw,sw->snc", grads, change)
    expected = (moved - moved.mean(-1, keepdims=True)).var(0, ddof=1).sum(-1).mean()
    row = found["value"].sel(kind="restricted", metric="output_variance").isel(chain=0)
    held = "all" if len(layers) == 1 else f"only {chosen}"
    assert row.sel(layer_set=held).item() == pytest.approx(expected, rel=0.15)  # 1,500 draws: sd 4 %
