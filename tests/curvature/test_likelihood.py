"""Square roots of output Hessians and residuals against automatic differentiation."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from wiu_pyro.curvature import BernoulliOutput, CategoricalOutput, NormalOutput, read
from wiu_pyro.errors import LikelihoodError

OUTPUT = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.tensor([0, 2, 1, 1, 0])
BITS = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.float64)
TARGETS = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)
NOISE = torch.tensor([0.3, 0.5, 2.0], dtype=torch.float64)

CASES = {
    "categorical": (CategoricalOutput(OUTPUT), lambda f, y: -td.Categorical(logits=f).log_prob(y), CLASSES),
    "bernoulli": (BernoulliOutput(OUTPUT), lambda f, y: -td.Bernoulli(logits=f).log_prob(y).sum(-1), BITS),
    "normal": (NormalOutput(OUTPUT, NOISE), lambda f, y: -td.Normal(f, NOISE).log_prob(y).sum(-1), TARGETS),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_sqrt_hessian_squares_to_the_hessian_of_the_loss(case):
    likelihood, loss, labels = case
    roots = likelihood.sqrt_hessian()  # (columns, batch, outputs)
    found = torch.einsum("kni,knj->nij", roots, roots)
    expected = torch.stack([torch.func.hessian(loss)(output, label) for output, label in zip(OUTPUT, labels)])
    torch.testing.assert_close(found, expected)


def test_columns_come_in_slices(case):
    likelihood, *_ = case
    roots = likelihood.sqrt_hessian()
    assert len(roots) == likelihood.num_columns
    for start in range(likelihood.num_columns):
        torch.testing.assert_close(likelihood.sqrt_hessian(slice(start, start + 1)), roots[start : start + 1])
    torch.testing.assert_close(likelihood.sqrt_hessian(slice(1, 7)), roots[1:])


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_categorical_needs_a_column_less_than_it_has_classes(num_classes):
    output = torch.randn(4, num_classes, generator=torch.Generator().manual_seed(0))
    assert CategoricalOutput(output).sqrt_hessian().shape == (num_classes - 1, 4, num_classes)


def test_single_class_has_no_curvature():
    assert not CategoricalOutput(torch.randn(4, 1)).sqrt_hessian().any()


@pytest.mark.parametrize("spread", [1.0, 20.0, 80.0, 300.0])
def test_columns_of_a_sure_network_keep_their_relative_precision(spread):
    """In float32, with probabilities down to underflow, against float64; p − p² would lose all digits."""
    output = spread * torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    roots = CategoricalOutput(output).sqrt_hessian()
    assert torch.isfinite(roots).all()
    probs = torch.softmax(output.double(), -1)
    others = torch.stack([probs[:, [j for j in range(6) if j != k]].sum(-1) for k in range(6)], -1)
    kept = probs * others > 1e-30
    found = roots.double().square().sum(0)
    torch.testing.assert_close(found[kept], (probs * others)[kept], rtol=2e-4, atol=0.0)


def test_residual_is_the_gradient_of_the_loss(case):
    likelihood, loss, labels = case
    expected = torch.stack([torch.func.grad(loss)(output, label) for output, label in zip(OUTPUT, labels)])
    torch.testing.assert_close(likelihood.residual(labels), expected)


def test_mean_square_of_sampled_residuals_is_the_hessian(case):
    """The Fisher matrix of these likelihoods is their Hessian: E[r r'] = H. Within five standard errors."""
    likelihood, *_ = case
    generator = torch.Generator().manual_seed(1)
    residuals = likelihood.columns("fisher_mc", labels=None, num_samples=4000, generator=generator) * 4000**0.5
    products = torch.einsum("kni,knj->knij", residuals, residuals)
    roots = likelihood.sqrt_hessian()
    expected = torch.einsum("kni,knj->nij", roots, roots)
    error = products.std(0) / 4000**0.5
    assert ((products.mean(0) - expected).abs() <= 5 * error + 1e-12).all()


def test_one_hot_labels_have_the_residual_of_their_class():
    likelihood = CASES["categorical"][0]
    one_hot = torch.nn.functional.one_hot(CLASSES, 3)
    torch.testing.assert_close(likelihood.residual(one_hot), likelihood.residual(CLASSES))


@pytest.mark.parametrize(
    ("distribution", "kind", "output"),
    [
        (dist.Categorical(logits=OUTPUT), "categorical", torch.log_softmax(OUTPUT, -1)),
        (dist.Categorical(probs=torch.softmax(OUTPUT, -1)), "categorical", torch.log_softmax(OUTPUT, -1)),
        (dist.OneHotCategorical(logits=OUTPUT), "categorical", torch.log_softmax(OUTPUT, -1)),
        (dist.Bernoulli(logits=OUTPUT).to_event(1), "bernoulli", OUTPUT),
        (dist.Bernoulli(logits=OUTPUT[:, 0]), "bernoulli", OUTPUT[:, :1]),
        (dist.Normal(OUTPUT, 0.5).to_event(1), "normal", OUTPUT),
        (dist.Normal(OUTPUT[:, 0], 0.5), "normal", OUTPUT[:, :1]),
    ],
)
def test_likelihood_is_read_off_the_observed_distribution(distribution, kind, output):
    likelihood = read(distribution)
    assert likelihood.kind == kind
    torch.testing.assert_close(likelihood.output, output)


def test_noise_of_a_normal_likelihood_is_read_for_each_output():
    torch.testing.assert_close(read(dist.Normal(OUTPUT, NOISE).to_event(1)).noise_scale, NOISE.expand(5, 3))


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (dist.Poisson(torch.ones(3)), "knows the likelihoods Categorical, .* but the observed site has a Poisson"),
        (dist.StudentT(3.0, torch.zeros(3)), "the observed site has a StudentT"),
        (dist.LogNormal(torch.zeros(3), 1.0), "the observed site has a LogNormal"),
        (dist.Categorical(logits=torch.zeros(2, 5, 3)), r"logits have shape \(2, 5, 3\)"),
        (dist.Normal(torch.zeros(3), torch.ones(3, requires_grad=True)), "noise scale that does not depend on"),
    ],
)
def test_likelihood_it_does_not_know_is_refused(distribution, message):
    with pytest.raises(LikelihoodError, match=message):
        read(distribution)


def test_unknown_curvature_is_refused():
    with pytest.raises(LikelihoodError, match="Unknown curvature 'gnn'. Known: ggn, fisher_mc, fisher_empirical"):
        CASES["normal"][0].columns("gnn", labels=None)


def test_empirical_fisher_without_labels_is_refused():
    with pytest.raises(LikelihoodError, match="empirical Fisher needs labels"):
        CASES["normal"][0].columns("fisher_empirical", labels=None)
