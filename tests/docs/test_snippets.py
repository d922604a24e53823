"""The examples of the page Extending do what the page says."""

import runpy
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

import wiu_pyro as wiu
from tests.synthetic import synthetic
from wiu_pyro import schema
from wiu_pyro.errors import SchemaError
from wiu_pyro.export import container

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets"


@pytest.fixture(scope="module")
def new_guide():
    return runpy.run_path(str(SNIPPETS / "new_guide.py"))["AutoSiteScale"]


@pytest.mark.training
def test_new_guide_fits_exports_and_learns_one_ratio_per_site(new_guide):
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    model = wiu.nn.BayesianNetwork(torch.nn.Linear(3, 2))
    data = (x, (x[:, 0] > 0).long())
    fit = wiu.fit(model, new_guide(model), data, epochs=60, learning_rate=0.03)
    assert fit.losses[-1] < fit.losses[0]
    idata = wiu.to_inference_data(fit, data, num_samples=30)
    moments = schema.dataset(idata, "moments_net")
    assert moments.attrs["moments"] == "exact"
    ratios = moments["sd"] / moments["prior_sd"]
    np.testing.assert_allclose(ratios, ratios.values.flat[0], rtol=1e-5)
    assert schema.attrs(idata)["approximation"] == "site-scale"


@pytest.fixture(scope="module")
def undecided_signs():
    return runpy.run_path(str(SNIPPETS / "new_diagnostic.py"))["undecided_signs"]


def test_every_snippet_is_shown_on_a_page():
    pages = [path.read_text() for path in (SNIPPETS.parent / "extending.rst", *SNIPPETS.parent.glob("howto/*.rst"))]
    assert all(any(f"snippets/{path.name}" in page for page in pages) for path in SNIPPETS.glob("*.py"))


def test_new_diagnostic_counts_draws_on_the_other_side_of_zero(undecided_signs):
    idata = synthetic(num_chains=2).idata
    result = undecided_signs(idata, level=0.3)["undecided"]
    assert result.dims == ("chain", "layer")
    assert result["layer"].values.tolist() == ["fc1", "fc2", "out"]
    moments = schema.dataset(idata, "moments_fc1")
    mean, sd = moments["mean"].values[1], moments["sd"].values[1]
    draws = mean + sd * np.random.default_rng(0).standard_normal((20_000, *mean.shape))
    other_sign = (np.sign(draws) != np.sign(mean)).mean(0)
    sure = np.abs(other_sign - 0.3) > 4 * np.sqrt(0.3 * 0.7 / 20_000)  # not within the draws' own noise of the level
    share = (other_sign >= 0.3).mean()
    assert result.values[1, 0] == pytest.approx(share, abs=(~sure).mean())


def test_new_diagnostic_finds_every_sign_undecided_under_the_prior(undecided_signs):
    idata = synthetic().idata
    groups = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    for layer in schema.layer_names(idata):
        moments = groups[schema.moments_group(layer)]
        groups[schema.moments_group(layer)] = moments.assign(mean=moments["mean"] * 0)
    assert (undecided_signs(container.build(groups))["undecided"] == 1).all()


@pytest.mark.parametrize("level", [0, 0.6])
def test_new_diagnostic_refuses_a_level_outside_its_range(undecided_signs, level):
    with pytest.raises(SchemaError, match="level above 0 and at most 0.5"):
        undecided_signs(synthetic().idata, level=level)


@pytest.mark.training
def test_network_of_pyros_tutorials_trains_under_the_handler_and_predicts_without():
    train = runpy.run_path(str(SNIPPETS / "tutorial_network.py"))["train"]
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    x = torch.randn(40, 3)
    y = x.sum(1)
    losses, predictive = train(x, y, num_hidden=8, num_steps=200)
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
    assert predictive(x)["obs"].shape == (100, 40)
