"""Sparse variational dropout: its KL by quadrature and by series, its gradients, and which weights it removes."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from scipy import integrate, optimize, special, stats
from torch import nn

import wiu_pyro as wiu
from tests.guides.models import Hierarchical
from wiu_pyro.errors import DataError, GuideError, PriorError
from wiu_pyro.guides import AutoSparseVariationalDropout, closed_form, log_uniform_kl
from wiu_pyro.guides.log_uniform_kl import sd_and_kl
from wiu_pyro.infer import draw_weights
from wiu_pyro.nn import BayesianNetwork, LogUniform, Normal, is_improper
from wiu_pyro.testing import small_classifier

AT_INFINITY = 0.5 * (np.euler_gamma + math.log(2))  # −E log|ε| of a standard Normal


def exact_kl(log_alpha):
    """E log|1 + √α ε| − ½ log α, from its limit, by the series of the noncentral χ² of one degree of freedom."""
    half = 0.5 * math.exp(-log_alpha)
    terms = np.arange(stats.poisson.ppf(1e-14, half), stats.poisson.ppf(1 - 1e-14, half) + 40)
    log_square = (stats.poisson.pmf(terms, half) * (special.digamma(0.5 + terms) + math.log(2))).sum()  # E log χ'²
    return AT_INFINITY + 0.5 * log_square  # the log of a scale √α in both: E log|1 + √α ε| = ½ (log α + E log χ'²)


def test_series_is_the_integral():
    for log_alpha in (-2.0, 0.0, 2.0):
        sd = math.exp(0.5 * log_alpha)
        parts = [
            integrate.quad(lambda z: stats.norm.pdf(z) * math.log(abs(1 + sd * z)), *ends, limit=200)[0]  # noqa: B023
            for ends in ((-12, -1 / sd), (-1 / sd, 12))
        ]
        assert AT_INFINITY + sum(parts) - 0.5 * log_alpha == pytest.approx(exact_kl(log_alpha), abs=1e-6)


def test_approximate_kl_is_within_a_hundredth_of_a_nat():
    log_alpha = np.linspace(-8, 8, 65)
    exact = np.array([exact_kl(one) for one in log_alpha])
    found = log_uniform_kl(torch.tensor(log_alpha)).numpy()
    assert np.abs(found - exact).max() < 0.01
    assert (np.diff(found) < 0).all()  # more noise costs less, always


def test_kl_has_the_gradient_of_its_formula():
    log_alpha = torch.linspace(-8, 8, 33, dtype=torch.float64, requires_grad=True)
    log_uniform_kl(log_alpha).sum().backward()
    alpha = log_alpha.detach().exp()
    logistic = 1 / (1 + torch.exp(-(1.87320 + 1.48695 * log_alpha.detach())))
    by_hand = -0.63576 * 1.48695 * logistic * (1 - logistic) - 0.5 / (1 + alpha)
    torch.testing.assert_close(log_alpha.grad, by_hand)
    assert torch.autograd.gradcheck(log_uniform_kl, log_alpha)


def test_written_gradients_are_those_of_the_formulas():
    loc = torch.tensor([0.3, -0.2, 1e-3, 5.0, -0.7], dtype=torch.float64, requires_grad=True)
    log_variance = torch.tensor([-3.0, 0.5, 2.0, -9.0, -1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sd_and_kl, (loc, log_variance))
    sd, kl = sd_and_kl(loc, log_variance)
    squares = loc.square()
    clipped = (log_variance - squares.log()).clamp(-8, 8)
    assert (clipped.abs() == 8).tolist() == [False, False, True, True, False]
    torch.testing.assert_close(sd, (clipped.exp() * squares).sqrt())
    torch.testing.assert_close(kl, log_uniform_kl(clipped).sum())


def guided(**options):
    model, data = small_classifier()
    guide = AutoSparseVariationalDropout(model, **options)
    guide.setup(data)
    return model, data, guide


def test_variance_starts_as_a_share_of_the_mean_square_of_each_site():
    model, _, guide = guided(init_log_alpha=-3.0)
    for site, closed in closed_form(guide, guide.structure).sd.items():
        if site.endswith("bias"):
            assert not closed.any()
            continue
        square = model.net.get_buffer(site).square().mean()
        torch.testing.assert_close(closed.square(), (math.exp(-3) * square).expand(closed.shape))
    assert guide.least_travel() == 6.0


def test_noise_is_held_between_its_clips():
    _, _, guide = guided()
    with torch.no_grad():
        guide.log_variance.fill_(50.0)
    weight = guide.point_estimate()["0.weight"]
    torch.testing.assert_close(closed_form(guide, guide.structure).sd["0.weight"], weight.abs() * math.exp(4))
    assert all(bool((value == 8).all()) for value in guide.log_alpha().values())
    with torch.no_grad():
        guide.log_variance.fill_(-50.0)
    torch.testing.assert_close(closed_form(guide, guide.structure).sd["0.weight"], weight.abs() * math.exp(-4))


def test_objective_is_likelihood_and_kl_over_draws_of_the_weights():
    model, (x, y), guide = guided(init_log_alpha=-1.0, temperature=0.5)
    num = 3000
    torch.manual_seed(0)
    with torch.no_grad():
        ours = torch.stack([guide.negative_elbo(x, y, kl_weight=0.7) for _ in range(num)]).double()
        draws = draw_weights(guide, num_samples=num, seed=3)
        net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        nll = torch.stack(
            [
                nn.functional.cross_entropy(torch.func.functional_call(net, one, (x,)), y, reduction="sum")
                for one in draws
            ]
        ).double()
    kl = sum(log_uniform_kl(value).sum() for value in guide.log_alpha().values())
    point = guide.point_estimate()
    biases = sum(
        0.5 * (point[site] / model.prior_distributions()[site].base_dist.scale).square().sum()
        for site in ("0.bias", "2.bias")
    )
    expected = nll + 0.35 * (kl + biases)
    error = ((ours.var() + expected.var()) / num).sqrt()
    assert abs(ours.mean() - expected.mean()) < 4 * error


def test_draws_are_normal_and_biases_points():
    _, _, guide = guided()
    drawn = list(draw_weights(guide, num_samples=2))
    assert torch.equal(drawn[0]["2.bias"], drawn[1]["2.bias"])
    weight = drawn[0]
    closed = closed_form(guide, guide.structure)
    by_hand = sum(
        torch.distributions.Normal(closed.mean[site].double(), closed.sd[site].double()).log_prob(weight[site]).sum()
        for site in ("0.weight", "2.weight")
    )
    torch.testing.assert_close(guide.log_prob(weight), by_hand, rtol=1e-5, atol=1e-4)


def least_of_one_weight(target, precision, start):
    """θ and log σ² that minimise ½ h ((θ − t)² + σ²) + KL of one weight, from a start, by scipy."""

    def loss(both):
        theta, log_variance = both
        kl = log_uniform_kl(torch.tensor(log_variance - math.log(theta**2 + 1e-16))).item()
        return 0.5 * precision * ((theta - target) ** 2 + math.exp(log_variance)) + kl

    return optimize.minimize(
        loss, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-7, "fatol": 1e-10}
    ).x


@pytest.mark.training
def test_weights_come_to_the_least_of_each_where_inputs_are_orthogonal():
    precision = 64.0  # of each weight, from 64 data of unit noise
    targets = torch.tensor([0.2, 0.4, 4.0, 6.0, -9.0, 12.0]) / precision**0.5
    x = torch.linalg.qr(torch.randn(64, 6, generator=torch.Generator().manual_seed(0)))[0] * precision**0.5
    y = x @ targets[:, None]
    net = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(targets)
    model = BayesianNetwork(net, likelihood="normal", noise_scale=1.0, num_data=64)
    guide = AutoSparseVariationalDropout(model)
    fit = wiu.fit(model, guide, (x, y), epochs=800, learning_rate=0.03, seed=0, batch_size=64)
    first = math.log(targets.square().mean().item()) - 4
    theta, log_variance = np.transpose([least_of_one_weight(t, precision, (t, first)) for t in targets.tolist()])
    closed = closed_form(guide, fit.structure)
    removed = guide.removed()["weight"][0]
    assert removed.tolist() == (log_variance - np.log(theta**2 + 1e-16) > 3).tolist() == [True] * 2 + [False] * 4
    np.testing.assert_allclose(closed.mean["weight"][0, 2:], theta[2:], rtol=0.05)
    np.testing.assert_allclose(closed.sd["weight"][0, 2:], np.exp(0.5 * log_variance[2:]), rtol=0.05)
    assert fit.structure.priors["weight"].base_dist.improper
    snr = closed.mean["weight"].abs() / closed.sd["weight"]
    torch.testing.assert_close(-guide.log_alpha()["weight"], 2 * snr.log(), rtol=1e-3, atol=1e-3)  # ranks alike


def test_file_and_table_say_that_the_prior_is_improper():
    model, data, guide = guided()
    fit = wiu.fit(model, guide, data, epochs=0)
    idata = wiu.to_inference_data(fit, data, num_samples=5)
    assert "not the model's: LogUniform (improper" in wiu.schema.attrs(idata)["prior"]
    assert "0.bias (at a point estimate)" in wiu.schema.attrs(idata)["not_covered"]
    layers = idata["layers"]
    assert layers["structure"].values.tolist() == ["sparse-dropout"] * 2
    assert layers["prior"].values[0] == "weight: LogUniform (improper: without mean, sd or draws); bias: Normal(0, 1)"
    assert "up to a constant" in layers["kl"].attrs["kl_note"]
    kl = [log_uniform_kl(guide.log_alpha()[site]).sum().item() for site in ("0.weight", "2.weight")]
    np.testing.assert_allclose(layers["kl"].values[0], kl, rtol=1e-5)
    assert "improper" in idata["moments_0"]["prior_sd"].attrs["reason"]
    assert np.isfinite(idata["posterior"]["deviation_rms"].values).all()
    assert "rms weight" in idata["posterior"]["deviation_rms"].attrs["relative_to"]
    table = wiu.diagnostics.layer_uncertainty(idata)
    assert np.isnan(table["contraction"].values).all()
    assert np.isnan(table["contraction_sum"].values).all()
    assert np.isfinite(table["snr_q50"].values).all()
    assert "improper" in table["contraction"].attrs["reason"]
    assert "up to a constant" in table["kl"].attrs["kl_note"]


def test_track_has_no_figures_relative_to_a_prior_without_sd():
    model, data, guide = guided()
    fit = wiu.fit(model, guide, data, epochs=2, track="epoch")
    assert np.isnan(fit.track.figures["contraction"]).all()
    table = wiu.diagnostics.layer_uncertainty(wiu.to_inference_data(fit, data, num_samples=3))
    np.testing.assert_allclose(fit.track.figures["kl"][-1], table["kl"].values, rtol=1e-5)
    np.testing.assert_allclose(fit.track.figures["snr_q50"][-1], table["snr_q50"].values, rtol=1e-4)


def test_pruning_ranks_by_noise_and_says_why_priors_do_not():
    model, data, guide = guided()
    fit = wiu.fit(model, guide, data, epochs=0)
    table = wiu.interventions.prune(fit, data, sparsities=(0.5,))
    assert "signal_to_noise" in table["criterion"].values
    assert not {"kl", "bayesian_model_reduction"} & set(table["criterion"].values.tolist())
    assert "improper" in table.attrs["left_out"]
    assert np.isnan(table["evidence_change"].values).all()
    with pytest.raises(DataError, match="a prior with an integral, but that of '0.weight' is improper"):
        wiu.interventions.prune(fit, data, sparsities=(0.5,), criteria=("kl",))
    (removed,) = (guide.removed(threshold=-4.0),)
    scores = -torch.cat([guide.log_alpha()[site].flatten() for site in removed])
    median = scores.sort().values[round(0.5 * len(scores)) - 1]
    kept = wiu.interventions.pruned_weights(fit, criterion="signal_to_noise", sparsity=0.5)
    gone = torch.cat([(kept[site] == 0).flatten() for site in removed])
    assert torch.equal(gone, scores <= median)


@pytest.mark.parametrize("value", [-9.0, 3.0])
def test_start_beyond_the_limits_is_refused(value):
    with pytest.raises(GuideError, match="init_log_alpha must be from -8 to 3"):
        AutoSparseVariationalDropout(small_classifier()[0], init_log_alpha=value)


def test_model_without_weight_matrices_is_refused():
    model = BayesianNetwork(nn.Linear(4, 3), {"bias": Normal(1.0), "weight": None})
    with pytest.raises(GuideError, match="removes entries of weight matrices and kernels, but the model samples none"):
        AutoSparseVariationalDropout(model).setup((torch.ones(2, 4), torch.zeros(2).long()))


def test_dependent_priors_are_refused():
    with pytest.raises(PriorError, match="priors that depend on nothing else"):
        AutoSparseVariationalDropout(Hierarchical()).setup((torch.ones(2, 4), torch.zeros(2).long()))


def test_svi_is_refused():
    model, data, guide = guided()
    with pyro.get_param_store().scope():
        svi = SVI(model, guide, Adam({"lr": 0.01}), Trace_ELBO())
        with pytest.raises(GuideError, match="Train it with wiu_pyro.fit"):
            svi.step(*data)


def test_log_uniform_is_improper_and_draws_nothing():
    prior = LogUniform(torch.ones(2, 3)).to_event(2)
    assert is_improper(prior)
    assert not is_improper(torch.distributions.Normal(0.0, 1.0))
    assert prior.log_prob(torch.full((2, 3), math.e)).item() == pytest.approx(-6.0)
    with pytest.raises(PriorError, match="the log-uniform prior is improper"):
        prior.sample()
