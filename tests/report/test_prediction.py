"""What the report says of predictions that lose something, and of how class probabilities came about."""

from __future__ import annotations

import dataclasses

from tests.report.pictures import unpictured
from tests.report.test_page import kfac, mean_field
from wiu_pyro import schema
from wiu_pyro.export.container import build
from wiu_pyro.report.prediction import prediction_section, prediction_tables


def changed(posterior, rename=None, **attrs):
    """Return a posterior whose predictive has another kind, or other attributes."""
    content = {name: schema.dataset(posterior.idata, name) for name in schema.groups(posterior.idata)}
    content = {(rename or {}).get(name, name): data for name, data in content.items()}
    for name in content:
        if name.startswith("predictive_"):
            content[name] = content[name].assign_attrs(**attrs)
    return dataclasses.replace(posterior, idata=build(content))


def notes(posterior) -> str:
    return " ".join(prediction_tables([posterior])[0].notes)


def test_sampled_networks_of_a_laplace_posterior_that_lose_accuracy_are_named():
    linearised = kfac(noise=8.0)
    sampled = changed(linearised, {"predictive_linearised": "predictive_sampled"})
    group = schema.dataset(sampled.idata, "predictive_sampled")
    labels = schema.dataset(sampled.idata, "observed_data")["obs"].values
    hits = [group[name].values[0].argmax(-1) == labels for name in ("point_mean", "mean")]
    lost = hits[0].astype(float) - hits[1]
    se = lost.std(ddof=1) / lost.size**0.5
    assert lost.mean() > 2 * se
    figures = f"by {100 * lost.mean():.2f} ± {100 * se:.2f} points"
    assert f"than by the point estimate: {sampled.name} {figures}" in notes(sampled)
    assert "use the linearised predictive" in notes(sampled)
    assert "Fewer images right" not in notes(linearised)
    assert "Fewer images right" not in notes(mean_field(noise=8.0))  # sampled networks are all it has


def test_link_of_a_closed_form_predictive_is_named(monkeypatch):
    unpictured(monkeypatch)
    intro = " ".join(prediction_section([mean_field(), changed(kfac(), link="probit")]).intro)
    assert "class probabilities by the probit approximation" in intro
    assert intro.count("probit") == 1
