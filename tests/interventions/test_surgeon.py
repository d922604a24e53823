"""The remaining weights after a removal, against the dense conditional mean; and training with zeros held."""

import numpy as np
import pytest
import torch
from pyro.infer.autoguide import AutoDelta

import wiu_pyro as wiu
from tests.interventions.planted_networks import two_layers
from wiu_pyro.errors import DataError, FitError, GuideError
from wiu_pyro.export.sources import read_source
from wiu_pyro.interventions.candidates import read_candidates
from wiu_pyro.interventions.fine_tune import fine_tuned
from wiu_pyro.interventions.surgeon import compensated, surgeon_variance


def opened(fit):
    source = read_source(fit, model=None, data=None, num_samples=2, seed=0)
    return source, read_candidates(source, source.chains[0])


def half_removed(weights, seed=0):
    return torch.rand(len(weights.mean), generator=torch.Generator().manual_seed(seed)) > 0.5


@pytest.mark.parametrize("guide", [wiu.guides.AutoKFACLaplace, wiu.guides.AutoFullLaplace])
def test_remaining_weights_are_the_mean_given_that_the_removed_ones_are_zero(guide):
    fit, _ = two_layers(guide=guide)
    source, weights = opened(fit)
    keep = half_removed(weights)
    guide = fit.guide
    everything = torch.arange(len(guide.loc))
    covariance = guide.get_posterior().covariance(everything, everything).double().detach().numpy()
    gone = np.zeros(len(guide.loc), bool)
    for site, place, _ in guide.sites():
        if site in weights.shapes:
            gone[place] = ~weights.by_site(keep)[site].reshape(-1).numpy()
    mean = guide.loc.double().detach().numpy()
    expected = mean - covariance[:, gone] @ np.linalg.solve(covariance[np.ix_(gone, gone)], mean[gone])
    found = guide.pack(compensated(source, weights, keep)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(mean).max())
    np.testing.assert_array_equal(found[gone], 0)


def test_weights_of_a_factorised_posterior_stay_where_they_are():
    fit, _ = two_layers(guide=wiu.guides.AutoDiagonalLaplace)
    source, weights = opened(fit)
    keep = half_removed(weights)
    found = compensated(source, weights, keep)
    for site, stays in weights.by_site(keep).items():
        torch.testing.assert_close(found[site], fit.point_estimate[site] * stays)


def test_posterior_that_is_no_gaussian_cannot_be_compensated():
    fit, _ = two_layers(guide=AutoDelta, epochs=1)
    source, weights = opened(fit)
    with pytest.raises(GuideError, match="a Gaussian in closed form"):
        compensated(source, weights, half_removed(weights))


def test_surgeon_without_factors_or_data_says_what_it_needs():
    fit, _ = two_layers(guide=wiu.guides.AutoMeanField, epochs=1)
    source, weights = opened(fit)
    with pytest.raises(GuideError, match="Pass train_data"):
        surgeon_variance(source, weights, None, seed=0)


def test_fine_tuning_holds_zeros_and_leaves_the_fit_as_it_was():
    fit, data = two_layers()
    source, weights = opened(fit)
    keep = half_removed(weights)
    before = {site: value.clone() for site, value in fit.point_estimate.items()}
    options = {"train_data": data, "epochs": 3, "learning_rate": 0.01}
    found = fine_tuned(source, weights, keep, **options, seed=0)
    for site, stays in weights.by_site(keep).items():
        assert (found[site][~stays] == 0).all()
        assert (found[site][stays] != before[site][stays]).any()
        assert torch.equal(fit.point_estimate[site], before[site])
    again = fine_tuned(source, weights, keep, **options, seed=0)
    assert all(torch.equal(found[site], again[site]) for site in found)


def test_fine_tuning_goes_to_the_mode_under_the_models_prior():
    fit, data = two_layers(epochs=150)
    source, weights = opened(fit)
    keep = torch.ones_like(weights.chosen)
    found = fine_tuned(source, weights, keep, train_data=data, epochs=5, learning_rate=1e-3, seed=0)
    moved = max((found[site] - fit.point_estimate[site]).abs().max().item() for site in found)
    assert moved < 0.05  # it was there already


def test_fine_tuning_without_data_is_refused():
    fit, _ = two_layers(epochs=1)
    source, weights = opened(fit)
    with pytest.raises(DataError, match="Fine-tuning needs training data"):
        fine_tuned(source, weights, weights.chosen, train_data=None, epochs=1, learning_rate=0.1, seed=0)


def test_fine_tuning_that_diverges_says_so():
    fit, data = two_layers(epochs=1)
    source, weights = opened(fit)
    broken = (torch.full_like(data[0], torch.inf), data[1])
    with pytest.raises((FitError, ValueError), match="finite loss|invalid values"):
        fine_tuned(source, weights, weights.chosen, train_data=broken, epochs=1, learning_rate=0.1, seed=0)
