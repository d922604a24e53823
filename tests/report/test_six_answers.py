"""What the page leads with: six cards, each saying the opening of a statement, and the network."""

from __future__ import annotations

import re
from functools import partial

import pytest

from tests.report.pictures import unpictured
from tests.stochastic_tables import stochastic_table
from tests.synthetic import CONV_LAYERS, hold, synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.export.container import build
from wiu_pyro.report import Posterior, render
from wiu_pyro.report.six_answers import network_figure, six_answers

KFAC = Posterior.read("laplace-kfac", synthetic(seed=3, factorised=False).idata)
MEAN_FIELD = Posterior.read("mean-field", synthetic(seed=1).idata)
UNSETTLED = Posterior.read("laplace-kfac", synthetic(seed=3, factorised=False, converged="no").idata)


@pytest.fixture
def undrawn(monkeypatch):
    unpictured(monkeypatch)


@pytest.mark.usefixtures("undrawn")
def test_there_are_six_questions_in_their_order_and_each_posterior_answers():
    cards = six_answers([MEAN_FIELD, KFAC])
    words = ("layers differ", "within a layer", "training", "size of a weight", "unidentified", "last layer")
    assert len(cards) == 6
    for card, word in zip(cards, words, strict=True):
        assert word in card.question
    assert {name for name, _ in cards[3].findings} in ({"mean-field", "laplace-kfac"}, {"mean-field, laplace-kfac"})


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("place", "name", "say"),
    [
        (0, "between_layers", partial(diagnostics.between_statement, metric="conditional_contraction")),
        (1, "within_layer", partial(diagnostics.within_statement, quantity="log_conditional_sd_to_prior")),
        (3, "magnitude", diagnostics.magnitude_statement),
        (4, "identification", diagnostics.identification_statement),
    ],
)
def test_a_finding_is_the_opening_of_the_diagnostics_own_statement(place, name, say):
    ((who, text),) = six_answers([KFAC])[place].findings
    assert who == "laplace-kfac"
    assert text.endswith(".")
    assert say(KFAC.asked(name)).startswith(text)


@pytest.mark.usefixtures("undrawn")
def test_posteriors_that_say_the_same_share_a_line():
    twin = Posterior("twin", KFAC.idata, KFAC.attrs, KFAC.table)
    assert [name for name, _ in six_answers([KFAC, twin])[1].findings] == ["laplace-kfac, twin"]


@pytest.mark.usefixtures("undrawn")
def test_a_question_without_data_says_what_to_run_and_leads_nowhere():
    cards = six_answers([KFAC])
    assert cards[5].findings == cards[5].links == ()
    assert cards[5].unanswered == (("Not tried. Try it with:", "wiu stochastic-layers DIR"),)
    assert [command for _, command in cards[4].unanswered] == ["wiu run --prune --overwrite"]
    assert cards[4].links == (("identification", "unidentified weights"),)


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_kept_no_figures_of_its_training_is_told_how_to_keep_them():
    groups = {name: schema.dataset(KFAC.idata, name) for name in schema.groups(KFAC.idata) if name != "training"}
    card = six_answers([Posterior.read("laplace-kfac", build(groups))])[2]
    assert [command for _, command in card.unanswered] == ["wiu run --track-every 1 --overwrite"]
    assert card.links == ()


def test_a_card_shows_the_intervention_that_was_made():
    table = stochastic_table()
    card = six_answers([KFAC], stochastic={"laplace-kfac": table})[5]
    ((_, text),) = card.findings
    assert diagnostics.stochastic_layers_statement(table).startswith(text)
    assert card.links == (("last-layer", "all sets of layers"),)
    assert card.figure.name == "laplace-kfac"
    assert card.unanswered == ()


@pytest.mark.slow
def test_every_card_with_a_finding_has_its_figure():
    for card in six_answers([MEAN_FIELD, KFAC]):
        assert (card.figure is not None) == bool(card.findings), card.question


def test_the_network_is_drawn_by_a_converged_posterior_over_most_layers_with_correlations_where_there_is_one():
    part = Posterior.read("laplace-last", hold(synthetic(seed=3, factorised=False).idata, "fc1"))
    assert network_figure([part, MEAN_FIELD, KFAC]).name == "laplace-kfac"
    assert network_figure([UNSETTLED, MEAN_FIELD]).name == "mean-field"
    assert network_figure([UNSETTLED]).name == "laplace-kfac (not converged)"
    assert network_figure([]) is None


@pytest.mark.usefixtures("undrawn")
def test_the_cards_come_after_the_headline_and_before_everything_else():
    html = render([MEAN_FIELD, KFAC], {})
    order = re.findall(r'section id="([\w-]+)"', html)
    assert order[:3] == ["answer", "questions", "setup"]
    assert html.count('class="card"') == 6


@pytest.mark.usefixtures("undrawn")
def test_without_a_posterior_there_are_no_cards():
    html = render([], {})
    assert six_answers([]) == []
    assert 'id="questions"' not in html
    assert 'href="#questions"' not in html


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("options", [{"layers": CONV_LAYERS}, {"num_chains": 2}, {"estimated": True}])
def test_all_links_of_the_cards_lead_to_a_section(options):
    html = render([Posterior.read("mean-field", synthetic(**options).idata)], {})
    assert set(re.findall(r'href="#([\w-]+)"', html)) == set(re.findall(r'section id="([\w-]+)"', html))
