"""What is said of uncertainty survives a change of the weights' units: ReLU rescaling together with the prior."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.errors import ModelError, PriorError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoMeanField, closed_form
from wiu_pyro.nn import BayesianNetwork, FanInNormal, Laplace, run_at
from wiu_pyro.testing import rescale_relu

X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3
CONV = torch.randn(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def mlp() -> BayesianNetwork:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
    return BayesianNetwork(net, num_data=20)


def conv() -> BayesianNetwork:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten())
    net.append(nn.Linear(3, 3))
    return BayesianNetwork(net, num_data=20)


CASES = {"mlp": (mlp, ("0", "2"), X), "conv": (conv, ("0", "3"), CONV)}


def metrics(guide_class, model, data) -> dict[str, torch.Tensor]:
    """What the layer table shows, from exact moments."""
    fit = wiu.fit(model, guide_class(model), data, epochs=0)
    closed = closed_form(fit.guide, fit.structure)
    found = {"kl_total": torch.tensor(closed.kl_total)}
    found |= {f"kl {name}": torch.tensor(value) for name, value in closed.layer_kl.items()}
    for site, sd in closed.sd.items():
        ratio = sd / fit.structure.priors[site].stddev
        found[f"contraction {site}"] = 1 - ratio.square()
        found[f"effective parameters {site}"] = (1 - ratio.square()).sum()
        found[f"snr {site}"] = closed.mean[site].abs() / sd
        conditional = closed.sd_conditional[site] / fit.structure.priors[site].stddev
        found[f"conditional contraction {site}"] = 1 - conditional.square()
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("guide_class", [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace, AutoMeanField])
@pytest.mark.parametrize("factor", [0.1, 20.0])
def test_rescaling_with_the_prior_leaves_what_is_comparable_unchanged(guide_class, factor, case):
    make, layers, x = CASES[case]
    model = make()
    rescaled = rescale_relu(model, *layers, factor=factor)
    before, after = metrics(guide_class, model, (x, Y)), metrics(guide_class, rescaled, (x, Y))
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(
            after[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_raw_sd_does_move_under_rescaling():
    model = mlp()
    found = []
    for one in (model, rescale_relu(model, "0", "2", factor=10.0)):
        fit = wiu.fit(one, AutoKFACLaplace(one), (X, Y), epochs=0)
        found.append(closed_form(fit.guide, fit.structure).sd)
    torch.testing.assert_close(found[1]["0.weight"], 10 * found[0]["0.weight"], rtol=1e-3, atol=0)
    torch.testing.assert_close(found[1]["2.weight"], 0.1 * found[0]["2.weight"], rtol=1e-3, atol=0)


def test_rescaled_network_computes_the_same_function():
    model = mlp()
    rescaled = rescale_relu(model, "0", "2", factor=7.0)
    outputs = [run_at(one, dict(one.net.named_buffers()), (X,))[1] for one in (model, rescaled)]
    torch.testing.assert_close(outputs[0], outputs[1])
    assert list(rescaled.site_priors) == list(model.site_priors)
    torch.testing.assert_close(
        rescaled.prior_distributions()["2.weight"].stddev, model.prior_distributions()["2.weight"].stddev / 7
    )


@pytest.mark.parametrize(
    ("prior", "first", "factor", "error", "message"),
    [
        (FanInNormal(), "0", -1.0, ModelError, "A ReLU passes positive factors through, but factor is -1"),
        (FanInNormal(), "fc9", 2.0, ModelError, "The network has no weight 'fc9.weight'"),
        (Laplace(), "0", 2.0, PriorError, "Rescaling needs Normal priors, but '0.weight' has a Laplace"),
    ],
)
def test_rescaling_that_would_change_the_function_or_the_prior_is_refused(prior, first, factor, error, message):
    model = BayesianNetwork(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), prior)
    with pytest.raises(error, match=message):
        rescale_relu(model, first, "2", factor=factor)
