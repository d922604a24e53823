"""Draws gone through block by block are those of the guide, and so is what is summed over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import wiu_pyro as wiu
from tests.export.conftest import make_data, make_model
from wiu_pyro.export import block_draws
from wiu_pyro.export.block_draws import read_blocks
from wiu_pyro.infer import draw_weights
from wiu_pyro.schema import dataset

GUIDES = {
    "mean field": ("AutoMeanField", {}),
    "mean field with points": ("AutoMeanField", {"point": "out"}),
    "diagonal": ("AutoDiagonalLaplace", {}),
    "kfac": ("AutoKFACLaplace", {}),
    "ekfac": ("AutoEKFACLaplace", {}),
    "full": ("AutoFullLaplace", {}),
    "last layer": ("AutoLastLayerLaplace", {}),
    "subnetwork": ("AutoSubnetworkLaplace", {"num_weights": 11}),
    "tuned prior": ("AutoKFACLaplace", {"tune_prior": "marginal-likelihood", "tune_per": "site"}),
}
NUM_DRAWS = 6

pytestmark = pytest.mark.filterwarnings("ignore:The posterior's prior is the model's:UserWarning")


@pytest.fixture(scope="module", params=GUIDES.values(), ids=GUIDES)
def fit(request: pytest.FixtureRequest) -> Any:
    name, options = request.param
    model = make_model(prior={"fc1.bias": wiu.nn.Normal(0.5, loc=0.2), "*": wiu.nn.FanInNormal()})
    return wiu.fit(model, getattr(wiu.guides, name)(model, **options), make_data(), epochs=3, progress=False)


@pytest.fixture(params=[2**23, 40], ids=["at once", "some at a time"])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_draws, "BATCH_ELEMENTS", request.param)


def exported(fit: Any, **options: Any) -> Any:
    assert read_blocks(fit.guide, fit.structure) is not None
    return wiu.to_inference_data(fit, num_samples=NUM_DRAWS, seed=4, **options)


@pytest.mark.parametrize("kept", [None, 3], ids=["all weights", "three of each"])
def test_kept_draws_are_those_of_the_guide(fit: Any, batches: None, kept: int | None) -> None:
    idata = exported(fit, max_weights_per_layer=kept)
    for number, weights in enumerate(draw_weights(fit, num_samples=NUM_DRAWS, seed=4)):
        for layer in ("fc1", "out"):
            for name in ("weight", "bias"):
                found = dataset(idata, f"layer_{layer}")[name].isel(chain=0, draw=number)
                expected = weights[f"{layer}.{name}"].numpy()
                if f"{layer}_{name}" in found.dims:
                    expected = expected.reshape(-1)[found[f"{layer}_{name}"].values]
                np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)


def test_sums_over_the_weights_are_those_of_the_draws(fit: Any, batches: None) -> None:
    idata, structure = exported(fit), fit.structure
    moments = {name: dataset(idata, f"moments_{name}") for name in ("fc1", "out")}
    for number, weights in enumerate(draw_weights(fit, num_samples=NUM_DRAWS, seed=4)):
        stats = dataset(idata, "sample_stats").isel(chain=0, draw=number)
        log_prior = sum(float(structure.priors[site].log_prob(value).sum()) for site, value in weights.items())
        assert float(stats.log_prior) == pytest.approx(log_prior, rel=1e-4)
        assert float(stats.log_q) == pytest.approx(fit.guide.log_prob(weights).item(), rel=1e-4, abs=1e-2)
        for layer, data in moments.items():
            total, count = 0.0, 0
            for name, prefix in {"weight": "", "bias": "bias_"}.items():
                mean, sd, prior_sd = (data[f"{prefix}{part}"].values for part in ("mean", "sd", "prior_sd"))
                total += np.square((weights[f"{layer}.{name}"].numpy() - mean[0]) / prior_sd).sum()
                count += int((sd > 0).sum())
            found = dataset(idata, "posterior").deviation_rms.isel(chain=0, draw=number).sel(layer=layer)
            assert float(found) == pytest.approx(np.sqrt(total / max(count, 1)), rel=1e-4, abs=1e-6)


def test_no_draw_of_the_whole_network_is_made(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(fit.guide), "forward", lambda *_: pytest.fail("drew all weights"))
    assert exported(fit) is not None


def test_other_guides_and_priors_are_gone_through_draw_by_draw() -> None:
    model = make_model(prior=wiu.nn.Laplace(1.0))
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), make_data(), epochs=1, progress=False)
    assert read_blocks(fit.guide, fit.structure) is None
    assert read_blocks(wiu.guides.AutoKFACLaplace(model), fit.structure) is None


def test_the_random_state_is_left_alone(fits: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    wiu.to_inference_data(fits["AutoKFACLaplace"], num_samples=2)
    assert torch.equal(torch.get_rng_state(), before)
