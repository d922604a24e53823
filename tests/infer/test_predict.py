"""Predictions: entropies that add up, closed forms where there are some, brute force where there are none."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError, ModelError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoMeanField
from wiu_pyro.infer import draw_weights, functional_distribution, predict
from wiu_pyro.nn import BayesianNetwork, as_batches
from wiu_pyro.testing import linear_gaussian, small_classifier

KINDS = ("linearised", "sampled")


@pytest.fixture(scope="module")
def classifier():
    model, data = small_classifier()
    return wiu.fit(model, AutoKFACLaplace(model), data, epochs=1), data


@pytest.fixture(scope="module")
def binary():
    torch.manual_seed(0)
    x = torch.randn(20, 4)
    y = (x[:, :2] > 0).float()
    model = BayesianNetwork(nn.Linear(4, 2), likelihood="bernoulli")
    return wiu.fit(model, AutoKFACLaplace(model), (x, y), epochs=1), (x, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["classifier", "binary"])
def test_entropy_splits_into_its_expected_part_and_mutual_information(kind, case, request):
    fit, data = request.getfixturevalue(case)
    found = predict(fit, data, kind=kind)
    np.testing.assert_allclose(found.predictive_entropy, found.expected_entropy + found.mutual_information, rtol=1e-5)
    assert (found.mutual_information > -1e-6).all()
    mean = found.mean.astype(float)
    entropy = -(mean * np.log(mean)).sum(1)
    if case == "binary":
        entropy = entropy - ((1 - mean) * np.log(1 - mean)).sum(1)
    np.testing.assert_allclose(found.predictive_entropy, entropy, rtol=1e-4)


class OneOfThree(PyroModule):
    """A linear classifier, its labels one-hot or numbers."""

    def __init__(self, *, one_hot: bool) -> None:
        super().__init__()
        self.kind = dist.OneHotCategorical if one_hot else dist.Categorical
        self.fc = PyroModule[nn.Linear](2, 3, bias=False)
        self.fc.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        logits = self.fc(x)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", self.kind(logits=logits), obs=y)
        return logits


@pytest.mark.parametrize("kind", KINDS)
def test_one_hot_labels_are_those_of_their_class(kind):
    x, y = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    found = []
    for labels in (y, nn.functional.one_hot(y, 3).float()):
        model = OneOfThree(one_hot=labels.dim() == 2)
        start = {"fc.weight": torch.tensor([[0.5, -0.2], [0.1, 0.9], [-0.7, 0.3]])}
        fit = wiu.fit(model, AutoFullLaplace(model), (x, labels), epochs=0, start=start)
        found.append(predict(fit, (x, labels), kind=kind, num_samples=5))
    np.testing.assert_allclose(found[1].log_likelihood, found[0].log_likelihood, rtol=1e-5)
    np.testing.assert_allclose(found[1].mean, found[0].mean, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Networks sampled from this Laplace posterior")  # three draws
def test_log_likelihood_of_each_draw_of_a_bernoulli_is_that_of_torch(binary):
    fit, (x, y) = binary
    found = predict(fit, (x, y), kind="sampled", num_samples=3, seed=1)
    for row, draw in zip(found.log_likelihood, draw_weights(fit, num_samples=3, seed=1), strict=True):
        logits = nn.functional.linear(x, draw["weight"], draw["bias"])
        expected = torch.distributions.Bernoulli(logits=logits).log_prob(y).sum(1)
        np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_and_their_interval_are_probabilities(kind, classifier):
    fit, data = classifier
    found = predict(fit, data, kind=kind)
    np.testing.assert_allclose(found.mean.sum(1), 1, rtol=1e-5)
    assert (found.lower >= 0).all()
    assert (found.upper <= 1).all()
    assert (found.lower <= found.upper).all()
    assert found.mean.shape == found.lower.shape == found.upper.shape == found.point_mean.shape == (24, 3)
    assert found.log_likelihood.shape == (200, 24)


@pytest.mark.parametrize("guide_class", [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace])
def test_linearised_probabilities_are_those_of_a_large_sample(guide_class):
    """E softmax(f), f ~ N(f*, J Λ⁻¹ J'), by 100,000 draws; within five of our own 4,000 draws' standard errors."""
    model, data = small_classifier()
    fit = wiu.fit(model, guide_class(model), data, epochs=0)
    found = predict(fit, data, kind="linearised", num_samples=4000)
    part = next(functional_distribution(fit.model, fit.guide, as_batches(data)))
    generator = np.random.default_rng(0)
    for row in range(0, 24, 6):
        covariance = part.covariance[row].double().numpy()
        draws = generator.multivariate_normal(part.mean[row].numpy(), covariance, 100_000, check_valid="ignore")
        probs = np.exp(draws - np.logaddexp.reduce(draws, axis=1, keepdims=True))
        assert (abs(found.mean[row] - probs.mean(0)) < 5 * probs.std(0) / 4000**0.5).all()
        entropies = -(probs * np.log(probs)).sum(1)
        assert abs(found.expected_entropy[row] - entropies.mean()) < 5 * entropies.std() / 4000**0.5
        # a quantile of 4,000 draws stands at its level within five standard errors of a proportion
        off = 5 * (0.025 * 0.975 / 4000) ** 0.5
        for interval, level in ((found.lower, 0.025), (found.upper, 0.975)):
            below, above = np.quantile(probs, [level - off, level + off], axis=0)
            assert (below <= interval[row]).all()
            assert (interval[row] <= above).all()


def test_sampled_probabilities_are_the_mean_over_the_drawn_networks(classifier):
    fit, (x, y) = classifier
    found = predict(fit, (x, y), kind="sampled", num_samples=20, seed=4)
    probs = torch.stack(
        [
            torch.softmax(torch.func.functional_call(fit.model.net, draw, (x,)), -1)
            for draw in draw_weights(fit, num_samples=20, seed=4)
        ]
    )
    np.testing.assert_allclose(found.mean, probs.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.log_likelihood, probs[:, torch.arange(24), y].log(), rtol=1e-3, atol=1e-5)
    point = torch.softmax(torch.func.functional_call(fit.model.net, fit.point_estimate, (x,)), -1)
    np.testing.assert_allclose(found.point_mean, point, rtol=1e-5)


@pytest.mark.parametrize("guide_class", [AutoKFACLaplace, AutoFullLaplace])
def test_linearised_prediction_of_a_linear_gaussian_network_is_exact(guide_class):
    problem = linear_gaussian()
    fit = wiu.fit(problem.model, guide_class(problem.model), problem.data, epochs=0, start=problem.mean)
    x, y = problem.data
    found = predict(fit, (x, y), num_samples=2000)
    assert found.kind == "linearised"
    jacobian = torch.zeros(len(x), 2, 8, dtype=torch.float64)
    for output in range(2):
        jacobian[:, output, 3 * output : 3 * output + 3] = x
        jacobian[:, output, 6 + output] = 1
    variance = (jacobian @ problem.covariance @ jacobian.mT).diagonal(dim1=1, dim2=2)
    mean = x @ problem.mean["weight"].mT + problem.mean["bias"]
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.functional_variance, variance, rtol=1e-5)
    np.testing.assert_allclose(found.noise_variance, np.full((30, 2), 0.25), rtol=1e-6)
    np.testing.assert_allclose(found.variance, variance + 0.25, rtol=1e-5)
    sd = (variance + 0.25).sqrt().numpy()
    # the se of a 97.5 % quantile of 2,000 draws is 0.060 sd
    assert (abs(found.upper - mean.numpy() - 1.96 * sd) < 5 * 0.06 * sd).all()
    assert (abs(found.lower - mean.numpy() + 1.96 * sd) < 5 * 0.06 * sd).all()
    density = torch.distributions.Normal(mean, torch.as_tensor(sd)).log_prob(y).sum(1)
    predictive = np.logaddexp.reduce(found.log_likelihood.astype(float), axis=0) - np.log(2000)
    assert abs(predictive - density.numpy()).max() < 0.1


def test_noise_scale_with_a_prior_enters_sampled_and_linearised_predictions():
    x = torch.randn(20, 3)
    model = BayesianNetwork(nn.Linear(3, 1), likelihood="normal")
    for guide_class, kind in ((AutoMeanField, "sampled"), (AutoKFACLaplace, "linearised")):
        fit = wiu.fit(model, guide_class(model), (x, x.sum(1)), epochs=1)
        found = predict(fit, (x, x.sum(1)))
        assert found.kind == kind
        np.testing.assert_allclose(found.variance, found.functional_variance + found.noise_variance, rtol=1e-5)
        assert (found.noise_variance > 0).all()
        assert found.predictive_entropy is None


def test_predictions_do_not_depend_on_batches_or_chunks(classifier, monkeypatch):
    fit, data = classifier
    whole = predict(fit, data, kind="sampled", num_samples=10)
    monkeypatch.setitem(predict.__globals__, "CHUNK_ELEMENTS", 1)
    loader = DataLoader(TensorDataset(*data), batch_size=7)
    parts = predict(fit, loader, kind="sampled", num_samples=10)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-4)
    np.testing.assert_allclose(parts.log_likelihood, whole.log_likelihood, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_predictions(kind, classifier):
    fit, data = classifier
    one, other = (predict(fit, data, kind=kind, num_samples=10, seed=2) for _ in range(2))
    np.testing.assert_array_equal(one.mean, other.mean)


@pytest.mark.parametrize(
    ("guide_class", "kind"),
    [(AutoMeanField, "sampled"), (AutoKFACLaplace, "linearised"), (AutoFullLaplace, "linearised")],
)
def test_default_kind_is_linearised_for_laplace_and_sampled_otherwise(guide_class, kind):
    model, data = small_classifier()
    fit = wiu.fit(model, guide_class(model), data, epochs=0)
    assert predict(fit, data[0], num_samples=3).kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_alone_have_predictions_without_a_log_likelihood(kind, classifier):
    fit, (x, _) = classifier
    assert predict(fit, x, kind=kind, num_samples=3).log_likelihood is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "linearized"}, "Unknown kind of predictive 'linearized'. Did you mean 'linearised'"),
        ({"num_samples": 1}, "num_samples must be at least 2 for an interval, but is 1"),
        ({"num_samples": 2.5}, "num_samples must be a whole number, but is 2.5"),
    ],
)
def test_option_that_makes_no_sense_is_refused(options, message, classifier):
    fit, data = classifier
    with pytest.raises(GuideError, match=message):
        predict(fit, data, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_another_size_are_refused_with_the_shape_that_came(kind, classifier):
    fit, (x, _) = classifier
    with pytest.raises(ModelError, match=rf"could not be run on a batch of shapes \(2, {x.shape[1] + 1}\)"):
        predict(fit, torch.zeros(3, x.shape[1] + 1), kind=kind)


def test_guide_in_place_of_its_fit_is_refused(classifier):
    fit, data = classifier
    with pytest.raises(
        GuideError, match="The Fit that wiu_pyro.fit returned is needed, but this is an AutoBlockNormal"
    ):
        predict(fit.guide, data)


def test_linearised_prediction_of_a_mean_field_guide_is_refused():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=0)
    with pytest.raises(GuideError, match='Use kind="sampled"'):
        predict(fit, data, kind="linearised")


def wide_classifier(guide_class=AutoKFACLaplace):
    """Return a fit of separable data whose posterior is wide: sampled networks lose what the point estimate knows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(6, 32, bias=False), nn.Tanh(), nn.Linear(32, 4, bias=False))
    with torch.no_grad():  # two units that tell the classes apart, and thirty that do nothing
        net[0].weight.copy_(3 * torch.eye(32, 6) * (torch.arange(32) < 2)[:, None])
        net[2].weight.zero_()[:, :2] = 5 * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    model = BayesianNetwork(net, prior=wiu.nn.Normal(3.0))
    return wiu.fit(model, guide_class(model), (x, y), epochs=0), (x, y)


def test_sampled_networks_less_accurate_than_the_point_estimate_are_warned_of():
    fit, data = wide_classifier()
    with pytest.warns(UserWarning, match=r'Use the linearised predictive, kind="linearised"') as caught:
        found = predict(fit, data, kind="sampled", num_samples=20)
    labels = data[1].numpy()
    sampled, point = ((values.argmax(1) == labels) for values in (found.mean, found.point_mean))
    difference = point.astype(float) - sampled
    assert difference.mean() > 2 * difference.std(ddof=1) / 200**0.5
    assert f"{100 * sampled.mean():.1f} % of the data right, the point estimate {100 * point.mean():.1f} %" in str(
        caught[0].message
    )
    predict(fit, data)  # the linearised one goes without a warning, as do data without labels
    predict(fit, data[0], kind="sampled", num_samples=20)


def test_mean_field_guide_is_not_told_to_use_a_predictive_it_has_not():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=0)
    predict(fit, (data[0], 1 - data[1].clamp(max=1)), num_samples=2)
