"""The closed-form KL from mixtures of Normals, beside plain sums, quadrature and draws."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import nn

from wiu_pyro.errors import PriorError
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.guides.mixture_kl import least_kl, mixture_kl, scale_grid
from wiu_pyro.nn import BayesianNetwork, Laplace, Normal, NormalMixture

SCALES, PROBABILITIES = (0.5, 0.1, 0.02), (0.2, 0.3, 0.5)
GRID = torch.tensor(PROBABILITIES), torch.tensor(SCALES)
POSTERIORS = [(0.0, 0.02), (0.1, 0.03), (0.4, 0.3), (5.0, 1e-3)]


def joint_kl(mean: float, sd: float) -> float:
    """Return the least KL of q(w) q(k) from the prior over weight and scale, by a softmax over the scales."""
    each = np.log(np.divide(SCALES, sd)) + (mean**2 + sd**2) / (2 * np.square(SCALES)) - 0.5
    log_joint = np.log(PROBABILITIES) - each
    q = np.exp(log_joint - np.logaddexp.reduce(log_joint))
    q = q[q > 0], each[q > 0], np.array(PROBABILITIES)[q > 0]
    return float((q[0] * (q[1] + np.log(q[0] / q[2]))).sum())


@pytest.mark.parametrize(("mean", "sd"), POSTERIORS)
def test_it_is_the_kl_over_weight_and_scale_with_the_scales_at_their_best(mean: float, sd: float) -> None:
    value = mixture_kl(torch.tensor([mean]), torch.tensor([sd]).log(), GRID)
    assert value.item() == pytest.approx(joint_kl(mean, sd), rel=1e-5)


@pytest.mark.parametrize(("mean", "sd"), [*POSTERIORS, (0.0, 0.06)])
def test_it_is_the_kl_of_the_weight_alone_and_what_the_scales_then_leave_open(mean: float, sd: float) -> None:
    """By the chain rule KL(q(w) q(k) from p(w, k)) = KL(q(w) from p(w)) + E KL(q(k) from p(k | w))."""
    best = np.log(PROBABILITIES) + stats.norm.logpdf(np.hypot(mean, sd), 0, SCALES)
    best -= np.logaddexp.reduce(best)

    def integrand(z: float) -> tuple[float, float]:
        joint = np.log(PROBABILITIES) + stats.norm.logpdf(mean + sd * z, 0, SCALES)
        log_prior = np.logaddexp.reduce(joint)
        open_yet = np.exp(best) @ (best - (joint - log_prior))
        return stats.norm.pdf(z) * np.array([stats.norm.logpdf(z) - np.log(sd) - log_prior, open_yet])

    alone, left = (integrate.quad(lambda z, part=part: integrand(z)[part], -8, 8, points=[0.0])[0] for part in (0, 1))
    value = mixture_kl(torch.tensor([mean]), torch.tensor([sd]).log(), GRID).item()
    assert left >= 0
    assert value == pytest.approx(alone + left, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("scales", "probabilities"), [(SCALES, PROBABILITIES), ((0.3, 0.01), (0.05, 0.95)), ((2.0, 1.0), (0.5, 0.5))]
)
def test_no_weight_has_less_than_the_least(scales: tuple[float, ...], probabilities: tuple[float, ...]) -> None:
    def kl(at: np.ndarray) -> float:
        mean, log_sd = at
        log_densities = np.log(probabilities) + stats.norm.logpdf(np.hypot(mean, np.exp(log_sd)), 0, scales)
        return -float(np.logaddexp.reduce(log_densities)) - log_sd - stats.norm.entropy()

    starts = [(mean, np.log(scale)) for mean in (0.0, 0.1) for scale in scales]
    found = min(optimize.minimize(kl, start, method="Nelder-Mead", tol=1e-10).fun for start in starts)
    assert least_kl((torch.tensor(probabilities), torch.tensor(scales))) == pytest.approx(found, abs=1e-6)


def test_what_no_weight_can_change_is_left_out_when_a_fit_is_judged() -> None:
    prior = {"*.weight": NormalMixture(SCALES, PROBABILITIES), "*.bias": Normal(1.0)}
    model = BayesianNetwork(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), prior=prior, num_data=20)
    guide = AutoMeanField(model, scale_indicators=True, temperature=0.5)
    batch = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(20)
    guide(*batch)
    assert guide.loss_offset() == pytest.approx(0.5 * 8 * least_kl(GRID))
    by_draws = AutoMeanField(model)
    by_draws(*batch)
    assert by_draws.loss_offset() == 0


def test_its_gradient_is_that_of_the_plain_expression() -> None:
    torch.manual_seed(0)
    loc, log_scale = 0.3 * torch.randn(50, dtype=torch.float64), -3 + torch.randn(50, dtype=torch.float64)
    values = [part.clone().requires_grad_() for _ in range(2) for part in (loc, log_scale)]
    grid = tuple(part.double() for part in GRID)
    (3 * mixture_kl(values[0], values[1], grid)).backward()
    square = values[2].square() + (2 * values[3]).exp()
    terms = (grid[0] / grid[1]).log() - square[:, None] / (2 * grid[1].square())
    (3 * (-terms.logsumexp(-1) - values[3]).sum()).backward()
    torch.testing.assert_close(values[0].grad, values[2].grad)
    torch.testing.assert_close(values[1].grad, values[3].grad)


def test_a_grid_is_read_from_a_prior_widest_first() -> None:
    weight = nn.Linear(3, 2).weight
    prior = NormalMixture((0.1, 0.5), (0.7, 0.3)).distribution(weight, name="weight", module=None)
    found = scale_grid(prior)
    torch.testing.assert_close(found[0], torch.tensor([0.3, 0.7]))
    torch.testing.assert_close(found[1], torch.tensor([0.5, 0.1]))


@pytest.mark.parametrize(
    "prior",
    [
        dist.Normal(torch.zeros(3), 1.0).to_event(1),
        dist.MixtureSameFamily(dist.Categorical(torch.ones(3, 2)), dist.Normal(torch.ones(3, 2), 1.0)).to_event(1),
        dist.MixtureSameFamily(
            dist.Categorical(torch.ones(3, 2)), dist.Normal(torch.zeros(3, 2), 1 + torch.rand(3, 2))
        ).to_event(1),
    ],
    ids=["normal", "means", "differs"],
)
def test_there_is_no_grid_for_another_prior(prior: dist.Distribution) -> None:
    assert scale_grid(prior) is None


def _guide(prior: object, **options: bool) -> AutoMeanField:
    torch.manual_seed(0)
    guide = AutoMeanField(BayesianNetwork(nn.Linear(20, 10), prior, num_data=40), **options)
    guide(torch.ones(4, 20), torch.zeros(4))
    return guide


def test_with_one_scale_a_guides_kl_is_that_from_the_normal() -> None:
    with_indicators = _guide({"weight": NormalMixture((0.3,), (1.0,)), "*": Normal(2.0)}, scale_indicators=True)
    expected = _guide({"weight": Normal(0.3), "*": Normal(2.0)}).kl_divergence()
    torch.testing.assert_close(with_indicators.kl_divergence(), expected)


def test_a_guides_kl_has_no_noise_and_is_at_least_the_mean_over_draws() -> None:
    prior = NormalMixture(SCALES, PROBABILITIES)
    with_indicators, by_draws = _guide(prior, scale_indicators=True), _guide(prior)
    value = with_indicators.kl_divergence()
    assert value == with_indicators.kl_divergence()
    draws = torch.stack([by_draws.kl_divergence() for _ in range(200)]).detach()
    assert value > draws.mean() - 3 * draws.std() / 200**0.5


def test_another_prior_is_refused() -> None:
    with pytest.raises(PriorError, match=r"scale_indicators needs Normal priors.*'bias' is none of them \(Laplace\)"):
        _guide(
            {"weight": NormalMixture(SCALES, PROBABILITIES), "bias": Laplace(1.0)}, scale_indicators=True
        ).kl_divergence()
