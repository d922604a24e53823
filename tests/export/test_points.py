"""Layers at their point estimate, through the disk: moments, draws, tables, predictions, and what is said of them."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro import diagnostics, schema
from wiu_pyro.guides import AutoLaplace, AutoLastLayerLaplace, closed_form
from wiu_pyro.nn import BayesianNetwork


class Lenet(nn.Module):
    """Two convolutions and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 2)
        self.fc1, self.fc3 = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        return self.fc3(torch.tanh(self.fc1(torch.relu(self.conv2(hidden)).flatten(1))))


LAYERS = ["conv1", "conv2", "fc1", "fc3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    data = (torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
    model = BayesianNetwork(Lenet(), num_data=30)
    fit = wiu.fit(model, AutoLaplace(model, structure={"fc3": "full"}), data, epochs=3)
    idata = wiu.to_inference_data(fit, data, num_samples=30, predictive="both")
    path = tmp_path_factory.mktemp("points") / "last.nc"
    wiu.save(idata, path)
    return fit, wiu.load(path)


def test_file_names_what_is_at_its_point_estimate(made):
    _, idata = made
    schema.validate(idata)
    layers, attrs = schema.dataset(idata, "layers"), schema.attrs(idata)
    assert layers["structure"].values.tolist() == ["point", "point", "point", "full"]
    assert layers["curvature"].values.tolist() == ["none", "none", "none", "ggn"]
    assert attrs["structure"] == "full"
    assert attrs["guide"] == "AutoLaplace"
    for site in ("conv1.weight", "fc1.bias"):
        assert f"{site} (at a point estimate)" in attrs["not_covered"]
    assert "fc3" not in attrs["not_covered"]


def test_held_layers_have_sd_zero_and_draws_that_do_not_move(made):
    fit, idata = made
    for layer in LAYERS:
        moments, draws = (schema.dataset(idata, f"{group}_{layer}") for group in ("moments", "layer"))
        moved = layer == "fc3"
        for prefix in ("", "bias_"):
            assert bool((moments[f"{prefix}sd"] > 0).all()) == moved
            assert bool((moments[f"{prefix}sd_conditional"] > 0).all()) == moved
        assert bool((draws["weight"] != draws["weight"].isel(draw=0)).any()) == moved
        expected = fit.point_estimate[f"{layer}.weight"].numpy()
        np.testing.assert_allclose(moments["mean"].values[0], expected, rtol=1e-6)
    deviation = schema.dataset(idata, "posterior")["deviation_rms"].values[0]
    assert (deviation[:, :3] == 0).all()
    assert (deviation[:, 3] > 0).all()


def test_divergences_are_those_of_the_layer_that_has_a_posterior(made):
    fit, idata = made
    layers, closed = schema.dataset(idata, "layers"), closed_form(fit.guide, fit.structure)
    assert np.isnan(layers["kl"].values[0]).tolist() == [True, True, True, False]
    assert layers["kl"].attrs["kl_reason"] == "a layer at its point estimate has no density"
    assert float(layers["kl_total"][0]) == pytest.approx(closed.layer_kl["fc3"])
    assert float(layers["kl_between_layers"][0]) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(schema.dataset(idata, "sample_stats")["log_q"]).all()


def test_tables_and_statement_speak_of_that_layer_alone(made):
    _, idata = made
    table = diagnostics.layer_uncertainty(idata)
    assert table["num_uncertain"].values.tolist() == [0, 0, 0, 21]
    for name in ("contraction", "snr_q50", "sd_to_prior", "effective_parameters", "kl_per_weight"):
        assert table[name].notnull().values.tolist() == [False, False, False, True], name
    said = diagnostics.layer_statement(table)
    assert said.startswith("The one layer with a posterior, 'fc3', has lost")
    assert "Held at the point estimate, so without an uncertainty: 'conv1', 'conv2', 'fc1'." in said
    summary = az.summary(idata, kind="stats")
    assert float(summary.loc["deviation_rms[conv1]", "mean"]) == 0
    assert float(summary.loc["deviation_rms[fc3]", "mean"]) > 0


def test_both_predictives_are_those_of_the_last_layer(made):
    _, idata = made
    for kind in ("linearised", "sampled"):
        predictive = schema.dataset(idata, f"predictive_{kind}")
        np.testing.assert_allclose(predictive["mean"].sum("class"), 1, rtol=1e-5)
        assert (predictive["mutual_information"] > 0).any()


def test_mixed_structures_are_called_mixed():
    torch.manual_seed(0)
    data = (torch.rand(12, 1, 8, 8), torch.arange(12) % 3)
    model = BayesianNetwork(Lenet(), num_data=12)
    fit = wiu.fit(model, AutoLaplace(model, structure={"conv*": "kfac", "fc3": "ekfac"}), data, epochs=0)
    idata = wiu.to_inference_data(fit, num_samples=2)
    assert schema.attrs(idata)["structure"] == "mixed"
    assert schema.dataset(idata, "layers")["structure"].values.tolist() == ["kfac", "kfac", "point", "ekfac"]


def test_last_layers_of_several_seeds_join():
    runs = []
    for seed in range(2):
        torch.manual_seed(seed)
        data = (torch.rand(12, 1, 8, 8), torch.arange(12) % 3)
        model = BayesianNetwork(Lenet(), num_data=12)
        fit = wiu.fit(model, AutoLastLayerLaplace(model), data, epochs=0, seed=seed)
        runs.append(wiu.to_inference_data(fit, num_samples=2))
    table = diagnostics.layer_uncertainty(wiu.concat(runs))
    assert table["contraction"].notnull().values.tolist() == [[False, False, False, True]] * 2
    assert "Held at the point estimate" in diagnostics.layer_statement(table)
