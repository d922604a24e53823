from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from wiu_pyro.report.posterior import Posterior, convergence_sentence
from wiu_pyro.report.run_answer import answer, rank_agreement

LAYERS = ("fc1", "fc2", "out")


def posterior(name, contraction, *, conditional=None, converged="yes", **attrs):
    table = xr.Dataset(
        {"contraction": ("layer", list(contraction))}, coords={"layer": list(LAYERS[: len(contraction)])}
    )
    if conditional is not None:
        table["conditional_contraction"] = ("layer", list(conditional))
    return Posterior(name, None, {"converged": converged, "temperature": 1.0} | attrs, table)


def test_headline_names_the_layer_with_least_contraction_when_all_agree():
    said = answer([posterior("mean-field", [0.2, 0.5, 0.9]), posterior("laplace-diag", [0.3, 0.4, 0.8])])
    assert "'fc1'" in said.headline
    assert "(mean-field, laplace-diag)" in said.headline
    assert "They agree on the ranking from most to least determined: 'out' > 'fc2' > 'fc1'" in said.text


def test_disagreement_names_the_pair_of_layers_and_each_posteriors_choice():
    said = answer([posterior("mean-field", [0.2, 0.5, 0.9]), posterior("laplace-diag", [0.6, 0.5, 0.9])])
    assert "depends on the posterior asked" in said.headline
    assert "'fc2' by laplace-diag" in said.headline
    assert "do not agree" in said.text
    assert "'fc1' against 'fc2'" in said.text


def test_differences_below_a_hundredth_are_ties_and_no_disagreement():
    sentence = rank_agreement([posterior("a", [0.500, 0.505, 0.9]), posterior("b", [0.505, 0.500, 0.9])])
    assert sentence.startswith("They agree")


def test_a_posterior_that_tells_no_layers_apart_neither_agrees_nor_disagrees():
    flat = posterior("mean-field", [0.976, 0.976, 0.979])
    assert "agree" not in answer([posterior("laplace-diag", [0.2, 0.5, 0.9]), flat]).text
    assert answer([flat]).headline.startswith("No layer stands out")


def test_a_posterior_with_correlations_is_ranked_by_its_conditional_contraction():
    kfac = posterior("laplace-kfac", [0.3, 0.2, 0.1], conditional=[0.2, 0.5, 0.9])
    assert "They agree" in rank_agreement([posterior("laplace-diag", [0.2, 0.5, 0.9]), kfac])


def test_each_posterior_has_a_line_with_its_conditional_figures_and_the_marginal_ones_named_as_such():
    kfac = posterior("laplace-kfac", [0.037, 0.06, 0.092], conditional=[0.181, 0.3, 0.461])
    said = answer([posterior("mean-field", [0.095, 0.15, 0.206]), kfac])
    assert dict(said.lines) == {
        "mean-field": "9.5 % in 'fc1', 20.6 % in 'out'",
        "laplace-kfac": "18.1 % in 'fc1', 46.1 % in 'out' (marginal: 3.7 % and 9.2 %)",
    }
    assert "conditional contraction" in said.basis


def test_a_posterior_with_correlations_but_no_conditional_sds_is_said_to_be_marginal():
    estimated = posterior("mcmc", [0.1, 0.5, 0.9])
    estimated.table.attrs["factorised"] = 0
    said = answer([estimated, posterior("laplace-diag", [0.2, 0.5, 0.9])])
    assert "marginal" in dict(said.lines)["mcmc"]
    assert "of mcmc by the marginal one" in said.sentences[0]


def test_posteriors_that_differ_by_a_factor_are_a_caveat_on_the_size():
    near = answer([posterior("a", [0.20, 0.5, 0.9]), posterior("b", [0.25, 0.5, 0.9])])
    far = answer([posterior("a", [0.20, 0.5, 0.9]), posterior("b", [0.45, 0.6, 0.9])])
    assert not any("depends on the approximation" in caveat for caveat in near.caveats)
    (caveat,) = [caveat for caveat in far.caveats if "depends on the approximation" in caveat]
    assert "of 'fc1' 20.0 % by a, 45.0 % by b" in caveat


def test_an_unconverged_posterior_is_left_out_of_the_ranking_and_said_to_be():
    said = answer(
        [posterior("mean-field", [0.9, 0.5, 0.1], converged="no"), posterior("laplace-diag", [0.2, 0.5, 0.9])]
    )
    assert said.headline.count("'fc1'") == 1
    assert "do not agree" not in said.text
    assert any("Not converged: mean-field" in caveat and "left out" in caveat for caveat in said.caveats)


def test_when_nothing_converged_the_ranking_is_called_provisional():
    said = answer([posterior("mean-field", [0.9, 0.5, 0.1], converged="no")])
    assert any("provisional" in caveat for caveat in said.caveats)


def test_layers_kept_as_point_estimates_are_not_ranked():
    said = answer([posterior("laplace-kfac", [np.nan, 0.5, 0.9])])
    assert "'fc2'" in said.headline


def test_only_point_estimates_give_no_ranking():
    assert "nothing" not in answer([posterior("a", [np.nan, np.nan])]).headline
    assert "point estimates" in answer([posterior("a", [np.nan, np.nan])]).headline


def test_one_layer_gives_no_ranking():
    assert "nothing to rank" in answer([posterior("a", [0.4])]).headline


def test_no_posterior_gives_no_answer():
    assert answer([]).headline == "There is no posterior to answer from."


def test_a_tempered_posterior_and_uncovered_weights_are_caveats():
    said = answer([posterior("a", [0.4, 0.5], temperature=0.1, not_covered="bn.weight")])
    assert any("T = 0.1" in caveat for caveat in said.caveats)
    assert any("bn.weight" in caveat for caveat in said.caveats)


@pytest.mark.parametrize(
    ("attrs", "sentence"),
    [
        ({"converged": "yes", "convergence_detail": "-ELBO changed by 0.1 %"}, "Converged: -ELBO changed by 0.1 %."),
        (
            {"converged": "no", "convergence_change": 0.08, "convergence_threshold": 0.01},
            "Not converged: the loss changed by 8.00 % over the last tenth of the epochs (limit 1.00 %).",
        ),
        ({"converged": "not assessed", "convergence_change": float("nan")}, "Convergence not assessed."),
    ],
)
def test_convergence_is_said_with_the_figure_it_rests_on(attrs, sentence):
    assert convergence_sentence(attrs) == sentence


def test_a_posterior_over_fewer_layers_takes_no_part_in_the_ranking():
    said = answer([posterior("laplace-kfac", [0.2, 0.5, 0.9]), posterior("laplace-last", [np.nan, np.nan, 0.1])])
    assert "'fc1'" in said.headline
    assert "(laplace-kfac)" in said.headline
    assert "takes no part in the ranking: laplace-last: 'out'." in said.text
    assert dict(said.lines)["laplace-last"] == "10.0 % in 'out'"


def test_one_layer_with_a_posterior_among_several_gives_no_ranking():
    said = answer([posterior("laplace-last", [np.nan, np.nan, 0.9])])
    assert said.headline == "The network has one layer with a posterior, 'out': there is nothing to rank."


def test_posteriors_over_other_layers_are_not_ranked_together():
    said = answer([posterior("first", [0.2, 0.5, np.nan]), posterior("last", [np.nan, 0.5, 0.9])])
    assert "do not have the same layers" in said.text


def test_what_only_some_posteriors_do_not_cover_is_said_of_them():
    one, other = posterior("laplace-kfac", [0.4, 0.5]), posterior("last", [np.nan, 0.5], not_covered="a.weight")
    assert "Not covered by last: a.weight." in answer([one, other]).caveats
    assert "Not covered: a.weight." in answer([other]).caveats


def test_a_posterior_whose_sds_were_set_takes_no_part():
    dropout = posterior("mc-dropout", [0.1, 0.9], sd_learned=0, sd_of="the network's own dropout, set and not learned")
    other = posterior("mean-field", [0.9, 0.5])
    said = answer([dropout, other])
    assert "'fc2'" in said.headline
    assert [name for name, _ in said.lines] == ["mean-field"]
    assert "mc-dropout takes no part: its sds are those of the network's own dropout" in said.text
    assert answer([dropout]).headline == "No posterior here says how far the data determine the layers."


def test_a_posterior_against_an_improper_prior_takes_no_part():
    alone = posterior("sparse-dropout", [np.nan, np.nan])
    alone.table["sd_q50"] = ("layer", [0.1, 0.2])
    alone.table["contraction"].attrs["reason"] = "the prior is improper and has no sd to compare with"
    assert alone.covered == ["fc1", "fc2"]
    said = answer([alone])
    assert said.headline == "No posterior here says how far the data determine the layers."
    assert "sparse-dropout takes no part: the prior is improper" in said.text
