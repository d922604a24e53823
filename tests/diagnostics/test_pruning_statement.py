"""How many weights can go, in words: each sentence against the figures it is computed from."""

import numpy as np
import pytest
import xarray as xr

from tests.pruned import pruned
from wiu_pyro.diagnostics import pruning_statement
from wiu_pyro.diagnostics.pruning_statement import best_criterion
from wiu_pyro.errors import SchemaError


def test_safe_sparsities_are_named_from_the_largest_with_all_criteria():
    text = pruning_statement(pruned(safe={"signal_to_noise": 0.95, "magnitude": 0.5, "random": 0.0}))
    assert "rise by less than 0.10 percentage points: 95 % by signal-to-noise, 50 % by size, none by chance." in text


def test_no_safe_sparsity_is_no_finding():
    text = pruning_statement(pruned(safe=dict.fromkeys(("signal_to_noise", "magnitude", "random"), 0.0)))
    assert text.startswith("No share of the weights on the list, from 50 % up, is shown to be removable in one shot")


def test_a_test_that_no_network_could_pass_is_called_so():
    table = pruned(safe=dict.fromkeys(("signal_to_noise", "magnitude", "random"), 0.0))
    assert "not even a network" not in pruning_statement(table)
    assert "With 400 images not even a network that changed no" in pruning_statement(table.assign_attrs(num_images=400))


def test_rankings_are_not_compared_over_a_handful_of_weights():
    table = pruned(common=0.0)
    table["num_candidates"][:] = 100  # two are kept of 200 at 99 % removed, ten at 95 %
    assert "coincide: of the weights kept they have at least 99 % in common (at 50 % removed)" in pruning_statement(
        table
    )


def test_error_at_the_safe_sparsity_comes_with_its_rise_and_interval():
    table = pruned(safe={"signal_to_noise": 0.95, "magnitude": 0.5, "random": 0.0})
    text = pruning_statement(table)
    assert "At 95 % removed by signal-to-noise the error is 2.10 %, +0.10 (+0.05 to +0.15) percentage points" in text


@pytest.mark.parametrize(
    ("common", "said"),
    [
        (0.95, "coincide: of the weights kept they have at least 95 % in common"),
        (0.4, "part: of the weights kept they have only 40 % in common"),
    ],
)
def test_rankings_coincide_where_nine_tenths_are_kept_in_common(common, said):
    text = pruning_statement(pruned(common=common))
    assert f"Ranking by signal-to-noise and by size {said} (at 99 % removed)." in text


def test_layers_are_named_with_their_own_safe_sparsity():
    assert "One layer pruned alone, by signal-to-noise: 99 % in 'fc1', none in 'fc2'." in pruning_statement(pruned())


def test_evidence_is_said_where_it_is_known():
    assert "better without 80 % of the weights" in pruning_statement(pruned())
    assert "evidence" not in pruning_statement(pruned(evidence=np.nan))


def test_procedures_beside_one_shot_have_sentences_of_their_own():
    assert "After fine-tuning: 99 % by signal-to-noise." in pruning_statement(pruned(fine_tuned=True))


def test_within_one_network_it_is_said_that_another_seed_is_another_matter():
    text = pruning_statement(pruned())
    assert "Tested one-sided at 95 % within one network over 10,000 images" in text
    assert "whether another seed would show the same is not tested" in text


def test_over_seeds_the_seeds_are_the_basis():
    table = pruned(chains=5)
    text = pruning_statement(table)
    assert "over 5 seeds on the same 10,000 images" in text
    assert "another seed" not in text


def test_of_a_few_networks_the_least_safe_counts():
    table = pruned(chains=2)
    table["safe_sparsity"][1] = 0.5
    assert "50 % by signal-to-noise" in pruning_statement(table)


def test_fit_that_had_not_converged_is_said():
    assert "The fit had not converged" in pruning_statement(pruned().assign_attrs(converged="no"))


def test_criterion_that_lets_most_go_is_the_best():
    assert best_criterion(pruned(safe={"signal_to_noise": 0.5, "magnitude": 0.95, "random": 0.0})) == "magnitude"


def test_another_table_is_refused():
    with pytest.raises(SchemaError, match="what wiu_pyro.interventions.prune returned"):
        pruning_statement(xr.Dataset({"spearman": 0.5}))


def test_a_table_kept_in_single_precision_says_the_same():
    table = pruned(safe={"signal_to_noise": 0.95, "magnitude": 0.9, "random": 0.0})
    single = table.map(lambda values: values.astype(np.float32) if values.dtype == np.float64 else values)
    assert pruning_statement(single.assign_attrs(table.attrs)) == pruning_statement(table)
