"""Against an improper prior: what compares with its sd is refused with the reason, the rest is there."""

from __future__ import annotations

import numpy as np
import pytest

from tests.synthetic import synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import SchemaError
from wiu_pyro.export.container import build

REASON = "the prior is improper"


@pytest.fixture(scope="module")
def improper():
    """A file whose weights, not its biases, have an improper prior."""
    idata = synthetic().idata
    content = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    for name, data in content.items():
        if name.startswith("moments_"):
            prior_sd = np.float32(np.nan) * data["prior_sd"]
            content[name] = data.assign(prior_sd=prior_sd.assign_attrs(reason=REASON))
    found = build(content)
    schema.validate(found)
    return found


@pytest.mark.parametrize(
    "name", ["between_layers", "within_layer", "identification", "magnitude", "input_map", "weight_distribution"]
)
def test_comparison_with_the_prior_is_refused(improper, name):
    with pytest.raises(SchemaError, match=r"A prior with an sd is needed, .* but that of layer '.*' is improper"):
        getattr(diagnostics, name)(improper)


@pytest.mark.parametrize("quantity", ["sd_to_prior", "contraction"])
def test_map_relative_to_the_prior_is_refused(improper, quantity):
    with pytest.raises(SchemaError, match=f"A prior with an sd is needed for '{quantity}'"):
        diagnostics.weight_map(improper, quantity=quantity)


def test_what_needs_no_prior_is_there(improper):
    assert np.isfinite(diagnostics.weight_map(improper, quantity="signal_to_noise")["value"]).any()
    assert diagnostics.weight_distribution(improper, metric="signal_to_noise")["q50"].notnull().all()


def test_layer_table_has_nan_with_the_reason(improper):
    table = diagnostics.layer_uncertainty(improper)
    for name in ("sd_to_prior", "contraction"):
        assert table[name].isnull().all()
        assert REASON in table[name].attrs["reason"]
    assert table["snr_q50"].notnull().all()
    assert table["kl"].notnull().all()


def test_statement_says_why_the_data_cannot_be_said_to_determine_anything(improper):
    said = diagnostics.layer_statement(diagnostics.layer_uncertainty(improper))
    assert said.startswith("Its sds do not say what the data determine: the prior is improper")
    table = diagnostics.layer_uncertainty(synthetic().idata)
    table.attrs |= {"sd_learned": 0, "sd_of": "a wheel of fortune"}
    assert "they are those of a wheel of fortune" in diagnostics.layer_statement(table)


def test_proper_prior_gives_no_reason():
    assert "reason" not in diagnostics.layer_uncertainty(synthetic().idata)["contraction"].attrs
