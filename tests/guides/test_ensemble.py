"""Ensembles as guides: draws of the members, all alike, one at a time and vectorised."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError, ModelError
from wiu_pyro.guides import AutoEnsemble, AutoKFACLaplace, AutoMeanField, AutoPointEstimate, by_name
from wiu_pyro.infer import draw_weights
from wiu_pyro.nn import BayesianNetwork
from wiu_pyro.testing import small_classifier


@pytest.fixture(scope="module")
def points():
    model, data = small_classifier()
    return wiu.fit(model, AutoEnsemble(model, size=3), data, epochs=2), data


def which_member(draw, fit):
    found = [
        number
        for number, one in enumerate(fit.members)
        if all(torch.equal(draw[name], value) for name, value in one.point_estimate.items())
    ]
    assert len(found) == 1
    return found[0]


def test_a_draw_is_a_draw_of_one_member_and_all_come_alike(points):
    fit, _ = points
    drawn = [which_member(draw, fit) for draw in draw_weights(fit, num_samples=300)]
    share = torch.bincount(torch.tensor(drawn), minlength=3) / 300
    assert ((share - 1 / 3).abs() < 5 * (2 / 9 / 300) ** 0.5).all()


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_samples_every_member_on_its_own(points, parallel):
    fit, data = points
    sites = list(fit.point_estimate)
    with pyro.get_param_store().scope(), torch.no_grad():
        predictive = Predictive(fit.model, guide=fit.guide, num_samples=60, parallel=parallel, return_sites=sites)
        torch.manual_seed(0)
        found = predictive(data[0])
    drawn = set()
    for row in range(60):
        drawn.add(which_member({name: found[name][row].reshape(fit.point_estimate[name].shape) for name in sites}, fit))
    assert drawn == {0, 1, 2}


def test_svi_is_told_to_leave_it_to_fit():
    model, data = small_classifier()
    with pyro.get_param_store().scope(), pytest.raises(GuideError, match=r"Pyro's SVI cannot train it\. Use wiu_pyro"):
        SVI(model, AutoEnsemble(model), Adam({"lr": 0.01}), Trace_ELBO()).step(*data)


def test_svi_does_not_move_trained_members(points):
    fit, data = points
    with pyro.get_param_store().scope(), pytest.raises(GuideError, match="AutoEnsemble has a training of its own"):
        SVI(fit.model, fit.guide, Adam({"lr": 0.01}), Trace_ELBO()).step(*data)


def test_an_ensemble_says_what_its_members_were_trained_by(points):
    fit, _ = points
    assert fit.guide.objective == fit.members[0].guide.objective == "-log joint density"


def test_an_ensemble_of_one_is_none():
    model, _ = small_classifier()
    with pytest.raises(GuideError, match=r"at least 2 members, but size is 1\."):
        AutoEnsemble(model, size=1)


@pytest.mark.parametrize("member", [lambda model: AutoEnsemble(model), lambda model: model])
def test_what_makes_no_guide_for_one_network_is_refused(member):
    model, data = small_classifier()
    with pytest.raises(GuideError, match=r"member= must make a guide for one network, but gave an? \w+\. Pass a class"):
        wiu.fit(model, AutoEnsemble(model, member=member), data, epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "mlp"}, "A guide is made for a Pyro model, but this is a str"),
        ({"member": "laplace-kfac"}, r"member= must be what makes a member's guide, but is a str\. Pass the class"),
        ({"member": AutoMeanField(small_classifier()[0])}, "member= must be .*, but is an AutoMeanField"),
    ],
)
def test_ensemble_of_what_makes_no_networks_is_refused_at_once(options, message):
    with pytest.raises(GuideError, match=message):
        AutoEnsemble(**{"model": small_classifier()[0], **options})


class NoReset(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 4))

    def forward(self, x):
        return x @ self.weight.T


def test_a_network_that_cannot_be_drawn_anew_needs_an_init():
    data = torch.randn(8, 4), torch.arange(8) % 3
    model = BayesianNetwork(NoReset())
    with pytest.raises(ModelError, match=r"'weight', but its module \(NoReset\) has no reset_parameters\(\)"):
        wiu.fit(model, AutoEnsemble(model, size=2), data, epochs=0)
    fit = wiu.fit(model, AutoEnsemble(model, size=2, init=lambda net: nn.init.normal_(net.weight)), data, epochs=0)
    first, second = (one.point_estimate["weight"] for one in fit.members)
    assert not torch.equal(first, second)
    assert torch.equal(model.net.weight, torch.zeros(3, 4))


def test_names_ask_for_ensembles_of_any_guide():
    assert by_name("ensemble") is AutoEnsemble
    assert by_name("ensemble-laplace-kfac") is by_name("ensemble-laplace-kfac")
    assert by_name("ensemble-laplace-kfac").cli_name == "ensemble-laplace-kfac"
    model, _ = small_classifier()
    kinds = {"ensemble": AutoPointEstimate, "ensemble-laplace-kfac": AutoKFACLaplace}
    kinds |= {"ensemble-mean-field": AutoMeanField, "ensemble-auto-normal": AutoNormal}
    for name, kind in kinds.items():
        assert type(by_name(name)(model).new_member()) is kind


@pytest.mark.parametrize("name", ["ensemble-laplace-kfca", "ensemble-ensemble"])
def test_an_ensemble_of_what_is_not_there_is_refused(name):
    with pytest.raises(GuideError, match="Unknown guide"):
        by_name(name)
