"""`fit`: the same twice, the rest of the world untouched, and errors that name the thing."""

from __future__ import annotations

import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import wiu_pyro as wiu
from wiu_pyro.errors import (
    CostError,
    CurvatureError,
    DataError,
    DeviceError,
    FitError,
    GuideError,
    ModelError,
    PriorError,
)
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoMeanField, init_to_network
from wiu_pyro.infer import draw_weights, predict
from wiu_pyro.infer.training import Training
from wiu_pyro.nn import BayesianNetwork, Laplace, Normal
from wiu_pyro.testing import linear_gaussian, small_classifier

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def network(**options) -> BayesianNetwork:
    torch.manual_seed(0)
    return BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), **options)


def fit(guide_class=AutoMeanField, data=(X, Y), *, model=None, **options):
    model = model or network()
    return wiu.fit(model, guide_class(model), data, **{"epochs": 2, "batch_size": 5, **options})


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "guide_class", [AutoMeanField, AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace, autoguide.AutoNormal]
)
def test_same_seed_gives_the_same_fit_draws_and_file(guide_class):
    fits = [fit(guide_class, seed=3) for _ in range(2)]
    assert np.array_equal(fits[0].losses, fits[1].losses)
    assert same(fits[0].point_estimate, fits[1].point_estimate)
    draws = [list(draw_weights(one, num_samples=3, seed=1)) for one in fits]
    assert all(same(one, other) for one, other in zip(*draws))
    exports = [wiu.to_inference_data(one, (X, Y), num_samples=4) for one in fits]
    assert wiu.schema.groups(exports[0]) == wiu.schema.groups(exports[1])
    for group in wiu.schema.groups(exports[0]):
        datasets = [wiu.schema.dataset(export, group) for export in exports]
        for data in datasets:
            for name in ("created_at", "curvature_seconds", "peak_memory_bytes"):  # of the run, not of the posterior
                data.attrs.pop(name, None)
        assert datasets[0].identical(datasets[1])


def test_other_seed_gives_another_fit():
    assert not np.array_equal(fit(seed=0).losses, fit(seed=1).losses)


def test_loader_that_shuffles_by_the_global_state_gives_the_same_fit_too():
    losses = [fit(data=DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True), seed=2).losses for _ in range(2)]
    assert np.array_equal(*losses)


@pytest.mark.parametrize("guide_class", [AutoMeanField, AutoKFACLaplace, autoguide.AutoNormal])
def test_global_random_states_and_parameter_store_are_left_as_they_were(guide_class):
    model = network()
    pyro.param("mine", torch.tensor(1.0))
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    fitted = fit(guide_class, model=model)
    list(draw_weights(fitted, num_samples=2))
    assert states[0] == random.getstate()
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert torch.equal(states[2], torch.get_rng_state())
    assert list(pyro.get_param_store().keys()) == ["mine"]


@pytest.mark.parametrize("guide_class", [AutoMeanField, autoguide.AutoNormal])
def test_second_guide_of_a_class_leaves_the_first_one_alone(guide_class):
    first = fit(guide_class, seed=0)
    before = [next(iter(draw_weights(first, num_samples=1))), first.guide.median()]
    second = fit(guide_class, seed=1)
    assert same(before[0], next(iter(draw_weights(first, num_samples=1))))
    assert same(before[1], first.guide.median())
    assert not same(before[1], second.guide.median())


@pytest.mark.parametrize("guide_class", [AutoMeanField, AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace])
def test_no_epochs_keep_the_networks_own_weights(guide_class):
    model = network()
    own = {name: value.clone() for name, value in model.net.named_buffers()}
    fitted = fit(guide_class, model=model, epochs=0)
    assert same(fitted.point_estimate, own)
    assert fitted.losses.shape == (0,)
    assert fitted.convergence.converged is None


def test_no_epochs_keep_the_running_statistics_of_a_trained_network():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    net[1].running_mean.fill_(0.7)
    model = BayesianNetwork(net)  # in training mode, as a module is when made
    with pytest.warns(UserWarning, match="their exact diagonal: BatchNorm1d 1"):
        fit(AutoKFACLaplace, model=model, epochs=0)
    assert torch.equal(model.net[1].running_mean, torch.full((5,), 0.7))


def test_convergence_is_judged_without_the_constant_of_the_prior():
    model = network(prior=Normal(1e-3))  # log sd: −6.9 for each of 43 weights
    fitted = fit(AutoKFACLaplace, model=model, epochs=10, schedule="constant")
    constant = 43 * (0.5 * math.log(2 * math.pi) + math.log(1e-3))
    last, before = fitted.losses[-1] - constant, fitted.losses[-2] - constant
    assert fitted.convergence.change == pytest.approx(abs(last - before) / abs(last))


def normalised() -> BayesianNetwork:
    """A network with running statistics, and a layer without a prior."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    return BayesianNetwork(net, {"3.*": Normal(), "*": None})


@pytest.mark.parametrize("guide_class", [AutoMeanField, AutoKFACLaplace, autoguide.AutoNormal])
def test_fit_predicts_the_same_after_another_fit_of_the_same_model(guide_class):
    model = normalised()
    first = fit(guide_class, model=model, epochs=3, learning_rate=0.05)
    before = predict(first, X).mean
    fit(guide_class, (5 * X + 3, Y), model=model, epochs=3, learning_rate=0.05, seed=1)
    left = {name: value.clone() for name, value in model.net.state_dict().items()}
    assert not torch.equal(model.net[1].running_mean, first.unsampled["1.running_mean"])
    np.testing.assert_array_equal(predict(first, X).mean, before)
    assert same(left, dict(model.net.state_dict()))
    assert "0.weight" in first.unsampled
    assert "3.weight" not in first.unsampled


def test_start_at_a_fit_takes_what_has_no_prior_along():
    model = normalised()
    first = fit(AutoKFACLaplace, model=model, epochs=3, learning_rate=0.05)
    fit(AutoMeanField, (5 * X + 3, Y), model=model, epochs=3, learning_rate=0.05)
    again = fit(AutoKFACLaplace, model=model, epochs=0, start=first)
    assert same(again.unsampled, first.unsampled)
    torch.testing.assert_close(again.guide.get_posterior().variance, first.guide.get_posterior().variance)


def test_sampled_fisher_follows_the_seed():
    variances = []
    for seed in (0, 0, 1):
        model = network()
        fitted = wiu.fit(model, AutoKFACLaplace(model, curvature="fisher_mc"), (X, Y), epochs=0, seed=seed)
        variances.append(fitted.guide.get_posterior().variance)
    assert torch.equal(variances[0], variances[1])
    assert not torch.allclose(variances[0], variances[2])


def test_laplace_guides_share_one_point_estimate():
    model = network()
    first = fit(AutoKFACLaplace, model=model, epochs=3)
    second = fit(AutoDiagonalLaplace, model=model, epochs=0, start=first)
    assert same(first.point_estimate, second.point_estimate)
    assert same(first.point_estimate, fit(AutoMeanField, model=model, epochs=0, start=first).point_estimate)


def test_pyros_laplace_starts_at_given_weights_constrained_sites_included():
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", noise_scale=dist.LogNormal(0.0, 0.5))
    data = (X, X.sum(1, keepdim=True))
    start = {"weight": torch.ones(1, 4), "bias": torch.zeros(1), "noise_scale": torch.tensor(0.3)}
    fitted = wiu.fit(model, autoguide.AutoLaplaceApproximation(model), data, epochs=0, start=start)
    for name, value in start.items():
        torch.testing.assert_close(fitted.point_estimate[name], value)


def test_pyros_laplace_of_a_linear_gaussian_network_is_its_posterior():
    problem = linear_gaussian()
    guide = autoguide.AutoLaplaceApproximation(problem.model, init_loc_fn=init_to_network(problem.model))
    fitted = wiu.fit(problem.model, guide, problem.data, epochs=0, start=problem.mean)
    posterior = fitted.guide.get_posterior()
    torch.testing.assert_close(posterior.covariance_matrix, problem.covariance, rtol=1e-5, atol=1e-8)


def test_pyros_laplace_at_a_saddle_is_refused_with_the_way_out():
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    model = BayesianNetwork(net, Normal(10.0), likelihood="normal", noise_scale=0.1)
    guide = autoguide.AutoLaplaceApproximation(model, init_loc_fn=init_to_network(model))
    with pytest.raises(CurvatureError, match="Cholesky decomposition failed. Train further, or use AutoFullLaplace"):
        wiu.fit(model, guide, (torch.eye(2), torch.ones(2, 1)), epochs=0)


@pytest.mark.parametrize("guide_class", [autoguide.AutoLaplaceApproximation, AutoFullLaplace])
def test_cost_is_said_before_training(guide_class):
    model = BayesianNetwork(nn.Linear(10_000, 30))
    data = DataLoader(TensorDataset(torch.ones(4, 10_000), torch.zeros(4)))
    with pytest.raises(CostError, match=r"300,030 weights needs .* GiB"):
        wiu.fit(model, guide_class(model), data, epochs=10**6)


def test_validation_scores_are_those_of_the_guides_centre():
    held_out = (X[:7] + 0.1, Y[:7])
    model = network()
    fitted = fit(model=model, validation=held_out, epochs=3)
    assert fitted.validation["accuracy"].shape == fitted.validation["nll"].shape == (3,)
    with torch.no_grad():
        logits = torch.func.functional_call(model.net, fitted.point_estimate, (held_out[0],))
    assert fitted.validation["accuracy"][-1] == pytest.approx((logits.argmax(1) == held_out[1]).float().mean().item())
    assert fitted.validation["nll"][-1] == pytest.approx(nn.functional.cross_entropy(logits, held_out[1]).item())


def test_loss_is_minus_elbo_of_the_whole_data():
    problem = linear_gaussian()
    fitted = wiu.fit(
        problem.model, AutoFullLaplace(problem.model), problem.data, epochs=1, start=problem.mean, batch_size=30
    )
    x, y = problem.data
    weight, bias = problem.mean["weight"], problem.mean["bias"]
    zero = torch.zeros((), dtype=torch.float64)
    joint = torch.distributions.Normal(x @ weight.mT + bias, 0.5).log_prob(y).sum()
    joint = joint + torch.distributions.Normal(zero, zero + 0.7).log_prob(weight).sum()
    joint = joint + torch.distributions.Normal(zero, zero + 1.5).log_prob(bias).sum()
    assert fitted.losses[0] == pytest.approx(-joint.item(), rel=1e-9)


@pytest.mark.training
def test_mean_field_of_a_linear_gaussian_network_finds_mean_and_conditional_sds():
    """With all data in each step the optimum is known: the mean, and 1/√precision (Bishop 2006, section 10.1.2)."""
    problem = linear_gaussian(num_data=40, in_features=2, out_features=1)
    guide = AutoMeanField(problem.model)
    wiu.fit(problem.model, guide, problem.data, epochs=3000, batch_size=40, learning_rate=0.02)
    mean = torch.cat([problem.mean[name].reshape(-1) for name in ("weight", "bias")])
    conditional = torch.linalg.inv(problem.covariance).diagonal().rsqrt()
    assert ((guide.loc - mean).abs() < 0.1 * conditional).all()
    torch.testing.assert_close(guide.log_scale.exp(), conditional, rtol=0.05, atol=0)


def test_constant_schedule_differs_from_the_default_after_the_full_rate_part():
    one, other = fit(epochs=10), fit(epochs=10, schedule="constant")
    assert np.array_equal(one.losses[:7], other.losses[:7])
    assert not np.array_equal(one.losses[8:], other.losses[8:])


def test_gradients_are_scaled_down_to_max_norm():
    """Adam divides a gradient far below its 1e-8 by 1e-8: the weights can hardly move."""
    model = network()
    own = {name: value.clone() for name, value in model.net.named_buffers()}
    fitted = fit(AutoKFACLaplace, model=model, max_norm=1e-13, learning_rate=1e-2)
    for name, value in fitted.point_estimate.items():
        torch.testing.assert_close(value, own[name], rtol=0, atol=1e-5)


def test_temperature_is_set_on_the_guide_and_recorded():
    fitted = fit(AutoKFACLaplace, temperature=0.5)
    assert fitted.guide.temperature == 0.5
    assert fitted.settings["temperature"] == 0.5
    assert fitted.guide.curvature.scale == pytest.approx(1 / 0.5)


def test_parameters_without_a_prior_are_trained_beside_the_guide():
    model = network(prior={"2.*": Normal()})
    before = model.net[0].weight.clone()
    fit(model=model)
    assert not torch.equal(model.net[0].weight, before)


def test_number_of_data_is_taken_from_the_data_where_the_model_has_none():
    fitted = fit()
    assert (fitted.model.num_data, fitted.structure.num_data) == (12, 12.0)


def test_other_number_of_data_than_the_models_is_said():
    with pytest.warns(UserWarning, match="plate stands for 100 data, but there are 12.*num_data=12"):
        fit(model=network(num_data=100))


def test_plate_of_a_pyro_model_that_stands_for_a_batch_is_said_with_the_one_to_write():
    def model(x, y=None):
        weight = pyro.sample("weight", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("obs", dist.Normal(x @ weight, 1.0), obs=y)

    with pytest.warns(UserWarning, match=r"stands for 5 data, but there are 12.*size=12, subsample=x\)"):
        fit(autoguide.AutoNormal, (X, X[:, 0]), model=model)


def test_settings_are_plain_values():
    import json

    settings = json.loads(json.dumps(fit(AutoKFACLaplace).settings))
    assert settings["epochs"] == 2
    assert settings["guide"] == "AutoKFACLaplace"


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(X, Y))


def with_value(value: float, index: int) -> torch.Tensor:
    x = X.clone()
    x[index, 2] = value
    return x


def later(label: int) -> DataLoader:
    y = Y.clone()
    y[-1] = label
    return DataLoader(TensorDataset(X, y), batch_size=5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((with_value(math.nan, 7), Y), "Inputs must be finite, but 1 of 12 hold NaN or infinity, the first at index 7"),
        ((with_value(math.inf, 3), Y), "the first at index 3"),
        ((X, Y + 1), r"Labels must lie in 0 … 2.*range from 1 to 3. Give the network 4 outputs"),
        ((X, Y - 1), r"Labels must lie in 0 … 2.*range from -1 to 1"),
        ((X, Y + 0.5), "Class labels must be whole numbers, but the labels have dtype torch.float32.*such as 0.5"),
        ((X, Y[:, None]), r"Labels of shape \(5,\) are needed .* \(5, 1\)"),
        (later(7), "range from 1 to 7. Give the network 8 outputs"),
        (later(-1), "range from -1 to 1"),
        ((X[:0], Y[:0]), "At least one datum is needed"),
        ((X, Y[:5]), "must be as many"),
        (
            DataLoader(Stream(), batch_size=4),
            r"this DataLoader does not say it. Pass it: BayesianNetwork\(net, num_data",
        ),
        ("digits", "must be a DataLoader, a Dataset or tensors"),
    ],
)
def test_data_it_cannot_use_are_refused(data, message):
    with pytest.raises(DataError, match=message):
        fit(data=data)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_targets_that_are_not_finite_are_refused(value):
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", noise_scale=1.0)
    y = torch.zeros(12)
    y[8] = value
    with pytest.raises(DataError, match="first at index 8"):
        fit(model=model, data=(X, y))


def test_validation_labels_out_of_range_are_refused():
    with pytest.raises(DataError, match="range from 1 to 3"):
        fit(validation=(X, Y + 1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": -1}, GuideError, "epochs must be 0 or more, but is -1"),
        ({"batch_size": 0}, DataError, "batch_size must be at least 1, but is 0"),
        ({"curvature_batch_size": -2}, DataError, "curvature_batch_size must be at least 1, but is -2"),
        ({"learning_rate": 0.0}, GuideError, "learning_rate must be a positive number, but is 0.0"),
        ({"learning_rate": math.nan}, GuideError, "learning_rate must be a positive number, but is nan"),
        ({"max_norm": -1.0}, GuideError, "max_norm must be a positive number"),
        ({"temperature": 0.0}, GuideError, "temperature must be a positive number"),
        ({"learning_rte": 0.1}, GuideError, "no option 'learning_rte'. Did you mean 'learning_rate'"),
        ({"lr": 0.1}, GuideError, "no option 'lr'. Did you mean 'learning_rate'"),
        ({"num_steps": 9}, GuideError, "no option 'num_steps'. Did you mean 'epochs'"),
        ({"epochs": 2.5}, GuideError, "epochs must be a whole number, but is 2.5"),
        ({"batch_size": "all"}, GuideError, "batch_size must be a whole number, but is 'all'"),
        ({"learning_rate": "1e-3"}, GuideError, "learning_rate must be a number, but is '1e-3'"),
        (
            {"start": nn.Linear(4, 5)},
            GuideError,
            "start must be an earlier Fit, or a tensor for each site, but is a Lin",
        ),
        ({"validation": X}, DataError, "Held-out data need labels, but there are inputs alone"),
        ({"schedule": "tial"}, GuideError, "Unknown schedule 'tial'. Did you mean 'tail'"),
        ({"device": "cuad"}, DeviceError, "Unknown device 'cuad'. Did you mean 'cuda'"),
        ({"start": {"0.weight": torch.zeros(5, 4)}}, GuideError, "'0.bias' is missing"),
    ],
)
def test_option_that_makes_no_sense_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        fit(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there_is_refused():
    with pytest.raises(DeviceError, match="'cuda' was asked for, but torch sees no GPU. Use device='cpu' or 'auto'"):
        fit(device="cuda")


def test_what_is_no_guide_is_refused():
    with pytest.raises(GuideError, match=r"A Pyro AutoGuide is needed, but this is a function"):
        wiu.fit(network(), lambda x, y: None, (X, Y))


def test_guide_that_was_not_made_yet_is_refused_by_its_name():
    with pytest.raises(GuideError, match=r"but this is the class AutoKFACLaplace.* AutoKFACLaplace\(model\)"):
        wiu.fit(network(), AutoKFACLaplace, (X, Y))


def test_rounds_of_a_curvature_that_is_not_there_are_refused():
    with pytest.raises(
        GuideError, match="curvature_rounds averages the curvature of a Laplace guide, but this is an Au"
    ):
        fit(AutoMeanField, curvature_rounds=3)


def test_fit_says_in_a_line_what_it_is():
    found = fit(AutoMeanField, epochs=2, seed=3)
    assert repr(found).startswith(
        f"<Fit of AutoMeanField over 0, 2: 2 epochs, seed 3, last loss {found.losses[-1]:.6g}"
    )
    assert found.convergence.detail in repr(found)
    assert repr(fit(AutoKFACLaplace)).startswith("<Fit of AutoKFACLaplace over 0, 2: ")


@pytest.mark.parametrize("guide_class", [AutoMeanField, AutoKFACLaplace, autoguide.AutoNormal])
def test_guide_made_for_another_model_is_refused(guide_class):
    with pytest.raises(
        GuideError, match=r"was made for another BayesianNetwork. Make it from this one: Auto\w+\(model"
    ):
        wiu.fit(network(), guide_class(network()), (X, Y), epochs=1)


def test_temperature_of_pyros_own_guide_is_refused():
    with pytest.raises(GuideError, match="Pyro's own have none"):
        fit(autoguide.AutoNormal, temperature=0.5)


def test_start_of_a_guide_that_starts_by_itself_is_refused():
    with pytest.raises(GuideError, match="AutoNormal starts where its init_loc_fn says"):
        fit(autoguide.AutoNormal, start={})


def test_network_that_does_not_take_the_inputs_is_refused():
    with pytest.raises(ModelError, match=r"could not be run on a batch of shapes \(5, 7\), \(5,\): .*input size"):
        fit(data=(torch.ones(12, 7), Y))


def test_regression_whose_inputs_do_not_fit_is_not_told_of_class_labels():
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", noise_scale=1.0)
    with pytest.raises(ModelError, match="could not be run on a batch of shapes"):
        fit(model=model, data=(torch.ones(12, 7), Y + 0.5))


def test_network_whose_output_is_not_one_row_per_datum_is_refused():
    model = BayesianNetwork(nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3)))
    with pytest.raises((ModelError, DataError), match=r"could not be run|End the network in one row per datum"):
        fit(model=model)


def huge(index: int) -> DataLoader:
    """Inputs that are finite, but one of them too large for the network."""
    x = X.clone()
    x[index] = 3e38
    return DataLoader(TensorDataset(x, Y), batch_size=5)


def test_loss_that_is_not_finite_names_step_and_site():
    with pytest.raises(FitError, match=r"at step 2 it is (nan|inf) \(site 'obs'\).*learning rate \(now 0.001\)"):
        fit(data=huge(11))


def test_output_that_is_not_finite_from_the_start_is_refused():
    with pytest.raises(ModelError, match="output must be finite, but is not on the first batch"):
        fit(data=huge(0))


def test_weight_that_is_not_finite_is_the_site_named():
    start = {name: value.clone() for name, value in network().net.named_buffers()}
    start["2.bias"][0] = math.nan
    with pytest.raises(FitError, match=r"at step 0 it is nan \(site '2.bias'\)"):
        fit(start=start)


def test_nothing_is_left_of_a_fit_that_broke():
    model, state = network(), torch.get_rng_state()
    with pytest.raises(FitError, match="at step 2"):
        fit(model=model, data=huge(11))
    assert torch.equal(state, torch.get_rng_state())
    assert not list(pyro.get_param_store().keys())


def test_contract_model_fits_with_validation_on_a_dataset():
    model, (x, y) = small_classifier()
    fitted = fit(model=model, data=TensorDataset(x, y), validation=DataLoader(TensorDataset(x, y), batch_size=7))
    assert np.isfinite(fitted.validation["nll"]).all()


def test_mean_field_that_cannot_have_left_its_first_scale_has_not_converged():
    """20 steps at 0.001 leave every sd at a tenth of the prior's, and −ELBO, nearly all of it KL, nearly flat."""
    assert "too few steps" in fit(AutoMeanField, epochs=20, batch_size=12).convergence.detail
    long = fit(AutoMeanField, epochs=20, batch_size=12, learning_rate=0.2)  # 17 × 0.2 > ln 10
    assert "too few steps" not in long.convergence.detail


def test_guide_fitted_further_is_not_judged_by_where_it_once_started():
    model = network()
    guide = AutoMeanField(model)
    for _ in range(2):
        found = wiu.fit(model, guide, (X, Y), epochs=20, batch_size=12)
    assert "too few steps" not in found.convergence.detail


@pytest.mark.parametrize("guide_class", [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace])
def test_prior_that_no_curvature_covers_is_refused_before_training(guide_class, monkeypatch):
    monkeypatch.setattr(Training, "go", lambda *_: pytest.fail("trained"))
    with pytest.raises(PriorError, match="site '0.weight' has a Laplace"):
        fit(guide_class, model=network(prior=Laplace(1.0)))
