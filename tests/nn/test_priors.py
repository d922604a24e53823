"""Priors against torch's distributions, and the patterns that hand them out."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from wiu_pyro.errors import PriorError
from wiu_pyro.nn import BayesianNetwork, FanInNormal, Laplace, Normal, Prior, ScaleMixtureNormal, is_normal
from wiu_pyro.nn.priors import match_priors


def of(prior: Prior, parameter: torch.Tensor, *, name: str = "weight", module: nn.Module | None = None):
    return prior.distribution(parameter, name=name, module=module)


@pytest.mark.parametrize(
    ("prior", "reference"),
    [
        (Normal(0.3, loc=0.1), torch.distributions.Normal(0.1, 0.3)),
        (Laplace(0.3, loc=0.1), torch.distributions.Laplace(0.1, 0.3)),
    ],
)
def test_prior_has_the_density_its_name_says(prior, reference):
    w = torch.randn(3, 4)
    torch.testing.assert_close(of(prior, w).log_prob(w), reference.log_prob(w).sum())


def test_scale_mixture_is_the_weighted_sum_of_two_normals():
    w = torch.tensor([[0.01, 0.5], [-2.0, 0.0]])
    wide, narrow = (torch.distributions.Normal(0.0, scale).log_prob(w).exp() for scale in (0.8, 0.05))
    expected = (0.25 * wide + 0.75 * narrow).log().sum()
    torch.testing.assert_close(of(ScaleMixtureNormal(0.8, 0.05, 0.25), w).log_prob(w), expected)


@pytest.mark.parametrize(("shape", "fan"), [((5, 7), 7), ((6, 3, 2, 2), 12)])
def test_fan_in_normal_has_variance_gain_over_fan_in(shape, fan):
    prior = of(FanInNormal(2.0), torch.zeros(shape))
    torch.testing.assert_close(prior.variance, torch.full(shape, 2.0 / fan))


def test_fan_in_normal_gives_biases_a_standard_normal():
    prior = of(FanInNormal(), torch.zeros(5), name="bias")
    assert (prior.mean.unique().item(), prior.stddev.unique().item()) == (0.0, 1.0)


@pytest.mark.parametrize("module", [nn.BatchNorm2d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3)])
def test_fan_in_normal_centres_the_scale_of_a_normalisation_layer_at_one(module):
    prior = of(FanInNormal(), torch.zeros(3), module=module)
    assert prior.mean.tolist() == [1.0, 1.0, 1.0]


def test_prior_of_the_function_keeps_its_scale_at_every_width():
    """Neal (1996): under the fan-in prior the output's variance does not grow with the width."""
    generator = torch.Generator().manual_seed(0)
    spreads = []
    for width in (50, 800):
        weight = of(FanInNormal(1.0), torch.zeros(1, width)).stddev
        outputs = torch.randn(4000, width, generator=generator) @ weight[0] * 1.0
        spreads.append(outputs.std().item())
    # the relative se of an sd over 4000 draws is 1.1 %
    assert spreads[0] == pytest.approx(spreads[1], rel=0.05)


@pytest.mark.parametrize("prior", [Normal(0.5), FanInNormal(), Laplace(2.0), ScaleMixtureNormal()])
def test_prior_describes_itself_in_a_short_text(prior):
    assert 0 < len(prior.describe()) < 60


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "make",
    [
        Normal,
        Laplace,
        FanInNormal,
        lambda value: ScaleMixtureNormal(wide=value),
        lambda v: ScaleMixtureNormal(narrow=v),
    ],
    ids=["normal", "laplace", "fan-in", "wide", "narrow"],
)
def test_prior_refuses_a_scale_that_is_not_positive(make, value):
    with pytest.raises(PriorError, match="must be a positive finite number"):
        make(value)


@pytest.mark.parametrize("make", [Normal, Laplace])
def test_prior_refuses_a_mean_that_is_not_finite(make):
    with pytest.raises(PriorError, match="loc of a prior must be finite"):
        make(1.0, loc=math.nan)


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.1])
def test_scale_mixture_refuses_a_weight_outside_the_unit_interval(weight):
    with pytest.raises(PriorError, match="weight_wide must lie strictly between 0 and 1"):
        ScaleMixtureNormal(weight_wide=weight)


NAMES = ["fc1.weight", "fc1.bias", "out.weight", "out.bias"]


def test_first_pattern_that_matches_wins():
    exact, rest = Normal(0.1), Normal(0.2)
    chosen = match_priors({"fc1.weight": exact, "fc*": None, "*": rest}, NAMES)
    assert chosen == {"fc1.weight": exact, "out.weight": rest, "out.bias": rest}


def test_parameter_no_pattern_matches_is_left_without_a_prior():
    assert list(match_priors({"out.*": Normal()}, NAMES)) == ["out.weight", "out.bias"]


def test_pattern_that_matches_nothing_is_an_error_with_near_matches():
    with pytest.raises(PriorError, match=r"'fc1.wieght' matches no parameter. Did you mean 'fc1.weight'"):
        match_priors({"fc1.wieght": Normal()}, NAMES)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, r"but is a float. For this standard deviation pass wiu_pyro.nn.Normal\(scale=0.5\)"),
        ("normal", "but is a str. Take one of wiu_pyro.nn. Did you mean 'Normal'"),
        (FanInNormal, r"but is the class FanInNormal. Make one of it: FanInNormal\(...\)"),
    ],
)
def test_value_that_is_no_prior_is_an_error(value, message):
    with pytest.raises(PriorError, match=message):
        BayesianNetwork(nn.Linear(2, 2), value)


@pytest.mark.parametrize("kind", [Normal, Laplace])
def test_mean_and_scale_in_pyros_order_are_an_error_that_names_them(kind):
    with pytest.raises(PriorError, match=rf"{kind.__name__}\(0.0, 0.1\) has none.*\(scale=0.1, loc=0.0\)"):
        kind(0.0, 0.1)


def test_scale_mixture_refuses_scales_that_are_exchanged():
    with pytest.raises(PriorError, match="wide must be larger than narrow, but they are 0.01 and 0.3"):
        ScaleMixtureNormal(wide=0.01, narrow=0.3)


def test_distribution_in_place_of_a_prior_is_told_from_the_prior_of_that_name():
    with pytest.raises(PriorError, match="but is a Laplace of pyro. Take one of wiu_pyro.nn"):
        BayesianNetwork(nn.Linear(2, 2), dist.Laplace(0.0, 1.0))


def test_no_prior_at_all_is_an_error():
    with pytest.raises(PriorError, match="At least one parameter needs a prior"):
        match_priors({"*": None}, NAMES)


@pytest.mark.parametrize("expanded", [True, False], ids=["one for all weights", "one for each weight"])
def test_density_of_two_normals_is_that_of_the_mixture_of_any_number(expanded):
    prior = ScaleMixtureNormal(0.5, 0.02, 0.1)
    found = prior.distribution(torch.empty(3, 4), name="weight", module=None).base_dist
    value = torch.tensor([-3.0, -0.04, 0.0, 0.7]).expand(3, 4)
    if not expanded:
        parts = (dist.Categorical(found.mixture_distribution.probs.clone()), found.component_distribution)
        found = type(found)(parts[0], dist.Normal(parts[1].loc.clone(), parts[1].scale.clone()))
    expected = dist.MixtureSameFamily(found.mixture_distribution, found.component_distribution).log_prob(value)
    torch.testing.assert_close(found.log_prob(value), expected)


class Bent(dist.Normal):
    """A Normal by inheritance alone: its density is another."""

    def log_prob(self, value):
        return super().log_prob(value) - value.abs()


class Laplacian(dist.Laplace):
    """Named as what it is not, below."""


Laplacian.__name__ = "Normal"


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (dist.Normal(0.0, 1.0).expand([3]).to_event(1), True),
        (torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), 1.0), 1), True),
        (dist.TransformedDistribution(dist.Normal(0.0, 1.0), [dist.transforms.ExpTransform()]), False),
        (Bent(0.0, 1.0), False),
        (Laplacian(0.0, 1.0), False),
    ],
)
def test_normal_is_known_by_its_class_not_by_its_name(prior, expected):
    assert is_normal(prior) is expected
