"""What `to_inference_data` writes is what the guide says, read back from the disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pytest
import torch
import xarray as xr

import wiu_pyro as wiu
from tests.export.conftest import make_data, make_model
from tests.guides.models import Hierarchical
from wiu_pyro.errors import DataError, GuideError, ModelError, PriorError
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.infer import draw_weights
from wiu_pyro.schema import attrs, dataset, groups, layer_names

GUIDES = ["AutoMeanField", "AutoDiagonalLaplace", "AutoKFACLaplace", "AutoFullLaplace"]


def through_the_disk(idata: Any, folder: Path) -> Any:
    return wiu.load(wiu.save(idata, folder / "posterior.nc"))


@pytest.fixture(scope="module")
def kfac(fits: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    options = {"num_samples": 40, "seed": 1, "class_names": ["a", "b", "c"], "model_name": "mlp"}
    return through_the_disk(
        wiu.to_inference_data(fits["AutoKFACLaplace"], make_data(), **options), tmp_path_factory.mktemp("kfac")
    )


def test_the_groups_are_those_of_the_contract(kfac: Any) -> None:
    assert set(groups(kfac)) == {
        "posterior",
        "sample_stats",
        "layers",
        "layer_fc1",
        "moments_fc1",
        "layer_out",
        "moments_out",
        "training",
        "observed_data",
        "constant_data",
        "predictive_linearised",
        "log_likelihood",
    }
    assert layer_names(kfac) == ["fc1", "out"]


def test_dims_and_dtypes_are_those_of_the_contract(kfac: Any) -> None:
    expected = {
        ("posterior", "deviation_rms"): ("chain draw layer", "float32"),
        ("sample_stats", "log_q"): ("chain draw", "float64"),
        ("sample_stats", "log_prior"): ("chain draw", "float64"),
        ("layer_fc1", "weight"): ("chain draw fc1_out fc1_in", "float32"),
        ("layer_fc1", "bias"): ("chain draw fc1_out", "float32"),
        ("moments_fc1", "mean"): ("chain fc1_out fc1_in", "float32"),
        ("moments_fc1", "bias_sd_conditional"): ("chain fc1_out", "float32"),
        ("moments_fc1", "prior_sd"): ("", "float32"),
        ("layers", "kl"): ("chain layer", "float64"),
        ("layers", "num_weights"): ("layer", "int64"),
        ("training", "loss"): ("chain epoch", "float32"),
        ("predictive_linearised", "mean"): ("chain obs_id class", "float32"),
        ("predictive_linearised", "mutual_information"): ("chain obs_id", "float32"),
        ("log_likelihood", "obs"): ("chain draw obs_id", "float32"),
        ("observed_data", "obs"): ("obs_id", "int64"),
        ("constant_data", "x"): ("obs_id x_dim0", "float32"),
    }
    for (group, name), (dims, dtype) in expected.items():
        array = dataset(kfac, group)[name]
        assert (array.dims, str(array.dtype)) == (tuple(dims.split()), dtype), (group, name)


def test_attributes_name_the_training_without_what_was_left_at_none() -> None:
    model = make_model()
    recipe = {"kl_warmup": 2, "log_scale_rate": 2.0, "max_norm": 1e3, "schedule": "cosine"}
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), make_data(), epochs=5, **recipe)
    attrs = wiu.to_inference_data(fit, num_samples=2)["posterior"].attrs
    found = {name.removeprefix("training_"): value for name, value in attrs.items() if name.startswith("training_")}
    plain = {"epochs": 5, "kept_epochs": 5, "batch_size": 128, "batches_per_epoch": 1, "learning_rate": 1e-3}
    assert found == recipe | plain | {"precision": "float32", "num_processes": 1}


def test_the_attributes_say_what_was_fitted(kfac: Any, fits: dict[str, Any]) -> None:
    found, fit = attrs(kfac), fits["AutoKFACLaplace"]
    expected = {
        "wiu_schema": "1",
        "guide": "AutoKFACLaplace",
        "approximation": "laplace-kfac",
        "curvature": "ggn",
        "structure": "kfac",
        "weight_sharing": "expand",
        "likelihood": "categorical",
        "num_data": 30,
        "num_data_curvature": 30,
        "seed": 3,
        "draw_seed": 1,
        "temperature": 1.0,
        "prediction_default": "linearised",
        "model_name": "mlp",
        "not_covered": "",
        "torch_version": torch.__version__.split("+")[0],
    }
    assert {name: found[name] for name in expected} | {"torch_version": expected["torch_version"]} == expected
    assert found["converged"] == {True: "yes", False: "no", None: "not assessed"}[fit.convergence.converged]
    assert found["convergence_change"] == pytest.approx(fit.convergence.change, nan_ok=True)
    assert dataset(kfac, "observed_data").attrs == {"split": "test", "class_names": ["a", "b", "c"]}


@pytest.mark.parametrize("name", GUIDES)
def test_the_draws_are_those_of_the_guide(name: str, fits: dict[str, Any]) -> None:
    idata = wiu.to_inference_data(fits[name], num_samples=7, seed=5)
    for number, weights in enumerate(draw_weights(fits[name], num_samples=7, seed=5)):
        for layer in ("fc1", "out"):
            for parameter in ("weight", "bias"):
                exported = dataset(idata, f"layer_{layer}")[parameter].isel(chain=0, draw=number).values
                # block by block their float32 is rounded elsewhere
                np.testing.assert_allclose(exported, weights[f"{layer}.{parameter}"].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", GUIDES)
def test_the_moments_are_those_of_many_draws(name: str, fits: dict[str, Any]) -> None:
    idata, num = wiu.to_inference_data(fits[name], num_samples=2), 400
    moments = dataset(idata, "moments_fc1")
    draws = torch.stack([weights["fc1.weight"] for weights in draw_weights(fits[name], num_samples=num, seed=9)])
    sd = moments["sd"].values[0]
    assert moments.attrs["moments"] == "exact"
    assert np.abs((draws.mean(0).numpy() - moments["mean"].values[0]) / sd).max() < 4.5 / math.sqrt(num)
    assert np.abs(draws.std(0).numpy() / sd - 1).max() < 4.5 / math.sqrt(2 * num)


@pytest.mark.parametrize("name", GUIDES)
def test_the_posterior_factorises_where_marginal_and_conditional_agree(name: str, fits: dict[str, Any]) -> None:
    moments = dataset(wiu.to_inference_data(fits[name], num_samples=2), "moments_fc1")
    factorised = name in ("AutoMeanField", "AutoDiagonalLaplace")
    assert moments.attrs["factorised"] == int(factorised)
    assert bool((moments.sd == moments.sd_conditional).all()) == factorised
    assert bool((moments.sd_conditional <= moments.sd * (1 + 1e-5)).all())


def test_the_prior_is_a_scalar_where_constant(kfac: Any) -> None:
    moments = dataset(kfac, "moments_fc1")
    assert float(moments.prior_sd) == pytest.approx(math.sqrt(2 / 4))
    assert float(moments.bias_prior_sd) == 1
    assert float(moments.prior_mean) == 0


def test_deviation_rms_is_the_distance_from_the_mean_in_prior_sds(kfac: Any) -> None:
    draws, moments = dataset(kfac, "layer_fc1"), dataset(kfac, "moments_fc1")
    weight = ((draws.weight - moments["mean"]) / moments.prior_sd) ** 2
    bias = ((draws.bias - moments.bias_mean) / moments.bias_prior_sd) ** 2
    expected = np.sqrt((weight.sum(("fc1_out", "fc1_in")) + bias.sum("fc1_out")) / 25)
    got = dataset(kfac, "posterior").deviation_rms.sel(layer="fc1", drop=True)
    xr.testing.assert_allclose(got, expected.transpose("chain", "draw"), rtol=1e-5)


def test_log_prior_sums_over_all_weights(kfac: Any) -> None:
    total = 0.0
    for layer, scale in {"fc1": math.sqrt(2 / 4), "out": math.sqrt(2 / 5)}.items():
        draws = dataset(kfac, f"layer_{layer}").isel(chain=0, draw=3)
        for values, sd in ((draws.weight.values, scale), (draws.bias.values, 1.0)):
            normal = torch.distributions.Normal(0.0, torch.tensor(sd, dtype=torch.float64))
            total += float(normal.log_prob(torch.tensor(values, dtype=torch.float64)).sum())
    assert dataset(kfac, "sample_stats").log_prior.values[0, 3] == pytest.approx(total, rel=1e-6)


def test_log_q_of_mean_field_is_that_of_independent_normals(fits: dict[str, Any]) -> None:
    idata = wiu.to_inference_data(fits["AutoMeanField"], num_samples=5)
    total = np.zeros(5)
    for layer in ("fc1", "out"):
        draws, moments = dataset(idata, f"layer_{layer}"), dataset(idata, f"moments_{layer}")
        for name, prefix in (("weight", ""), ("bias", "bias_")):
            mean, sd = (moments[prefix + part].values.astype(float) for part in ("mean", "sd"))
            z = (draws[name].values[0].astype(float) - mean) / sd
            terms = -0.5 * z**2 - np.log(sd) - 0.5 * math.log(2 * math.pi)
            total += terms.reshape(5, -1).sum(1)
    np.testing.assert_allclose(dataset(idata, "sample_stats").log_q.values[0], total, rtol=1e-5)


def test_the_kl_of_mean_field_is_torchs(fits: dict[str, Any]) -> None:
    layers = dataset(wiu.to_inference_data(fits["AutoMeanField"], num_samples=2), "layers")
    idata = wiu.to_inference_data(fits["AutoMeanField"], num_samples=2)
    for layer in ("fc1", "out"):
        moments, expected = dataset(idata, f"moments_{layer}"), 0.0
        for prefix in ("", "bias_"):
            mean, sd = (torch.tensor(moments[prefix + part].values).double() for part in ("mean", "sd"))
            prior = torch.distributions.Normal(torch.zeros_like(mean), float(moments[f"{prefix}prior_sd"]))
            expected += float(torch.distributions.kl_divergence(torch.distributions.Normal(mean, sd), prior).sum())
        assert float(layers.kl.sel(layer=layer)[0]) == pytest.approx(expected, rel=1e-5)
    assert abs(float(layers.kl_between_layers[0])) < 1e-9 * float(layers.kl_total[0]) + 1e-9


def test_layers_share_information_in_a_full_posterior_alone(fits: dict[str, Any]) -> None:
    between = {
        name: float(dataset(wiu.to_inference_data(fits[name], num_samples=2), "layers").kl_between_layers[0])
        for name in GUIDES
    }
    assert between["AutoFullLaplace"] > 1e-3
    assert all(abs(between[name]) < 1e-6 for name in GUIDES[:3])


def test_a_prior_that_is_not_normal_gets_its_kl_by_draws_with_an_error() -> None:
    model = make_model(prior=wiu.nn.Laplace(0.5))
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), make_data(), epochs=2)
    layers = dataset(wiu.to_inference_data(fit, num_samples=2), "layers")
    assert np.isfinite(layers.kl.values).all()
    assert (layers.kl_se.values > 0).all()


@pytest.mark.parametrize(
    ("predictive", "found", "log_likelihood"),
    [
        ("auto", ["linearised"], "linearised"),
        ("both", ["linearised", "sampled"], "linearised"),
        ("sampled", ["sampled"], "sampled"),
        (None, [], None),
    ],
)
def test_the_predictives_asked_for_are_written(
    predictive: str | None, found: list[str], log_likelihood: str | None, fits: dict[str, Any]
) -> None:
    idata = wiu.to_inference_data(fits["AutoKFACLaplace"], make_data(), num_samples=5, predictive=predictive)
    assert [name for name in groups(idata) if name.startswith("predictive")] == [f"predictive_{kind}" for kind in found]
    got = dataset(idata, "log_likelihood").attrs["predictive"] if "log_likelihood" in groups(idata) else None
    assert got == log_likelihood


@pytest.mark.parametrize("link", ["probit", "bridge"])
def test_closed_form_predictive_is_written_with_its_link(link: str, fits: dict[str, Any], tmp_path: Path) -> None:
    fit, data = fits["AutoKFACLaplace"], make_data()
    wiu.save(wiu.to_inference_data(fit, data, num_samples=5, predictive="both", link=link), tmp_path / "one.nc")
    idata = wiu.load(tmp_path / "one.nc")
    group, expected = dataset(idata, "predictive_linearised"), wiu.infer.predict(fit, data, link=link)
    assert (group.attrs["link"], group.attrs["num_samples"]) == (link, 0)
    for name in ("mean", "functional_variance", "predictive_entropy"):
        np.testing.assert_allclose(group[name][0], getattr(expected, name), rtol=1e-5)
    assert ("lower" in group, "concentration" in group) == (link == "bridge", link == "bridge")
    assert "log_likelihood" not in groups(idata)  # there are no draws
    found = wiu.diagnostics.predictive(idata)
    assert found.attrs["link"] == link
    np.testing.assert_allclose(found.nll, -np.log(expected.mean[np.arange(len(data[1])), data[1]]).mean(), rtol=1e-5)
    sampled = dataset(idata, "predictive_sampled").attrs
    assert ("link" in sampled, sampled["num_samples"]) == (False, 5)


def test_mean_field_predicts_by_sampled_networks(fits: dict[str, Any]) -> None:
    idata = wiu.to_inference_data(fits["AutoMeanField"], make_data(), num_samples=5)
    assert "predictive_sampled" in groups(idata)
    assert attrs(idata)["prediction_default"] == "sampled"


def test_predictions_hold_together(kfac: Any) -> None:
    data = dataset(kfac, "predictive_linearised")
    np.testing.assert_allclose(data["mean"].sum("class"), 1, atol=1e-5)
    assert bool(((data.lower <= data["mean"] + 1e-6) & (data["mean"] <= data.upper + 1e-6)).all())
    np.testing.assert_allclose(data.mutual_information, data.predictive_entropy - data.expected_entropy, atol=1e-5)
    x, y = make_data()
    np.testing.assert_array_equal(dataset(kfac, "observed_data").obs, y)
    np.testing.assert_array_equal(dataset(kfac, "constant_data").x, x)


def test_the_mean_probability_of_the_label_is_that_of_the_log_likelihood(kfac: Any) -> None:
    label = dataset(kfac, "observed_data").obs.rename(obs_id="obs_id")
    mean = dataset(kfac, "predictive_linearised")["mean"].sel({"class": label})
    by_draw = np.exp(dataset(kfac, "log_likelihood").obs.astype(float)).mean("draw")
    np.testing.assert_allclose(mean.values, by_draw.values, rtol=1e-4, atol=1e-6)


def test_a_shuffling_loader_keeps_labels_beside_their_predictions(fits: dict[str, Any]) -> None:
    x, y = make_data()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=7, shuffle=True)
    idata = wiu.to_inference_data(fits["AutoKFACLaplace"], loader, num_samples=5)
    ordered = wiu.to_inference_data(fits["AutoKFACLaplace"], (x, y), num_samples=5)
    inputs = dataset(idata, "constant_data").x.values
    order = [int(np.flatnonzero((x.numpy() == row).all(1))[0]) for row in inputs]
    np.testing.assert_array_equal(dataset(idata, "observed_data").obs, y.numpy()[order])
    np.testing.assert_allclose(
        dataset(idata, "predictive_linearised").point_mean,
        dataset(ordered, "predictive_linearised").point_mean.values[:, order],
        atol=1e-6,
    )


def test_a_subset_holds_the_same_draws_as_the_whole(fits: dict[str, Any], tmp_path: Path) -> None:
    fit = fits["AutoKFACLaplace"]
    whole = dataset(wiu.to_inference_data(fit, num_samples=4), "layer_fc1")
    idata = through_the_disk(wiu.to_inference_data(fit, num_samples=4, max_weights_per_layer=6), tmp_path)
    part = dataset(idata, "layer_fc1")
    assert part.weight.dims == ("chain", "draw", "fc1_weight")
    assert part.weight.attrs["shape"] == [5, 4]
    np.testing.assert_array_equal(
        part.weight.values, whole.weight.values.reshape(1, 4, -1)[..., part.fc1_weight.values]
    )
    assert dataset(idata, "moments_fc1")["mean"].shape == (1, 5, 4)


def test_the_same_seed_gives_the_same_file_but_for_the_time(fits: dict[str, Any], tmp_path: Path) -> None:
    parts = [wiu.to_inference_data(fits["AutoKFACLaplace"], make_data(), num_samples=4, seed=2) for _ in range(2)]
    for part in parts:
        part["posterior"].attrs["created_at"] = ""
    first, second = (wiu.save(part, tmp_path / f"{name}.nc") for name, part in zip("ab", parts, strict=True))
    assert first.read_bytes() == second.read_bytes()


def test_exporting_leaves_the_random_state_alone(fits: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    wiu.to_inference_data(fits["AutoMeanField"], make_data(), num_samples=3)
    assert torch.equal(before, torch.get_rng_state())


def test_runs_of_several_seeds_join(fits: dict[str, Any], tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        model = make_model()
        fit = wiu.fit(model, wiu.guides.AutoMeanField(model), make_data(), epochs=2, seed=seed)
        runs.append(wiu.to_inference_data(fit, make_data(), num_samples=4, seed=seed, max_weights_per_layer=6))
    joined = through_the_disk(wiu.concat(runs), tmp_path)
    assert dataset(joined, "layer_fc1").sizes["chain"] == 2
    assert attrs(joined)["seed"] == [0, 1]


def test_a_noise_scale_stands_beside_the_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 4)
    y = x.sum(1, keepdim=True)
    net = torch.nn.Sequential(torch.nn.Linear(4, 1))
    model = wiu.nn.BayesianNetwork(net, likelihood="normal", num_data=20)
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), (x, y), epochs=3)
    idata = through_the_disk(wiu.to_inference_data(fit, (x, y), num_samples=6), tmp_path)
    posterior = dataset(idata, "posterior")
    assert posterior.noise_scale.dims == ("chain", "draw")
    assert (posterior.noise_scale.values > 0).all()
    assert layer_names(idata) == ["0"]
    assert dataset(idata, "predictive_sampled")["mean"].dims == ("chain", "obs_id", "output")
    assert list(az.summary(idata, kind="stats").index) == ["deviation_rms[0]", "noise_scale"]


# 40 draws give poor Pareto tails; ArviZ 0.23 sorts as pandas 3 will no longer
@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto:UserWarning")
def test_summary_forest_loo_and_compare_of_arviz_take_it(kfac: Any, fits: dict[str, Any]) -> None:
    import matplotlib.pyplot as plt

    assert list(az.summary(kfac, kind="stats").index) == ["deviation_rms[fc1]", "deviation_rms[out]"]
    assert len(az.summary(kfac)) == 2
    assert len(az.summary(kfac, group="layer_fc1", kind="stats")) == 25
    az.plot_forest(kfac)
    plt.close("all")
    other = wiu.to_inference_data(fits["AutoFullLaplace"], make_data(), num_samples=40)
    assert set(az.compare({"kfac": kfac, "full": other}).index) == {"kfac", "full"}
    assert az.loo(kfac).n_data_points == 30


def test_something_else_is_no_posterior() -> None:
    with pytest.raises(GuideError, match="A Fit, a Pyro AutoGuide or an MCMC result is needed, but this is a dict"):
        wiu.to_inference_data({})


def test_an_unknown_option_is_named_with_its_neighbours(fits: dict[str, Any]) -> None:
    with pytest.raises(GuideError, match="no option 'max_weight_per_layer'. Did you mean 'max_weights_per_layer'"):
        wiu.to_inference_data(fits["AutoMeanField"], max_weight_per_layer=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1}, "At least 2 draws are needed.*num_samples is 1"),
        ({"predictive": "linear"}, "Unknown predictive 'linear'. Did you mean 'linearised'"),
        ({"link": "probits"}, "Unknown link 'probits'. Did you mean 'probit'"),
        ({"split": "testing"}, "Unknown split 'testing'. Did you mean 'test'"),
        ({"max_weights_per_layer": 0}, "max_weights_per_layer must be at least 1, but is 0"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str, fits: dict[str, Any]) -> None:
    with pytest.raises(GuideError, match=message):
        wiu.to_inference_data(fits["AutoMeanField"], **options)


def test_an_untrained_guide_is_refused() -> None:
    guide = wiu.guides.AutoMeanField(make_model())
    with pytest.raises(GuideError, match="has not seen any data"):
        wiu.to_inference_data(guide, data=make_data())


def test_a_point_estimate_of_a_laplace_guide_is_refused() -> None:
    guide = wiu.guides.AutoKFACLaplace(make_model())
    guide.setup(make_data())
    with pytest.raises(GuideError, match="laplace_approximation"):
        wiu.to_inference_data(guide)


def test_a_guide_of_pyros_needs_a_batch_to_look_at() -> None:
    from pyro.infer.autoguide import AutoNormal

    guide = AutoNormal(make_model())
    guide(*make_data())
    with pytest.raises(ModelError, match="One batch of data is needed"):
        wiu.to_inference_data(guide)


def test_a_prior_whose_sd_depends_on_another_site_is_refused() -> None:
    """Its sd would be that of one draw of the scale: contraction relative to it says nothing."""
    model = Hierarchical()
    fit = wiu.fit(model, AutoMeanField(model), make_data(), epochs=1)
    with pytest.raises(PriorError, match="the prior of 'fc.weight' depends on another site"):
        wiu.to_inference_data(fit, make_data(), num_samples=4)


def test_a_prior_without_an_sd_is_refused() -> None:
    import pyro
    import pyro.distributions as dist

    def model(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        weight = pyro.sample("fc.weight", dist.Cauchy(torch.zeros(3, 4), 1.0).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Categorical(logits=x @ weight.T), obs=y)

    from pyro.infer.autoguide import AutoNormal

    guide = AutoNormal(model)
    guide(*make_data())
    with pytest.raises(PriorError, match="'fc.weight'.*has none"):
        wiu.to_inference_data(guide, train_data=make_data())


def test_data_that_cannot_be_predicted_are_refused_by_name(fits: dict[str, Any]) -> None:
    inputs, labels = make_data()
    broken = inputs.clone()
    broken[3] = math.nan
    for data, error, message in [
        ((broken, labels), DataError, "Inputs must be finite, but 1 of .* the first at index 3"),
        ((inputs, labels + 1), DataError, "Labels must lie in 0 … 2"),
        (
            (inputs[:, :-1], labels),
            ModelError,
            "could not be run on a batch of shapes .* Check the network's input size",
        ),
    ]:
        with pytest.raises(error, match=message):
            wiu.to_inference_data(fits["AutoMeanField"], data, num_samples=4)
