"""Both containers: what ArviZ 0.2x holds in an InferenceData and ArviZ 1.x in a DataTree gives the same answers."""

import numpy as np
import pytest
import xarray as xr

from tests.synthetic import synthetic
from wiu_pyro import diagnostics, plots, schema

IDATA = synthetic(factorised=False).idata
TREE = xr.DataTree(children={name: xr.DataTree(schema.dataset(IDATA, name)) for name in schema.groups(IDATA)})


@pytest.mark.parametrize("name", diagnostics.__all__)
def test_a_datatree_gives_the_same_answer(name):
    question = getattr(diagnostics, name)
    several = name in ("agreement", "compare")
    answer, expected = (question([i, i] if several else i) for i in (TREE, IDATA))
    assert answer.equals(expected)
    assert answer.attrs == expected.attrs


def drawn(result):
    """Return what a plot's artists show: lines, bars, pictures and texts, as plain values."""
    figure = result if hasattr(result, "axes") and isinstance(result.axes, list) else result.figure
    shown = []
    for ax in figure.axes:
        shown += [line.get_xydata().tolist() for line in ax.lines]
        shown += [patch.get_path().vertices.tolist() for patch in ax.patches]
        shown += [np.ma.filled(image.get_array(), -1).tolist() for image in ax.images]
        shown += [
            np.ma.filled(mesh.get_array(), -1).tolist() for mesh in ax.collections if mesh.get_array() is not None
        ]
        shown += [text.get_text() for text in ax.texts + [ax.title, ax.xaxis.label]]
    return shown


@pytest.mark.parametrize("kind", sorted(plots.KINDS))
def test_a_datatree_can_be_drawn(kind):
    shown = drawn(plots.KINDS[kind](TREE))
    assert shown
    assert str(shown) == str(drawn(plots.KINDS[kind](IDATA)))  # as text: NaN equals itself
