"""What is said of stochastic layers: what is there is found, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stochastic_tables import stochastic_table
from wiu_pyro import diagnostics
from wiu_pyro.errors import SchemaError

say = diagnostics.stochastic_layers_statement


def test_share_of_the_last_layer_and_differences_stand_with_their_intervals():
    said = say(stochastic_table(difference=0.03, shapley=(0.5, 0.3, 0.2)))
    assert "last layer 'fc3' alone uncertain" in said
    assert "has 20 % (19 % to 21 %) of the whole posterior's functional variance" in said
    assert "It predicts worse than the whole posterior: NLL +0.03 (+0.02 to +0.04)" in said
    assert "Fitted to 'fc3' alone (refitted)" in said
    assert "NLL +0.08 (+0.07 to +0.09)" in said
    assert (
        "It predicts better than the whole posterior: AUROC of the mutual information out of distribution +0.03" in said
    )


def test_where_nothing_differs_nothing_is_found():
    said = say(stochastic_table(shift=0.0))
    assert "better" not in said
    assert "worse" not in said
    assert "No difference beyond its interval: NLL 0 (−0.01 to +0.01)" in said
    assert "comes from no layer shown to have the most of it" in said
    assert "alone has most" not in said
    assert "act together" not in said
    assert "Refitted, it is the same posterior" in said


def test_a_layer_has_the_largest_share_where_its_interval_lies_above_the_others():
    said = say(stochastic_table(shapley=(0.2, 0.6, 0.2), together=0.2, effect_half=0.02))
    assert (
        "The variance of the class probabilities comes most from layer 'fc2' (Shapley effects: 60 % (58 % to 62 %)"
        in said
    )
    assert "Layers act together: 'fc" in said
    assert "The layer that alone has most of the functional variance is 'fc2': 60 % (59 % to 61 %)." in said
    assert "comes from no layer shown" in say(stochastic_table(shapley=(0.3, 0.4, 0.3), effect_half=0.06))


def test_over_seeds_an_interaction_is_judged_by_paired_differences_of_total_and_first_order_effect():
    table = stochastic_table(shapley=(0.2, 0.6, 0.2), together=0.2, num_seeds=5, effect_interval="seeds")
    table = table.isel(chain=np.zeros(5, dtype=int)).assign_coords(chain=np.arange(5))
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.3, size=(5, 1, 1, 3))  # by which both effects of a seed are off alike
    own = rng.normal(0, 0.3, size=(5, 3, 1, 3))
    for noise, found in ((shared, True), (own, False)):
        by_chain = table["effect_share"].values + noise
        one = table.assign(effect_by_chain=(("chain", *table["effect_share"].dims), by_chain))
        assert ("interactions hold 20 %" in say(one)) == found
        assert ("act together" in say(one)) == found


def test_more_variance_than_the_whole_has_is_explained_by_correlated_layers():
    assert "more than all: the layers' weights are correlated" in say(stochastic_table(shapley=(0.2, 0.2, 1.6)))


def test_reasons_refits_and_what_intervals_rest_on_are_said():
    said = say(stochastic_table(refitted=False, refitted_reason="no train_data were given"))
    assert "Not refitted: no train_data were given." in said
    assert "Fitted to" not in said
    assert "95 % intervals for one network, over 500 images, paired and simultaneous" in said
    assert "whether another seed would show the same they do not say" in said
    over_seeds = say(stochastic_table(interval="seeds", num_seeds=5))
    assert "95 % intervals over 5 seeds, simultaneous" in over_seeds
    table = stochastic_table(converged="no", convergence_detail="too few steps")
    table["refit_converged"][0, 3] = 0
    said = say(table)
    assert "Refits that had not converged: only fc3." in said
    assert "The fit had not converged (too few steps)" in said
    without = stochastic_table(effects_reason="weights are correlated").drop_vars("effect_share")
    assert "shares of the variance are not known: weights are correlated." in say(without)


def test_last_layer_by_itself_is_spoken_of_with_both_its_questions_and_nothing_else():
    table = stochastic_table(difference=0.03)
    said = diagnostics.last_layer_statement(table)
    assert say(table).startswith(said)
    assert "(restricted)" in said
    assert "(refitted)" in said
    assert "Shapley" not in said
    trained = diagnostics.last_layer_statement(table.assign_attrs(curvature="none"))
    assert trained.endswith("Refits were too short for their convergence to be assessed.")
    table["refit_converged"][:] = 1
    assert "too short" not in diagnostics.last_layer_statement(table.assign_attrs(curvature="none"))


def test_one_layer_alone_has_nothing_beside_it_and_another_table_is_refused():
    assert say(stochastic_table().isel(layer=[2])) == (
        "Layer 'fc3' is the only one with a posterior: there is nothing to compare it with."
    )
    with pytest.raises(SchemaError, match="A table with 'variance_share' and 'member' is needed"):
        say(stochastic_table().drop_vars("member"))
