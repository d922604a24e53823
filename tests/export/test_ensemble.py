"""The file of an ensemble, through the disk: members along chain, the mixture's predictions, NaN where none is."""

from __future__ import annotations

import inspect

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import nn

import wiu_pyro as wiu
from wiu_pyro import diagnostics, plots, schema
from wiu_pyro.errors import GuideError, SchemaError, WiuError
from wiu_pyro.export.container import build
from wiu_pyro.guides import AutoEnsemble, AutoKFACLaplace, AutoPointEstimate
from wiu_pyro.infer import predict
from wiu_pyro.nn import BayesianNetwork
from wiu_pyro.testing import small_classifier

SIZE = 5
TAKES_SEVERAL = ("agreement", "compare")
# of a fit that kept no figures through its training, and whose inputs are no images
REFUSED = {"kfac": {"convergence", "evolution", "input_map"}}
REFUSED["points"] = REFUSED["kfac"] | {"weight_map", "within_layer"}


def made(folder, member, **options):
    model, data = small_classifier()
    fit = wiu.fit(model, AutoEnsemble(model, member=member, size=SIZE), data, epochs=2)
    idata = wiu.to_inference_data(fit, data, num_samples=20, **options)
    wiu.save(idata, folder / "ensemble.nc")
    return fit, data, wiu.load(folder / "ensemble.nc")


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return made(tmp_path_factory.mktemp("points"), None)


@pytest.fixture(scope="module")
def kfac(tmp_path_factory):
    return made(tmp_path_factory.mktemp("kfac"), AutoKFACLaplace, predictive="both")


def test_each_chain_is_a_member_as_it_is_exported_alone(kfac):
    fit, _, idata = kfac
    for number, one in enumerate(fit.members):
        alone = wiu.to_inference_data(one, num_samples=20, seed=100_000 * number)
        for layer in schema.layer_names(idata):
            for group in (schema.layer_group(layer), schema.moments_group(layer)):
                mine = schema.dataset(idata, group).isel(chain=[number])
                for name, values in schema.dataset(alone, group).items():
                    own = mine[name] if "chain" in mine[name].dims else mine[name].drop_vars("chain", errors="ignore")
                    np.testing.assert_array_equal(own.values, values.values)
    attrs = schema.attrs(idata)
    assert attrs["guide"] == "AutoEnsemble"
    assert attrs["approximation"] == "ensemble-laplace-kfac"
    assert attrs["member_guide"] == "AutoKFACLaplace"
    assert attrs["members"] == SIZE
    assert list(attrs["seed"]) == [one.seed for one in fit.members]
    assert attrs["structure"] == "kfac"


def test_predictive_is_the_mixture_with_what_each_member_says_beside_it(kfac):
    fit, data, idata = kfac
    for kind in ("linearised", "sampled"):
        group, found = schema.dataset(idata, f"predictive_{kind}"), predict(fit, data, kind=kind, num_samples=20)
        assert group.sizes["chain"] == 1
        np.testing.assert_allclose(group["mean"].values[0], found.mean)
        np.testing.assert_allclose(group["member_mean"].values[0], found.member_mean)
        np.testing.assert_allclose(group["mean"].values[0], group["member_mean"].values[0].mean(0), atol=1e-6)
        assert group.attrs["mixture"].startswith("over members")
        assert group.attrs["point_mean"] == "of the first member"
    likelihood = schema.dataset(idata, "log_likelihood")
    assert dict(likelihood.sizes) == {"chain": SIZE, "draw": 20, "obs_id": 24}


def test_scores_are_those_of_the_mixture(kfac):
    _, data, idata = kfac
    mean = schema.dataset(idata, "predictive_linearised")["mean"].values[0].astype(float)
    nll = -np.log(mean[np.arange(24), data[1].numpy()]).mean()
    assert float(diagnostics.predictive(idata)["nll"]) == pytest.approx(nll, rel=1e-5)
    table = diagnostics.compare({"a": idata, "b": idata})
    assert float(table["elpd_mean"][0]) == pytest.approx(-nll, rel=1e-5)


def test_a_regressions_density_is_that_of_all_members_draws_together():
    torch.manual_seed(0)
    x = torch.randn(20, 3)
    data = (x, x.sum(1, keepdim=True))
    model = BayesianNetwork(nn.Linear(3, 1), likelihood="normal", noise_scale=0.3)
    fit = wiu.fit(model, AutoEnsemble(model, size=3), data, epochs=2)
    idata = wiu.to_inference_data(fit, data)
    draws = schema.dataset(idata, "log_likelihood")["obs"].values.reshape(3, 20).astype(float)
    expected = -(logsumexp(draws, axis=0) - np.log(3)).mean()
    assert float(diagnostics.predictive(idata)["nll"]) == pytest.approx(expected, rel=1e-5)


def test_a_file_of_point_estimates_holds_nan_and_the_reason_where_others_have_an_sd(points):
    fit, _, idata = points
    schema.validate(idata)
    for layer in schema.layer_names(idata):
        moments = schema.dataset(idata, schema.moments_group(layer))
        for name in ("sd", "bias_sd", "sd_conditional", "bias_sd_conditional"):
            assert np.isnan(moments[name].values).all()
            assert "no uncertainty is known" in moments[name].attrs["reason"]
        expected = [one.point_estimate[f"{layer}.weight"].numpy() for one in fit.members]
        np.testing.assert_array_equal(moments["mean"].values, expected)
        assert schema.dataset(idata, schema.layer_group(layer)).sizes["draw"] == 1
    assert np.isnan(schema.dataset(idata, "posterior")["deviation_rms"].values).all()
    assert schema.dataset(idata, "layers")["kl"].attrs["kl_reason"].startswith("a layer at its point estimate")
    assert np.isnan(schema.dataset(idata, "layers")["kl_total"].values).all()
    assert schema.attrs(idata)["approximation"] == "ensemble"
    assert az.summary(idata, kind="stats")["mean"].isnull().all()


def test_a_lone_point_estimate_is_written_alike():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoPointEstimate(model), data, epochs=1)
    idata = wiu.to_inference_data(fit, data, num_samples=3)
    assert np.isnan(schema.dataset(idata, "moments_0")["sd"].values).all()
    table = diagnostics.layer_uncertainty(idata)
    assert table["sd_q50"].isnull().all()
    assert (table["num_uncertain"] == 0).all()


def test_only_a_reason_lets_an_sd_be_nan(points):
    _, _, idata = points
    moments = schema.dataset(idata, "moments_0")
    groups = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    groups["moments_0"] = moments.assign(sd=moments["sd"].drop_attrs())
    with pytest.raises(SchemaError, match="'sd' of group 'moments_0' must be finite"):
        schema.validate(build(groups))


def _asked(name, idata):
    return getattr(diagnostics, name)([idata, idata] if name in TAKES_SEVERAL else idata)


DIAGNOSTICS = [
    name
    for name in diagnostics.__all__
    if not name.endswith("statement") and inspect.isfunction(getattr(diagnostics, name))
]


@pytest.mark.parametrize("name", sorted(set(DIAGNOSTICS) - REFUSED["points"]))
def test_diagnostic_works_on_an_ensemble_of_points(points, name):
    table = _asked(name, points[2])
    assert table.sizes.get("chain", SIZE) == SIZE


@pytest.mark.parametrize("name", sorted(set(DIAGNOSTICS) - REFUSED["kfac"]))
def test_diagnostic_works_on_an_ensemble_of_posteriors(kfac, name):
    table = _asked(name, kfac[2])
    assert table.sizes.get("chain", SIZE) == SIZE


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, names in REFUSED.items() for name in sorted(names)])
def test_diagnostic_says_why_it_cannot(case, name, request):
    with pytest.raises(WiuError, match="through the training|point estimate|uncertain weight|image shape|such a layer"):
        _asked(name, request.getfixturevalue(case)[2])


def test_members_are_the_seeds_of_the_layers_intervals(kfac):
    _, _, idata = kfac
    table = diagnostics.between_layers(idata)
    assert table.attrs["num_seeds"] == SIZE
    assert table["seeds_low"].notnull().any()


def test_two_ensembles_are_set_side_by_side_member_by_member(kfac):
    _, _, idata = kfac
    table = diagnostics.agreement({"a": idata, "b": idata})
    assert table.attrs["num_seeds"] == SIZE
    np.testing.assert_allclose(table["function_rank"].values, 1)


def test_point_estimates_say_in_words_that_there_is_nothing_to_agree_on(points):
    _, _, idata = points
    table = diagnostics.agreement({"a": idata, "b": idata})
    assert "No two of these posteriors have an uncertainty" in diagnostics.agreement_statement(table)
    for plot in (plots.agreement, plots.compare_layers):
        with pytest.raises(SchemaError, match="point estimate"):
            plot({"a": idata, "b": idata})
    figure = plots.layer_uncertainty(idata)
    assert [text.get_text() for text in figure.axes[0].texts].count("point estimate") == 2
    plt.close("all")


def test_ensembles_of_several_seeds_are_joined_to_more_networks_and_one_mixture_each(points):
    fit, data, idata = points
    other = wiu.fit(fit.model, AutoEnsemble(fit.model, size=SIZE), data, epochs=2, seed=1)
    joined = wiu.concat([idata, wiu.to_inference_data(other, data)])
    assert schema.dataset(joined, "posterior").sizes["chain"] == 2 * SIZE
    assert schema.dataset(joined, "predictive_sampled").sizes["chain"] == 2
    assert diagnostics.predictive(joined)["nll"].sizes["chain"] == 2


def test_the_guide_alone_is_no_ensembles_export(points):
    fit, data, _ = points
    with pytest.raises(GuideError, match="exported by the Fit that wiu_pyro.fit returned"):
        wiu.to_inference_data(fit.guide, data)


@pytest.mark.parametrize("intervention", ["prune", "stochastic_layers"])
def test_interventions_take_the_members_as_networks(kfac, intervention):
    fit, data, _ = kfac
    call = getattr(wiu.interventions, intervention)
    options = {"kinds": ("restricted",), "effect_draws": 10} if intervention == "stochastic_layers" else {}
    table = call(fit, data, num_samples=4, **options)
    assert table.sizes["chain"] == SIZE
