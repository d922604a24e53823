"""Spectra of Kronecker factors in the file: against a linear network's own algebra, and through the disk."""

import numpy as np
import pytest
import torch

import wiu_pyro as wiu
from wiu_pyro import schema
from wiu_pyro.testing import linear_gaussian, small_classifier


def exported(model, guide, data):
    return wiu.to_inference_data(wiu.fit(model, guide(model), data, epochs=0), num_samples=2)


def test_spectra_of_a_linear_network_are_those_of_its_inputs_and_of_the_identity():
    toy = linear_gaussian(noise_scale=0.5, weight_scale=0.7, bias_scale=1.5)
    moments = schema.dataset(exported(toy.model, wiu.guides.AutoKFACLaplace, toy.data), "moments_net")
    x = torch.cat([toy.data[0], torch.ones(30, 1, dtype=torch.float64)], dim=1)
    scale = torch.tensor([0.7, 0.7, 0.7, 1.5], dtype=torch.float64)
    values = torch.linalg.eigvalsh(scale[:, None] * (x.mT @ x) * scale / 0.5**2)
    np.testing.assert_allclose(np.sort(moments["input_eigenvalues"][0]), values, rtol=1e-4)
    np.testing.assert_allclose(moments["grad_eigenvalues"][0], values.mean(), rtol=1e-4)


def test_products_of_the_spectra_give_the_effective_parameters_through_the_disk(tmp_path):
    model, data = small_classifier()
    idata = exported(model, wiu.guides.AutoKFACLaplace, data)
    wiu.save(idata, tmp_path / "one.nc")
    both = wiu.concat([wiu.load(tmp_path / "one.nc"), idata])
    table = wiu.diagnostics.layer_uncertainty(both)
    for layer in schema.layer_names(both):
        moments = schema.dataset(both, schema.moments_group(layer))
        assert moments["input_eigenvalues"].dims == ("chain", f"{layer}_input_direction")
        outputs, inputs = (moments[f"{side}_eigenvalues"].values[1].astype(float) for side in ("grad", "input"))
        curvature = np.outer(outputs, inputs) / inputs.mean()
        expected = float(table["effective_parameters"].sel(layer=layer, chain=1))
        assert np.sum(curvature / (1 + curvature)) == pytest.approx(expected, rel=1e-4)


def test_only_layers_in_a_kronecker_eigenbasis_have_spectra():
    model, data = small_classifier()
    for guide in (wiu.guides.AutoDiagonalLaplace, wiu.guides.AutoMeanField):
        idata = exported(model, guide, data)
        assert "input_eigenvalues" not in schema.dataset(idata, "moments_0")


def test_a_grouped_convolution_has_a_spectrum_for_each_group():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, groups=2), torch.nn.Flatten(), torch.nn.Linear(16, 3))
    model = wiu.nn.BayesianNetwork(net, num_data=12)
    data = torch.randn(12, 2, 4, 4), torch.arange(12) % 3
    moments = schema.dataset(exported(model, wiu.guides.AutoKFACLaplace, data), "moments_0")
    assert moments["input_eigenvalues"].dims == ("chain", "0_group", "0_input_direction")
    assert moments["input_eigenvalues"].shape == (1, 2, 10)
    assert moments["grad_eigenvalues"].shape == (1, 2, 2)
