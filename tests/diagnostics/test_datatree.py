"""Both containers: what ArviZ 0.2x holds in an InferenceData and ArviZ 1.x in a DataTree gives the same answers."""

import pytest
import xarray as xr

from tests.synthetic import synthetic
from wiu_pyro import diagnostics, plots, schema

IDATA = synthetic(factorised=False).idata
TREE = xr.DataTree(children={name: xr.DataTree(schema.dataset(IDATA, name)) for name in schema.groups(IDATA)})


@pytest.mark.parametrize("name", diagnostics.__all__)
def test_a_datatree_gives_the_same_answer(name):
    question = getattr(diagnostics, name)
    several = name == "compare"
    answer, expected = (question([i, i] if several else i) for i in (TREE, IDATA))
    assert answer.equals(expected)
    assert answer.attrs == expected.attrs


@pytest.mark.parametrize("kind", sorted(plots.KINDS))
def test_a_datatree_can_be_drawn(kind):
    assert plots.KINDS[kind](TREE) is not None
