"""Pyro's own guides, trained by Pyro's own SVI, and MCMC go through export like the toolkit's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuide,
    AutoGuideList,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import PyroModule, PyroSample
from torch import nn

import wiu_pyro as wiu
from tests.export.conftest import make_data, make_model
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.schema import attrs, dataset, groups, layer_names

GAUSSIAN = [AutoNormal, AutoDiagonalNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal]


def train(kind: Any, model: Any = None, **options: Any) -> AutoGuide:
    model = make_model() if model is None else model
    pyro.set_rng_seed(0)
    guide = kind(model, **options)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), TraceMeanField_ELBO())
    for _ in range(5):
        svi.step(*make_data())
    return guide


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_a_gaussian_guide_has_exact_moments(kind: Any, tmp_path: Path) -> None:
    guide = train(kind)
    idata = wiu.to_inference_data(guide, make_data(), num_samples=6)
    idata = wiu.load(wiu.save(idata, tmp_path / "guide.nc"))
    assert layer_names(idata) == ["fc1", "out"]
    assert attrs(idata)["guide"] == kind.__name__
    assert attrs(idata)["converged"] == "not assessed"
    assert "training" not in groups(idata)
    moments = dataset(idata, "moments_out")
    assert moments.attrs == {"moments": "exact", "factorised": int(kind in GAUSSIAN[:2])}
    np.testing.assert_allclose(moments["mean"][0], guide.median()["out.weight"].numpy(), atol=1e-6)
    assert dataset(idata, "predictive_sampled")["mean"].shape == (1, 30, 3)
    assert len(az.summary(idata, kind="stats")) == 2


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_log_q_is_the_density_of_the_flat_vector(kind: Any) -> None:
    guide = train(kind)
    idata = wiu.to_inference_data(guide, train_data=make_data(), num_samples=4)
    if kind is AutoNormal:
        names = [name for name, _ in guide.prototype_trace.iter_stochastic_nodes()]
        loc, scale = (
            torch.cat([part.reshape(-1) for part in parts])
            for parts in zip(*(guide._get_loc_and_scale(name) for name in names), strict=True)
        )
        covariance = torch.diag(scale.double() ** 2)
    else:
        loc, covariance = guide.loc, guide.get_posterior()
        covariance = (
            torch.diag(covariance.variance.double())
            if kind is AutoDiagonalNormal
            else covariance.covariance_matrix.double()
        )
    reference = torch.distributions.MultivariateNormal(loc.double(), covariance)
    sites = [name.split(".") for name, _ in guide.prototype_trace.iter_stochastic_nodes()]
    flat = [dataset(idata, f"layer_{layer}")[parameter].values[0].reshape(4, -1) for layer, parameter in sites]
    expected = reference.log_prob(torch.tensor(np.concatenate(flat, 1)).double())
    np.testing.assert_allclose(dataset(idata, "sample_stats").log_q.values[0], expected.detach(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [AutoDiagonalNormal, AutoNormal, AutoMeanField])
def test_a_positive_site_has_its_density_on_its_own_scale(kind: Any) -> None:
    def model(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        weight = pyro.sample("fc.weight", dist.Normal(torch.zeros(1, 4), 1.0).to_event(2))
        scale = pyro.sample("noise_scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal((x @ weight.T)[:, 0], scale), obs=y)

    x, _ = make_data()
    guide = kind(model, init_scale=0.3)
    guide(x, x.sum(1))
    idata = wiu.to_inference_data(guide, train_data=(x, x.sum(1)), num_samples=5)
    weight = dataset(idata, "layer_fc").weight.values[0, :, 0]
    noise = dataset(idata, "posterior").noise_scale.values[0]
    if kind is AutoNormal:
        parts = [guide._get_loc_and_scale(name) for name in ("fc.weight", "noise_scale")]
        loc, scale = (torch.cat([part.reshape(-1) for part in values]) for values in zip(*parts, strict=True))
    else:
        loc, scale = guide.loc, guide._loc_scale()[1]
    loc, scale = loc.detach().double(), scale.detach().double()
    expected = torch.distributions.Normal(loc[:4], scale[:4]).log_prob(torch.tensor(weight).double()).sum(1)
    expected = expected + torch.distributions.LogNormal(loc[4], scale[4]).log_prob(torch.tensor(noise).double())
    np.testing.assert_allclose(dataset(idata, "sample_stats").log_q.values[0], expected, rtol=1e-5, atol=1e-4)


def test_a_point_estimate_has_no_spread_and_says_why_it_has_no_kl() -> None:
    idata = wiu.to_inference_data(train(AutoDelta), make_data(), num_samples=3)
    assert float(dataset(idata, "moments_fc1").sd.max()) == 0
    assert float(dataset(idata, "posterior").deviation_rms.max()) < 1e-6
    layers = dataset(idata, "layers")
    assert np.isnan(layers.kl.values).all()
    assert "point estimate" in layers.kl.attrs["kl_reason"]


def test_a_guide_without_a_closed_form_is_estimated_from_its_draws() -> None:
    model = make_model()
    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["fc1.weight", "fc1.bias"])))
    guide.append(AutoNormal(poutine.block(model, hide=["fc1.weight", "fc1.bias"])))
    guide(*make_data())
    idata = wiu.to_inference_data(guide, train_data=make_data(), num_samples=300)
    moments, layers = dataset(idata, "moments_fc1"), dataset(idata, "layers")
    draws = dataset(idata, "layer_fc1").weight.astype(float)
    assert moments.attrs == {"moments": "estimated", "factorised": 0}
    assert "sd_conditional" not in moments
    np.testing.assert_allclose(moments["mean"], draws.mean("draw"), atol=1e-6)
    np.testing.assert_allclose(moments.sd, draws.std("draw", ddof=1), rtol=1e-5)
    assert np.isnan(layers.kl.values).all()
    assert "kl_reason" in layers.kl.attrs


def test_kl_of_a_guide_with_a_density_alone_is_the_mean_over_draws_with_its_standard_error() -> None:
    guide = AutoIAFNormal(make_model(), hidden_dim=[50])
    guide(*make_data())
    idata = wiu.to_inference_data(guide, train_data=make_data(), num_samples=20)
    stats, layers = dataset(idata, "sample_stats"), dataset(idata, "layers")
    ratio = (stats.log_q - stats.log_prior).values[0]
    assert float(layers.kl_total[0]) == pytest.approx(ratio.mean())
    assert float(layers.kl_total_se[0]) == pytest.approx(ratio.std(ddof=1) / math.sqrt(20))


@pytest.fixture(scope="module")
def mcmc() -> MCMC:
    pyro.set_rng_seed(0)
    model = make_model()
    run = MCMC(NUTS(model, max_tree_depth=2, jit_compile=False), num_samples=12, warmup_steps=4, disable_progbar=True)
    run.run(*make_data())
    return run


def test_mcmc_draws_are_kept_as_they_are(mcmc: MCMC, tmp_path: Path) -> None:
    idata = wiu.to_inference_data(mcmc, make_data(), num_samples=5)
    idata = wiu.load(wiu.save(idata, tmp_path / "mcmc.nc"))
    samples = mcmc.get_samples(group_by_chain=True)
    np.testing.assert_array_equal(dataset(idata, "layer_fc1").weight.values, samples["fc1.weight"].numpy())
    assert attrs(idata)["guide"] == "MCMC"
    assert attrs(idata)["approximation"] == "mcmc"
    assert dataset(idata, "moments_fc1").attrs["moments"] == "estimated"
    assert np.isnan(dataset(idata, "sample_stats").log_q.values).all()
    layers = dataset(idata, "layers")
    assert np.isnan(layers.kl.values).all()
    assert layers.kl.attrs["kl_reason"] == "MCMC gives no density of a draw"


def test_mcmc_predicts_with_each_of_its_draws(mcmc: MCMC) -> None:
    x, y = make_data()
    idata = wiu.to_inference_data(mcmc, (x, y), num_samples=5)
    weights = {name: values[0, 3] for name, values in mcmc.get_samples(group_by_chain=True).items()}
    hidden = torch.tanh(x @ weights["fc1.weight"].T + weights["fc1.bias"])
    log_probs = torch.log_softmax(hidden @ weights["out.weight"].T + weights["out.bias"], -1)
    expected = log_probs[torch.arange(30), y]
    np.testing.assert_allclose(dataset(idata, "log_likelihood").obs.values[0, 3], expected, atol=1e-5)
    assert "point_mean" not in dataset(idata, "predictive_sampled")


def test_the_chains_of_mcmc_become_chains(mcmc: MCMC, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = {name: torch.cat([v, v + 1]) for name, v in mcmc.get_samples(group_by_chain=True).items()}
    monkeypatch.setattr(mcmc, "get_samples", lambda group_by_chain: samples)
    idata = wiu.to_inference_data(mcmc, make_data())
    assert dataset(idata, "posterior").sizes["chain"] == 2
    moments = dataset(idata, "moments_fc1")
    np.testing.assert_allclose(moments["mean"][1], moments["mean"][0] + 1, atol=1e-5)
    np.testing.assert_allclose(moments.sd[1], moments.sd[0], rtol=1e-4)
    assert dataset(idata, "predictive_sampled")["mean"].sizes["chain"] == 2


def test_mcmc_that_has_not_run_is_refused() -> None:
    run = MCMC(NUTS(make_model()), num_samples=2, warmup_steps=1)
    with pytest.raises(GuideError, match=r"Call mcmc.run\(...\) first"):
        wiu.to_inference_data(run, make_data())


def test_a_users_own_pyro_module_goes_through(tmp_path: Path) -> None:
    class Net(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = PyroModule[nn.Linear](4, 5)
            self.hidden.weight = PyroSample(dist.Normal(0.0, 1.0).expand([5, 4]).to_event(2))
            self.hidden.bias = PyroSample(dist.Normal(0.0, 0.5).expand([5]).to_event(1))
            self.last = PyroModule[nn.Linear](5, 3)
            self.last.weight = PyroSample(dist.Normal(0.0, 2.0).expand([3, 5]).to_event(2))

        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            logits = self.last(torch.relu(self.hidden(x)))
            with pyro.plate("data", len(x)):
                pyro.sample("obs", dist.Categorical(logits=logits), obs=y)
            return logits

    idata = wiu.to_inference_data(train(AutoNormal, Net()), make_data(), num_samples=4, split="train")
    idata = wiu.load(wiu.save(idata, tmp_path / "own.nc"))
    assert layer_names(idata) == ["hidden", "last"]
    assert float(dataset(idata, "moments_hidden").bias_prior_sd) == 0.5
    assert set(dataset(idata, "layer_last").data_vars) == {"weight"}
    assert "last.bias" in attrs(idata)["not_covered"]
    stats, likelihood = dataset(idata, "sample_stats"), dataset(idata, "log_likelihood")
    expected = stats.log_prior + likelihood.obs.astype(float).sum("obs_id")
    np.testing.assert_allclose(stats.lp, expected)
    assert math.isfinite(float(dataset(idata, "layers").kl_total[0]))


def test_test_data_give_no_log_joint() -> None:
    idata = wiu.to_inference_data(train(AutoNormal), make_data(), num_samples=3)
    assert "lp" not in dataset(idata, "sample_stats")
