"""Layer figures kept through a training: those of the layer table, and no trace of it in the fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pyro.infer import autoguide
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import (
    AutoDiagonalLaplace,
    AutoKFACLaplace,
    AutoLastLayerLaplace,
    AutoMeanField,
    closed_form,
    init_to_network,
)
from wiu_pyro.infer.track import FIGURES, Track, TrackConfig, read_track
from wiu_pyro.nn import BayesianNetwork, Laplace, Normal

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3


def network(**options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.ReLU(), nn.Linear(5, 3))
    return BayesianNetwork(net, options.pop("prior", {"1.*": None, "*": Normal()}), **options)


def fit(guide_class=AutoMeanField, data=(X, Y), *, model=None, **options):
    model = model or network()
    guide = options.pop("guide", None) or guide_class(model)
    return wiu.fit(model, guide, data, **{"epochs": 4, "batch_size": 5, "learning_rate": 0.02, **options})


def shuffled():
    return DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True)


GUIDES = {
    "mean field": lambda model: AutoMeanField(model),
    "sampled mean field": lambda model: AutoMeanField(model, estimator="reparam"),
    "kfac": lambda model: AutoKFACLaplace(model, curvature="fisher_mc"),
    "last layer": lambda model: AutoLastLayerLaplace(model),
    "prior tuned online": lambda model: AutoKFACLaplace(
        model, tune_prior=wiu.guides.PriorTuning(when="online", burn_in=1, every=1, steps=2)
    ),
    "Pyro's": lambda model: autoguide.AutoNormal(model, init_loc_fn=init_to_network(model)),
    "Pyro's Laplace": lambda model: autoguide.AutoLaplaceApproximation(model, init_loc_fn=init_to_network(model)),
}


@pytest.mark.parametrize("track", ["epoch", 3, TrackConfig(curvature="fisher_mc", num_data=7)])
@pytest.mark.parametrize("data", [lambda: (X, Y), shuffled], ids=["tensors", "a loader"])
@pytest.mark.parametrize("name", GUIDES)
def test_a_fit_is_bit_for_bit_the_same_with_and_without_track(name, data, track):
    results = []
    for kept in (None, track):
        model = network(prior={"1.*": None, "*": Normal(0.1)})  # narrow: the exact Hessian is positive definite
        found = fit(guide=GUIDES[name](model), model=model, data=data(), track=kept, validation=(X, Y), seed=3)
        state = {**found.point_estimate, **dict(model.state_dict()), **dict(found.guide.state_dict())}
        results.append((found, state, [module.training for module in model.modules()]))
    (plain, before, modes), (tracked, after, modes_after) = results
    assert plain.track is None
    assert isinstance(tracked.track, Track)
    assert plain.losses.tobytes() == tracked.losses.tobytes()
    assert all(plain.validation[key].tobytes() == tracked.validation[key].tobytes() for key in plain.validation)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert modes == modes_after


def test_the_random_states_are_left_as_they_were():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fit(AutoKFACLaplace, track="epoch", model=network())
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())


def test_the_last_record_of_mean_field_is_the_layer_table_of_its_export():
    found = fit(track="epoch", epochs=3)
    table = wiu.diagnostics.layer_uncertainty(wiu.to_inference_data(found, num_samples=2))
    assert found.track.layers == tuple(table["layer"].values)
    shared = [name for name in found.track.figures if name in table]
    assert {"kl", "kl_per_weight", "contraction", "sd_q05", "sd_q50", "sd_q95", "snr_q50", "mean_abs"} <= set(shared)
    for name in shared:
        np.testing.assert_allclose(found.track.figures[name][-1], table[name].values, rtol=1e-4, err_msg=name)
    assert found.track.factorised
    assert (found.track.structure, found.track.curvature) == ("mean-field", "none")


def test_records_and_losses_come_at_the_epochs_asked_for():
    found = fit(track=TrackConfig(every=2), epochs=5)
    assert found.track.epoch.tolist() == [2, 4]
    assert found.track.step.tolist() == [10, 20]
    np.testing.assert_allclose(found.track.loss, [found.losses[:2].mean(), found.losses[2:4].mean()], rtol=1e-6)
    assert found.track.full_rate_epochs == 4


def test_a_number_is_one_of_steps():
    found = fit(track=4, epochs=2)
    assert found.track.step.tolist() == [4, 8]
    assert found.track.epoch.tolist() == [4 / 5, 8 / 5]
    assert found.track.unit == "steps"


def test_changes_of_the_mean_are_in_prior_sds_and_the_first_record_has_none():
    prior = {"1.*": None, "*": Normal(0.5)}
    found = [fit(track="epoch", epochs=epochs, schedule="constant", model=network(prior=prior)) for epochs in (1, 2)]
    means = [[part.point_estimate[f"4.{name}"].ravel() for name in ("weight", "bias")] for part in found]
    change = torch.cat(means[1]) - torch.cat(means[0])
    record = found[1].track.figures
    assert np.isnan(record["mean_change"][0]).all()
    assert record["mean_change"][1, 1] == pytest.approx(float((change / 0.5).square().mean().sqrt()), rel=1e-4)
    assert record["mean_to_prior"][1, 1] == pytest.approx(float((torch.cat(means[1]) / 0.5).square().mean().sqrt()))


def test_a_point_estimate_is_tracked_by_the_diagonal_posterior_of_the_data_kept():
    model = network()
    found = fit(AutoKFACLaplace, model=model, track=TrackConfig(num_data=24), epochs=2)
    again = wiu.fit(model, AutoDiagonalLaplace(model), (X, Y), epochs=0, start=found.point_estimate)
    moments = closed_form(again.guide, again.structure)
    np.testing.assert_allclose(
        found.track.figures["kl"][-1], [moments.layer_kl[name] for name in found.track.layers], rtol=1e-4
    )
    assert (found.track.structure, found.track.curvature, found.track.factorised) == ("diagonal", "ggn", True)


def test_the_curvature_of_a_record_is_scaled_to_all_data_and_says_how_many_it_saw():
    found = fit(AutoKFACLaplace, track=TrackConfig(every=1, unit="steps", num_data=12), epochs=1)
    assert found.track.num_data.tolist() == [5, 10, 12, 12, 12]
    everything = fit(AutoKFACLaplace, track=TrackConfig(num_data=24), epochs=1).track.figures["contraction"][-1]
    np.testing.assert_allclose(found.track.figures["contraction"][-1], everything, rtol=0.3)


def test_layers_at_their_point_estimate_have_no_figures():
    found = fit(AutoLastLayerLaplace, track="epoch", epochs=2).track
    assert found.layers == ("0", "4")
    assert np.isnan(found.figures["kl"][:, 0]).all()
    assert np.isfinite(found.figures["kl"][:, 1]).all()
    assert np.isfinite(found.figures["sd_q50"][:, 1]).all()


def test_a_guide_with_correlations_has_the_conditional_contraction_too():
    model = network()
    guide = autoguide.AutoMultivariateNormal(model, init_loc_fn=init_to_network(model))
    found = fit(model=model, guide=guide, track="epoch", epochs=2).track
    assert not found.factorised
    assert (found.figures["conditional_contraction"] >= found.figures["contraction"] - 1e-6).all()


def test_the_prior_of_a_record_is_the_tuned_one():
    model = network()
    guide = GUIDES["prior tuned online"](model)
    found = fit(model=model, guide=guide, track=TrackConfig(num_data=24), epochs=4, schedule="constant")
    scales = guide.prior_scales
    assert scales
    assert all(scale != 1 for scale in scales.values())
    weights = torch.cat(
        [found.point_estimate[f"4.{name}"].ravel() / scales[f"4.{name}"] for name in ("weight", "bias")]
    )
    # the last record stands before the last change of the prior, of which there is none after the last epoch
    assert found.track.figures["mean_to_prior"][-1, 1] == pytest.approx(float(weights.square().mean().sqrt()), rel=1e-4)


def test_a_laplace_guide_at_anothers_point_estimate_has_its_track():
    model = network()
    first = fit(AutoKFACLaplace, model=model, track="epoch")
    second = fit(AutoDiagonalLaplace, model=model, epochs=0, start=first)
    assert second.track is first.track


def test_every_figure_is_described():
    assert set(fit(track="epoch").track.figures) == set(FIGURES) - {"conditional_contraction"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("epochs", r"track must be \"epoch\", a number of steps or a TrackConfig, but is 'epochs'"),
        (True, "but is True"),
        (0, "every of TrackConfig must be at least 1, but is 0"),
        ({"unit": "minutes"}, "TrackConfig has no unit 'minutes'"),
        ({"curvature": "hessian"}, "TrackConfig has no curvature 'hessian'"),
        ({"num_data": 0}, "num_data of TrackConfig must be at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, message):
    with pytest.raises(GuideError, match=message):
        read_track(asked)


def test_settings_of_a_tracked_fit_are_plain_values():
    assert fit(track="epoch").settings["track"] == dataclasses.asdict(TrackConfig())


def test_a_guide_without_closed_form_is_refused_at_the_first_step():
    model = network()
    guide = autoguide.AutoIAFNormal(model)
    with pytest.raises(GuideError, match="AutoIAFNormal is neither. Leave track out"):
        fit(model=model, guide=guide, track=TrackConfig(every=100))


def test_a_prior_that_the_curvature_cannot_take_is_refused_at_the_first_step():
    model = network(prior={"1.*": None, "*": Laplace(1.0)})
    guide = autoguide.AutoLaplaceApproximation(model, init_loc_fn=init_to_network(model))
    with pytest.raises(PriorError, match="has a Laplace"):
        fit(model=model, guide=guide, track=TrackConfig(every=100))
