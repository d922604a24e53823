"""Warm-ups, rates, averaging, early stopping: what each does to a training, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyro.infer import autoguide
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.errors import DeviceError, GuideError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoMeanField, AutoPointEstimate
from wiu_pyro.infer.averaged_parameters import AveragedParameters
from wiu_pyro.infer.drawn_statistics import follow_draws
from wiu_pyro.infer.early_stopping import EarlyStopping
from wiu_pyro.infer.means import autocast, give_own_rate
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.infer.training import Training
from wiu_pyro.nn import BayesianNetwork

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def fit(guide_class=AutoMeanField, **options):
    torch.manual_seed(0)
    model = BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    return wiu.fit(model, guide_class(model), (X, Y), **{"epochs": 4, "batch_size": 20, **options})


def seen(monkeypatch, **options) -> list[tuple[float, list[float]]]:
    """Return the KL's weight and the learning rates of each step."""
    found, loss = [], Training._step

    def noted(self, batch):
        value = loss(self, batch)
        rates = [group["lr"] for group in self.optimiser.param_groups]
        found.append((self.schedule.kl_weight(self.step), rates))
        return value

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_step", noted)
        fit(**options)
    return found


@pytest.mark.filterwarnings("ignore:At least half of the epochs:UserWarning")
def test_kl_and_learning_rate_rise_linearly_over_their_warm_ups(monkeypatch):
    found = seen(monkeypatch, kl_warmup=3, rate_warmup=2, learning_rate=0.1, schedule="constant")
    assert [weight for weight, _ in found] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1])
    assert [rates[0] for _, rates in found] == pytest.approx([0.025, 0.05, 0.075, *[0.1] * 5])


def test_loss_in_a_kl_warm_up_has_a_part_of_the_kl():
    """Without moving: of two steps the first has half of the KL and the second all, three quarters in the mean."""
    options = {"epochs": 2, "learning_rate": 1e-9, "schedule": "constant"}
    warmed, whole = (fit(kl_warmup=epochs, **options) for epochs in (1, 0))
    kl = whole.guide.kl_divergence().item()
    assert whole.losses[0] - warmed.losses[0] == pytest.approx(kl / 4, rel=1e-4)
    assert whole.losses[1] == pytest.approx(warmed.losses[1], rel=1e-6)


def test_short_training_with_all_of_the_kl_is_warned_of_and_said():
    with pytest.warns(UserWarning, match="At least half of the epochs should have all of the KL's weight"):
        found = fit(epochs=16, kl_warmup=12)
    assert "Only 4 epochs had all of the KL's weight." in found.convergence.detail
    assert found.convergence.converged is None


def test_convergence_is_judged_by_the_epochs_after_the_warm_ups():
    found = fit(epochs=30, kl_warmup=15, schedule="constant")
    last, before = found.losses[-1], found.losses[-2]
    assert found.convergence.change == pytest.approx(abs(last - before) / abs(last))  # a tenth of 15 epochs is one


@pytest.mark.parametrize("name", ["kl_warmup", "rate_warmup"])
def test_warm_up_that_leaves_no_epoch_is_refused(name):
    with pytest.raises(GuideError, match=f"must end before the training does, but {name} is 4 of 4 epochs"):
        fit(**{name: 4})


def test_kl_of_pyros_own_guides_is_not_warmed_up():
    with pytest.raises(GuideError, match="A KL warm-up is for the toolkit's guides"):
        fit(autoguide.AutoNormal, kl_warmup=1)


def test_log_sds_have_a_rate_of_their_own(monkeypatch):
    found = seen(monkeypatch, log_scale_rate=5.0, learning_rate=0.01)
    assert all(rates[1] == pytest.approx(5 * rates[0]) for _, rates in found)


def test_log_sds_move_further_at_a_higher_rate_and_means_as_before():
    """Adam's first step is the learning rate, whatever the gradient's size."""
    torch.manual_seed(0)
    model = BayesianNetwork(nn.Linear(4, 3))
    guide = AutoMeanField(model)
    guide.setup((X, Y))
    before = guide.loc.detach().clone(), guide.log_scale.detach().clone()
    wiu.fit(model, guide, (X, Y), epochs=1, batch_size=40, learning_rate=0.01, log_scale_rate=7.0, schedule="constant")
    assert (guide.loc.detach() - before[0]).abs().max().item() == pytest.approx(0.01, rel=1e-3)
    assert (guide.log_scale.detach() - before[1]).abs().max().item() == pytest.approx(0.07, rel=1e-3)


def test_rate_of_log_sds_counts_in_how_far_they_can_have_moved():
    assert "too few steps" in fit(epochs=12, learning_rate=0.05).convergence.detail
    assert "too few steps" not in fit(epochs=12, learning_rate=0.05, log_scale_rate=4.0).convergence.detail


def test_guide_without_log_sds_has_no_rate_for_them():
    with pytest.raises(GuideError, match="log_scale_rate is for guides that train log sds"):
        fit(AutoDiagonalLaplace, log_scale_rate=2.0)


def test_group_that_is_all_log_sds_is_not_split():
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
    optimiser = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:]}], lr=0.1)
    give_own_rate(optimiser, parameters[1:], 3.0)
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, pytest.approx(0.3)]


def test_average_is_the_mean_of_the_parameters_after_the_last_steps(monkeypatch):
    kept, stepped = [], AveragedParameters.stepped

    def noted(self, step):
        kept.append([parameter.detach().clone() for parameter in self.parameters])
        stepped(self, step)

    monkeypatch.setattr(AveragedParameters, "stepped", noted)
    found = fit(average=0.5, learning_rate=0.05)
    parameters = [parameter.detach() for parameter in found.guide.parameters()]
    for number, parameter in enumerate(parameters):
        expected = torch.stack([one[number] for one in kept[4:]]).mean(0)
        torch.testing.assert_close(parameter, expected)


@pytest.mark.training
def test_average_at_a_constant_rate_ends_nearer_to_the_optimum_than_the_last_step():
    """Where the optimum is known: a linear network with Gaussian noise, in batches whose gradients scatter."""
    problem = wiu.testing.linear_gaussian(num_data=40, in_features=2, out_features=1)
    mean = torch.cat([problem.mean[name].reshape(-1) for name in ("weight", "bias")])
    errors = []
    for average in (0.0, 0.5):
        guide = AutoMeanField(problem.model)
        options = {"epochs": 60, "batch_size": 4, "learning_rate": 0.02, "schedule": "constant"}
        wiu.fit(problem.model, guide, problem.data, average=average, **options)
        errors.append((guide.loc.detach() - mean).norm().item())
    assert errors[1] < 0.5 * errors[0]


def test_running_statistics_are_those_of_the_averaged_weights():
    torch.manual_seed(0)
    model = BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))
    found = wiu.fit(
        model,
        AutoMeanField(model),
        (X, Y),
        epochs=4,
        batch_size=20,
        average=0.5,
        learning_rate=0.1,
        batch_statistics=True,
    )
    weights = found.point_estimate
    expected = (X @ weights["0.weight"].T + weights["0.bias"]).mean(0)
    torch.testing.assert_close(found.unsampled["1.running_mean"], expected)


def normalised_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))


def normalised() -> BayesianNetwork:
    return BayesianNetwork(normalised_net(), wiu.nn.FanInNormal())


def statistics(guide, x) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the mean over draws of what BatchNorm sees, its variance within a draw, and that of means over draws."""
    with torch.no_grad(), seeded(1):
        drawn = [guide() for _ in range(400)]
    before = torch.stack([x @ one["0.weight"].T + one["0.bias"] for one in drawn])  # (draws, data, units)
    return before.mean((0, 1)), before.var(1).mean(0), before.mean(1).var(0)


@pytest.mark.parametrize("start", [None, AutoPointEstimate])
def test_training_of_a_distribution_ends_with_the_running_statistics_of_its_draws(start):
    """Though the rows are sorted by class: batches of one class would vary too little."""
    order = Y.argsort(stable=True)
    x, y = (X + 3.0 * (Y[:, None] == torch.arange(4)))[order], Y[order]
    model = normalised()
    begin = start and wiu.fit(model, start(model), (x, y), epochs=2, batch_size=20)
    assert begin is None or begin.settings["batch_statistics"] is True
    found = wiu.fit(model, AutoMeanField(model), (x, y), epochs=8, batch_size=20, learning_rate=0.1, start=begin)
    assert found.settings["batch_statistics"] is False
    mean, variance, of_means = statistics(found.guide, x)
    assert (found.unsampled["1.running_mean"] - mean).square().mean() < 3 / 50 * of_means.mean()  # 50 draws
    assert 0.85 < (found.unsampled["1.running_var"] / variance).mean() < 1.15


def test_running_statistics_follow_the_draws_of_a_posterior_that_widens():
    model = normalised()
    guide = AutoMeanField(model)
    wiu.fit(model, guide, (X, Y), epochs=1, batch_size=20)
    norm, batch, device = model.net[1], (X, Y), torch.device("cpu")
    with torch.no_grad():
        guide.log_scale += 3.0
    before = norm.running_var.clone()
    for step in (1, 2, 3, 4):
        follow_draws(model, guide, batch, step, device)
    torch.testing.assert_close(norm.running_var, before)
    state = torch.get_rng_state()
    for step in range(5, 2000, 5):
        follow_draws(model, guide, batch, step, device)
    assert torch.equal(torch.get_rng_state(), state)
    _, variance, _ = statistics(guide, X)
    assert 2 * before.mean() < norm.running_var.mean()
    assert 0.8 < norm.running_var.mean() / variance.mean() < 1.25


def begun(net: nn.Module, factor: float):
    """Return weights of which the first layer's are shrunk, and a mean field that has hardly left them."""
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    before |= {name: before[name] * factor for name in ("0.weight", "0.bias")}
    model = BayesianNetwork(net, wiu.nn.FanInNormal())
    guide = AutoMeanField(model, init_scale=1e-6)
    return before, wiu.fit(model, guide, (X, Y), epochs=1, start=before, learning_rate=1e-12)


def test_a_shrunk_layer_before_batch_norm_starts_at_the_scale_of_its_prior():
    before, fit = begun(normalised_net(), 0.2)
    growth = fit.point_estimate["0.weight"] / before["0.weight"]
    torch.testing.assert_close(fit.point_estimate["0.weight"].square().mean(), torch.tensor(2 / 4))
    torch.testing.assert_close(growth, growth[0, 0].expand(40, 4))
    torch.testing.assert_close(fit.point_estimate["0.bias"], before["0.bias"] * growth[0, 0])
    torch.testing.assert_close(fit.point_estimate["3.weight"], before["3.weight"])
    _, whole = begun(normalised_net(), 1.0)
    means = [wiu.infer.predict(one, (X,), num_samples=2).mean for one in (fit, whole)]
    np.testing.assert_allclose(*means, atol=1e-3)  # the same network


class Skip(nn.Sequential):
    """What goes into BatchNorm goes past it too."""

    def forward(self, x):
        first = self[0](x)
        return self[3](self[2](self[1](first) + first))


@pytest.mark.parametrize("net", [nn.Sequential, Skip])
def test_layers_whose_scale_the_network_depends_on_start_where_they_are(net):
    parts = list(normalised_net())
    parts[1] = nn.Identity() if net is nn.Sequential else parts[1]
    before, fit = begun(net(*parts), 0.01)
    torch.testing.assert_close(fit.point_estimate["0.weight"], before["0.weight"])


def test_dead_channel_does_not_blow_up_the_noise_of_its_weights():
    """At the centre its variance is 0, and BatchNorm would multiply the noise by the root of 1 / eps, 316."""
    model = normalised()
    with torch.no_grad():
        model.net[0].weight[:20] = 0.0
        model.net[0].bias[:20] = 0.0
    guide = AutoMeanField(model, init_scale=0.1)
    fit = wiu.fit(model, guide, (X, Y), epochs=1, batch_size=20, learning_rate=1e-9)
    with torch.no_grad():
        noisy = -guide._expected_log_likelihood(guide.loc, guide.log_scale.exp(), (X, Y)).item() / len(X)
    centre = -guide.log_likelihood(fit.point_estimate, (X, Y)).item() / len(X)
    assert noisy < 2 * centre


@pytest.mark.training
def test_networks_drawn_predict_better_where_the_training_took_running_statistics():
    """A network drawn has other statistics than the mean of those drawn in training, which predictions would take."""
    x = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    found = {}
    for option in (None, True):
        torch.manual_seed(0)
        hidden = [nn.Linear(4, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 20), nn.BatchNorm1d(20), nn.ReLU()]
        model = BayesianNetwork(nn.Sequential(*hidden, nn.Linear(20, 3)), wiu.nn.FanInNormal())
        options = {"epochs": 100, "batch_size": 50, "learning_rate": 0.01, "batch_statistics": option}
        fit = wiu.fit(model, AutoMeanField(model), (x, y), **options)
        probabilities = torch.as_tensor(wiu.infer.predict(fit, (x,), num_samples=50).mean)
        found[option] = -probabilities[torch.arange(len(y)), y].log().mean().item()
    assert found[None] < 0.8 * found[True]  # 0.13 against 0.19


def test_early_stopping_keeps_the_epoch_whose_held_out_likelihood_was_best():
    held_out = (X[:20], torch.arange(20) % 3)  # labels that have nothing to do with the inputs
    found = fit(epochs=40, validation=held_out, patience=3, learning_rate=0.1)
    nll = found.validation["nll"]
    best = int(np.argmin(nll)) + 1
    assert len(found.losses) == len(nll) == best + 3 < 40
    assert found.settings["kept_epochs"] == best
    assert f"the weights are those of epoch {best}" in found.convergence.detail


def test_kept_weights_are_those_of_the_best_epoch_in_every_parameter(monkeypatch):
    states, end = [], Training._end_epoch

    def noted(self, bar):
        end(self, bar)
        states.append({name: value.detach().clone() for name, value in self.run.guide.state_dict().items()})

    monkeypatch.setattr(Training, "_end_epoch", noted)
    found = fit(epochs=40, validation=(X[:20], torch.arange(20) % 3), patience=3, learning_rate=0.1)
    kept = states[found.settings["kept_epochs"] - 1]
    assert all(torch.equal(value, kept[name]) for name, value in found.guide.state_dict().items())


def test_epochs_of_the_kl_warm_up_do_not_count_for_early_stopping():
    stopping = EarlyStopping(patience=2, first_epoch=3)
    assert not stopping.is_better(3, {"nll": 0.1})
    assert not stopping.is_over(4)
    assert stopping.is_better(4, {"nll": 0.5})
    assert not stopping.is_better(5, {"nll": 0.6})
    assert stopping.is_over(6)


def test_early_stopping_that_never_stops_says_so():
    found = fit(epochs=12, validation=(X, Y), patience=12)
    assert "After all 12 epochs: the weights are those of epoch 12" in found.convergence.detail


def test_early_stopping_needs_held_out_data():
    with pytest.raises(GuideError, match="Early stopping needs held-out data"):
        fit(patience=2)


def test_two_rules_for_the_last_weights_are_refused():
    with pytest.raises(GuideError, match="One rule must say which weights a fit ends with"):
        fit(patience=2, average=0.5, validation=(X, Y))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"average": 1.5}, "average must be a fraction"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"kl_warmup": -1}, "kl_warmup must be 0 or more"),
        ({"log_scale_rate": 0.0}, "log_scale_rate must be a positive number"),
        ({"precision": "float16"}, "Unknown precision 'float16'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
    ],
)
def test_option_out_of_range_is_refused(option, said):
    with pytest.raises(GuideError, match=said):
        fit(**option)


def test_mixed_precision_is_refused_on_the_cpu():
    with pytest.raises(DeviceError, match="Mixed precision is for a GPU, but precision is 'bfloat16'"):
        fit(precision="bfloat16")


def test_autocast_runs_products_in_the_lower_precision_and_leaves_the_parameters():
    weight = torch.ones(3, 3, requires_grad=True)
    with autocast(torch.device("cpu"), "bfloat16"):
        product = weight @ weight
    assert product.dtype == torch.bfloat16
    assert weight.dtype == torch.float32
    with autocast(torch.device("cpu"), "float32"):
        assert (weight @ weight).dtype == torch.float32


def test_settings_say_the_whole_recipe():
    found = fit(kl_warmup=1, rate_warmup=1, log_scale_rate=2.0, average=0.25, schedule="cosine", max_norm=10.0)
    expected = {"kl_warmup": 1, "rate_warmup": 1, "log_scale_rate": 2.0, "average": 0.25, "schedule": "cosine"}
    assert expected.items() <= found.settings.items()
    assert (found.settings["kept_epochs"], found.settings["num_processes"]) == (4, 1)
