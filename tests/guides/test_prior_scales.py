"""Multipliers of the prior: which sites share one, and the words for them."""

from __future__ import annotations

import pytest
import torch

from wiu_pyro.guides import PriorRecord, PriorTuning
from wiu_pyro.guides.prior_scales import groups_of, match_scales, scaled_structure
from wiu_pyro.nn import inspect_model
from wiu_pyro.testing.toys import small_classifier

SITES = ["0.weight", "0.bias", "2.weight", "2.bias"]


@pytest.fixture
def structure():
    model, data = small_classifier()
    return inspect_model(model, *data)


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        ("network", {"network": tuple(SITES)}),
        ("layer", {"0": ("0.weight", "0.bias"), "2": ("2.weight", "2.bias")}),
        ("site", {site: (site,) for site in SITES}),
    ],
)
def test_groups_are_the_network_the_layers_or_the_sites(structure, per, expected):
    assert groups_of(structure, SITES, per) == expected


def test_first_pattern_wins_by_site_or_layer(structure):
    found = match_scales({"0.bias": 2.0, "0": 3.0, "*.bias": 4.0}, structure, SITES)
    assert found == {"0.bias": ("0.bias", 2.0), "0.weight": ("0", 3.0), "2.bias": ("*.bias", 4.0)}


def test_scaled_priors_keep_their_mean(structure):
    before, after = structure.priors["0.weight"], scaled_structure(structure, {"0.weight": 0.5}).priors["0.weight"]
    torch.testing.assert_close(after.mean, before.mean)
    torch.testing.assert_close(after.stddev, 0.5 * before.stddev)
    assert after.event_shape == before.event_shape


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (PriorRecord(), ""),
        (PriorRecord(scales={"a": 1.0}), ""),
        (PriorRecord(scales={"a": 0.5, "b": 0.5}), "sd × 0.5, set by hand"),
        (PriorRecord(scales={"a": 0.5, "b": 2.0}), "sd × 0.5 (a), 2 (b), set by hand"),
        (
            PriorRecord(groups={"network": 0.25}, tuning=PriorTuning()),
            "sd × 0.25, tuned by marginal likelihood, after the fit",
        ),
        (
            PriorRecord(groups={"0": 0.25, "2": 3.0}, tuning=PriorTuning(per="layer", when="online")),
            "sd × 0.25 (0), 3 (2), tuned by marginal likelihood, during training",
        ),
    ],
)
def test_record_says_in_words_how_the_prior_differs(record, text):
    assert record.describe() == text


@pytest.mark.parametrize(
    ("scales", "trained", "consistent"),
    [({}, {}, True), ({"a": 2.0}, {}, False), ({"a": 2.0}, {"a": 2.0}, True), ({}, {"a": 2.0}, False)],
)
def test_record_knows_whether_the_weights_were_trained_under_the_prior(scales, trained, consistent):
    assert PriorRecord(scales=scales, trained=trained).consistent is consistent
