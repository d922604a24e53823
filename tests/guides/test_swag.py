"""SWAG: moments of a recorded trajectory by a plain loop, the density by the dense matrix, resuming bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import nn

import wiu_pyro as wiu
from wiu_pyro import schema
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoSWAG, closed_form
from wiu_pyro.infer import predict
from wiu_pyro.nn import BayesianNetwork
from wiu_pyro.testing import small_classifier

OPTIONS = {"epochs": 10, "batch_size": 4}  # 60 steps


class Recorded(AutoSWAG):
    """Writes down where it was after each step."""

    def after_step(self, step, total):
        super().after_step(step, total)
        self.__dict__.setdefault("way", []).append(self.loc.detach().clone())


def trained(**options):
    model, data = small_classifier()
    guide = Recorded(model, **options)
    return wiu.fit(model, guide, data, **OPTIONS), guide, data


def snapshots(guide, *, start, every):
    return [guide.way[step] for step in range(start, len(guide.way)) if (step + 1 - start) % every == 0]


@pytest.mark.parametrize(
    ("options", "start", "every", "count"),
    [
        ({}, 30, 1, 30),
        ({"snapshots": 7, "rank": 3}, 30, 4, 7),
        ({"trajectory": 0.2, "snapshots": 6}, 48, 2, 6),
        ({"trajectory": 1.0, "snapshots": 2, "rank": 2}, 0, 30, 2),
    ],
)
def test_moments_are_those_of_the_recorded_trajectory(options, start, every, count):
    _, guide, _ = trained(**options)
    taken = torch.stack(snapshots(guide, start=start, every=every)).double().numpy()
    assert len(taken) == count == int(guide.count)
    np.testing.assert_allclose(guide.mean.numpy(), taken.mean(0), rtol=1e-5, atol=1e-7)
    columns = [taken[i] - taken[: i + 1].mean(0) for i in range(count)][-guide.rank :]
    low = np.array(columns).T
    expected = 0.5 * np.diag(taken.var(0)) + low @ low.T / (2 * (len(columns) - 1))
    factor, diagonal = (part.double().numpy() for part in guide.covariance_parts())
    np.testing.assert_allclose(factor @ factor.T + np.diag(diagonal), expected, rtol=2e-3, atol=1e-9)


def test_marginal_moments_and_density_are_those_of_the_dense_gaussian():
    fit, guide, _ = trained(rank=5)
    factor, diagonal = (part.double() for part in guide.covariance_parts())
    dense = torch.distributions.MultivariateNormal(guide.mean.double(), factor @ factor.mT + diagonal.diag())
    draws = [next(iter(wiu.infer.draw_weights(fit, num_samples=1, seed=seed))) for seed in range(3)]
    for draw in draws:
        expected = dense.log_prob(guide.pack(draw).double()).item()
        assert float(guide.log_prob(draw)) == pytest.approx(expected, rel=1e-5)
    closed = closed_form(guide, fit.structure)
    sd = guide.pack({**closed.sd}).double()
    torch.testing.assert_close(sd, dense.variance.sqrt(), rtol=1e-4, atol=1e-9)
    conditional = dense.precision_matrix.diagonal().rsqrt()
    torch.testing.assert_close(guide.pack({**closed.sd_conditional}).double(), conditional, rtol=1e-3, atol=1e-9)
    assert set(closed.layer_structure.values()) == {"low-rank"}


def test_median_and_quantiles_are_those_of_the_marginal_gaussians():
    fit, guide, _ = trained(rank=5)
    closed = closed_form(guide, fit.structure)
    lower, upper = ({name: value[i] for name, value in guide.quantiles([0.1, 0.9]).items()} for i in range(2))
    torch.testing.assert_close(guide.pack(guide.median()), guide.mean)
    width = 2 * torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.9))
    for name, sd in closed.sd.items():
        torch.testing.assert_close(upper[name] - lower[name], width * sd.to(lower[name]), rtol=1e-4, atol=1e-6)


def test_draws_have_the_covariance_half_diagonal_half_low_rank():
    _, guide, _ = trained(rank=4)
    factor, diagonal = (part.double() for part in guide.covariance_parts())
    covariance = factor @ factor.mT + diagonal.diag()
    torch.manual_seed(0)
    number = 20_000
    draws = guide.get_posterior().rsample((number,)).double() - guide.mean.double()
    found = draws.mT @ draws / number
    error = ((covariance.square() + covariance.diagonal()[:, None] * covariance.diagonal()) / number).sqrt()
    assert ((found - covariance).abs() < 6 * error + 1e-12).all()


def test_a_weight_that_never_moves_is_held_and_does_not_count():
    model, data = small_classifier()
    guide = AutoSWAG(model)
    fit = wiu.fit(model, guide, data, **OPTIONS)
    guide.squares[:3] = 0
    guide.deviations[:, :3] = 0
    guide.mean.mul_(1)  # what is remembered of the Gaussian goes by the mean's version
    closed = closed_form(guide, fit.structure)
    assert int((closed.sd["0.weight"] == 0).sum()) == 3
    draws = [draw["0.weight"].reshape(-1)[:3] for draw in wiu.infer.draw_weights(fit, num_samples=5)]
    assert all(torch.equal(draw, guide.mean[:3]) for draw in draws)
    assert all(math.isfinite(value) for value in closed.layer_kl.values())


def test_training_goes_to_a_point_estimate_at_adams_rate_and_on_at_a_constant_one():
    _, guide, _ = trained()
    way = torch.stack(guide.way)
    step = (way[1:] - way[:-1]).abs().max(1).values
    assert (step[:20] > 5e-4).all()  # Adam at 1e-3
    assert step[28] < 1e-4  # its rate has fallen to nothing
    model, data = small_classifier()
    optimiser = _first_step_of_sgd(AutoSWAG(model, trajectory=1.0, momentum=0.0, trajectory_rate=0.5), data)
    torch.testing.assert_close(*optimiser)


def _first_step_of_sgd(guide, data):
    """Return the first step of the trajectory, and the gradient of the mean loss times the rate."""
    guide.setup(data)
    optimiser = guide.make_optimiser([guide.loc], 1e-3)
    optimiser.reach(0, 0)
    before = guide.loc.detach().clone()
    guide.negative_elbo(*data).backward()
    optimiser.step()
    return before - guide.loc.detach(), 0.5 * guide.loc.grad / len(data[0])


def test_adam_goes_on_at_the_trajectorys_rate():
    _, guide, _ = trained(optimiser="adam", trajectory_rate=0.01, trajectory=1.0)
    way = torch.stack(guide.way)
    assert (way[1:] - way[:-1]).abs().max() == pytest.approx(0.01, rel=0.5)


def test_resumed_state_gives_the_same_bits():
    model, data = small_classifier()
    one, other = AutoSWAG(model, rank=3), AutoSWAG(model, rank=3)
    for guide in (one, other):
        guide.setup(data)
    states = []
    for guide, stop in ((one, 12), (other, 20)):
        optimiser = guide.make_optimiser([guide.loc], 0.01)
        if states:
            optimiser.load_state_dict(states[0][0])
            guide.load_state_dict(states[0][1])
        for step in range(len(states) * 12, stop):
            _step(guide, optimiser, data, step)
        states.append((_copied(optimiser.state_dict()), _copied(guide.state_dict())))
    whole = AutoSWAG(model, rank=3)
    whole.setup(data)
    optimiser = whole.make_optimiser([whole.loc], 0.01)
    for step in range(20):
        _step(whole, optimiser, data, step)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    factors = [guide.covariance_parts()[0] for guide in (whole, other)]
    assert torch.equal(*factors)


def _step(guide, optimiser, data, step):
    optimiser.zero_grad()
    guide.negative_elbo(*data).backward()
    optimiser.step()
    guide.after_step(step, 20)


def _copied(state):
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {name: _copied(value) for name, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state


def test_running_statistics_are_those_at_the_mean_by_a_plain_pass():
    torch.manual_seed(0)
    data = (torch.randn(40, 4) * 3 + 2, torch.arange(40) % 3)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    model = BayesianNetwork(net)
    fit = wiu.fit(model, AutoSWAG(model), data, epochs=10)  # one batch: its statistics are the data's
    hidden = data[0] @ fit.point_estimate["0.weight"].T + fit.point_estimate["0.bias"]
    torch.testing.assert_close(fit.unsampled["1.running_mean"], hidden.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fit.unsampled["1.running_var"], hidden.var(0), rtol=1e-4, atol=1e-5)
    assert model.net[1].momentum == 0.1


def test_file_says_whose_sds_these_are():
    fit, guide, data = trained()
    attrs = schema.attrs(wiu.to_inference_data(fit, data, num_samples=4))
    assert attrs["sd_of"] == "the trajectory of a constant learning rate, not Bayes' rule"
    assert attrs["sd_learned"] == 0  # so that it takes no part in ranking the layers
    assert attrs["approximation"] == "swag"
    assert (attrs["snapshots"], attrs["rank"], attrs["trajectory_rate"]) == (30, 20, guide.trajectory_rate)
    assert attrs["structure"] == "low-rank"


def test_point_estimate_is_the_trajectorys_mean():
    fit, guide, data = trained()
    centre = torch.cat([fit.point_estimate[name].reshape(-1) for name, *_ in guide.sites()])
    assert torch.equal(centre, guide.mean)
    assert predict(fit, data, num_samples=5).point_mean.shape == (24, 3)


def test_svi_is_refused():
    model, data = small_classifier()
    with pytest.raises(GuideError, match="AutoSWAG has a training of its own"):
        SVI(model, AutoSWAG(model), Adam({"lr": 0.01}), Trace_ELBO()).step(*data)


def test_no_trajectory_no_gaussian():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoSWAG(model), data, epochs=0)
    with pytest.raises(GuideError, match=r"needs 2 snapshots of a training, but has 0\. Train it with"):
        wiu.to_inference_data(fit, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 1}, "rank must be at least 2, but is 1"),
        ({"snapshots": 1}, "snapshots must be at least 2, but is 1"),
        ({"trajectory": 0.0}, r"trajectory must be a share of the steps, above 0 and at most 1, but is 0\.0"),
        ({"optimiser": "sdg"}, "Unknown optimiser 'sdg'.*sgd"),
        ({"trajectory_rate": -1.0}, r"trajectory_rate must be a positive number, but is -1\.0"),
        ({"momentum": 1.0}, r"momentum must be from 0 to below 1, but is 1\.0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    model, _ = small_classifier()
    with pytest.raises(GuideError, match=message):
        AutoSWAG(model, **options)
