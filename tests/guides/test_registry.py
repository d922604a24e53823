"""Guides by their short names."""

from __future__ import annotations

import pytest
from pyro.infer import autoguide

from wiu_pyro import guides
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import by_name, known_guides


@pytest.mark.parametrize(
    ("name", "guide"),
    [
        ("mean-field", guides.AutoMeanField),
        ("ivon", guides.AutoIVON),
        ("low-rank", guides.AutoLowRank),
        ("matrix-normal", guides.AutoMatrixNormal),
        ("laplace-diag", guides.AutoDiagonalLaplace),
        ("laplace-kfac", guides.AutoKFACLaplace),
        ("laplace-full", guides.AutoFullLaplace),
        ("laplace-ekfac", guides.AutoEKFACLaplace),
        ("laplace-block", guides.AutoBlockDiagonalLaplace),
        ("laplace-last", guides.AutoLastLayerLaplace),
        ("laplace-subnetwork", guides.AutoSubnetworkLaplace),
        ("auto-normal", autoguide.AutoNormal),
        ("auto-low-rank", autoguide.AutoLowRankMultivariateNormal),
        ("auto-laplace", autoguide.AutoLaplaceApproximation),
    ],
)
def test_guide_is_found_by_its_name(name, guide):
    assert by_name(name) is guide


def test_every_guide_with_a_name_of_its_own_is_known():
    named = {
        getattr(guides, name).__dict__["cli_name"]
        for name in guides.__all__
        if isinstance(getattr(guides, name), type) and getattr(guides, name).__dict__.get("cli_name")
    }
    assert named <= set(known_guides())


def test_unknown_guide_is_refused_with_the_near_matches():
    with pytest.raises(GuideError, match="Unknown guide 'laplace-kfak'. Did you mean 'laplace-kfac'"):
        by_name("laplace-kfak")
