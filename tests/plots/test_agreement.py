"""The figure of an agreement shows the table's correlations, their intervals and the ceilings."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.diagnostics.test_agreement import planted_case
from wiu_pyro import diagnostics, plots


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_marks_stand_at_the_correlations_with_the_reference_and_ticks_at_the_ceilings():
    table = diagnostics.agreement(*planted_case(noise=0.5), num_bootstrap=5)
    figure = plots.agreement(table)
    panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == ["conditional sd", "marginal sd"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["good", "bad"]
    rows = [label.get_text() for label in panels[0].get_yticklabels()]
    assert rows == ["images (function)", "all weights", "fc: weights", "fc: outputs", "fc: inputs"]
    names = ["function_rank", "network_rank", "weight_rank", "output_rank", "input_rank"]
    for panel, kind in zip(panels, ("conditional", "marginal"), strict=True):
        for number, pair in enumerate(table["pair"].values[:2]):
            row = table.sel(pair=pair, layer="fc", kind=kind)
            marks = panel.containers[number].lines[0]
            np.testing.assert_allclose(marks.get_xdata(), [float(row[name]) for name in names])
        ticks = [line for line in panel.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.6]
        ceilings = table.sel(layer="fc", kind=kind).isel(pair=0)
        np.testing.assert_allclose([t.get_xdata()[0] for t in ticks], [float(ceilings[f"{n}_ceiling"]) for n in names])


def test_posterior_that_had_not_converged_is_hollow():
    idatas, reference = planted_case()
    idatas["bad"]["posterior"].attrs["converged"] = "no"
    figure = plots.agreement(idatas, reference=reference)
    marks = [container.lines[0] for container in figure.axes[0].containers]
    assert [mark.get_markerfacecolor() == "white" for mark in marks] == [False, True]


def test_without_a_reference_each_pair_has_its_mark():
    idatas, _ = planted_case()
    figure = plots.agreement(diagnostics.agreement(idatas, num_bootstrap=5))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["good ~ bad"]
