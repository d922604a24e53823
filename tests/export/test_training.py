"""Group `training` through the disk: losses, and the layers' figures where the fit kept them."""

from __future__ import annotations

import numpy as np
import pytest
from pyro.infer.autoguide import AutoDelta

import wiu_pyro as wiu
from tests.export.conftest import make_data, make_model
from wiu_pyro.diagnostics import training_loss
from wiu_pyro.guides import AutoKFACLaplace, AutoLastLayerLaplace, AutoMeanField, AutoSWAG
from wiu_pyro.infer import TrackConfig
from wiu_pyro.plots import loss
from wiu_pyro.schema import dataset


def exported(tmp_path, guide_class=AutoMeanField, *, number=0, **options):
    model = make_model()
    fit = wiu.fit(model, guide_class(model), make_data(), **{"epochs": 6, "batch_size": 10, "seed": number} | options)
    path = wiu.save(wiu.to_inference_data(fit, num_samples=2), tmp_path / f"{number}.nc")
    return fit, wiu.load(path)


def test_records_after_epochs_stand_along_the_losses_and_survive_the_disk(tmp_path):
    fit, idata = exported(tmp_path, track="epoch")
    data = dataset(idata, "training")
    assert dict(data.sizes) == {"chain": 1, "epoch": 6, "layer": 2}
    assert data["layer"].values.tolist() == ["fc1", "out"]
    for name, values in fit.track.figures.items():
        np.testing.assert_allclose(data[name].values[0], values, rtol=1e-6, err_msg=name)
        assert data[name].dtype == np.float32
    assert float(data["full_rate_epochs"][0]) == 5
    said = {name: data.attrs[name] for name in ("tracked", "tracked_structure", "tracked_curvature")}
    assert said == {"tracked": "epochs", "tracked_structure": "mean-field", "tracked_curvature": "none"}


def test_epochs_without_a_record_are_nan(tmp_path):
    kl = dataset(exported(tmp_path, track=TrackConfig(every=2))[1], "training")["kl"]
    assert np.isnan(kl.values[0, :, 0]).tolist() == [True, False, True, False, True, False]


def test_records_after_steps_have_a_dim_of_their_own(tmp_path):
    fit, idata = exported(tmp_path, track=7)
    data = dataset(idata, "training")
    assert data["step"].values.tolist() == [7, 14]
    assert data["kl"].dims == ("chain", "step", "layer")
    np.testing.assert_allclose(data["step_epoch"].values[0], [7 / 3, 14 / 3])
    np.testing.assert_allclose(data["step_loss"].values[0], fit.track.loss, rtol=1e-6)
    assert data["loss"].dims == ("chain", "epoch")


def test_a_point_estimate_says_which_curvature_and_how_many_data(tmp_path):
    data = dataset(exported(tmp_path, AutoKFACLaplace, track=TrackConfig(num_data=20))[1], "training")
    assert data.attrs["tracked_structure"] == "diagonal"
    assert data.attrs["tracked_curvature"] == "ggn"
    assert data.attrs["tracked_factorised"] == 1
    assert data["tracked_data"].values.tolist() == [[20.0] * 6]


def test_layers_at_their_point_estimate_have_no_figures_in_a_training_shared_with_others(tmp_path):
    model = make_model()
    first = wiu.fit(model, AutoKFACLaplace(model), make_data(), epochs=3, track="epoch")
    second = wiu.fit(model, AutoLastLayerLaplace(model), make_data(), epochs=0, start=first)
    data = dataset(wiu.to_inference_data(second, num_samples=2), "training")
    assert np.isnan(data["kl"].sel(layer="fc1").values).all()
    assert np.isfinite(data["kl"].sel(layer="out").values).all()


@pytest.mark.parametrize("track", ["epoch", 4])
def test_joined_runs_of_different_length_are_filled_with_nan(tmp_path, track):
    runs = [exported(tmp_path, number=number, epochs=3 + number, track=track)[1] for number in range(2)]
    kl = dataset(wiu.concat(runs), "training")["kl"]
    assert kl.sizes["chain"] == 2
    assert np.isnan(kl.values[0, -1]).all()
    assert np.isfinite(kl.values[1]).all()


@pytest.mark.parametrize(
    ("guide", "temperature", "meaning"),
    [
        (AutoMeanField, 1.0, "-ELBO, summed over the data"),
        (AutoMeanField, 0.5, "-ELBO, summed over the data, the prior's part times 0.5"),
        (AutoKFACLaplace, 1.0, "-log joint density, summed over the data"),
        (AutoSWAG, 1.0, "-log joint density, summed over the data"),
        (AutoDelta, 1.0, "-log joint density, summed over the data"),
    ],
)
def test_loss_says_what_it_is(tmp_path, guide, temperature, meaning):
    options = {} if temperature == 1 else {"temperature": temperature}
    _, idata = exported(tmp_path, guide, **options)
    assert dataset(idata, "training")["loss"].attrs["meaning"] == meaning
    table = training_loss(idata)
    assert table["loss"].attrs["long_name"] == f"loss: {meaning}, nats"
    assert loss(table).get_ylabel() == f"loss = {meaning.partition(',')[0].replace('-', '−')}, nats"


def test_a_fit_that_was_not_tracked_has_its_losses_alone(tmp_path):
    assert set(dataset(exported(tmp_path)[1], "training").data_vars) == {"loss"}
