"""How far posteriors agree: against plain computations, planted agreement and disagreement, and a noisy reference."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from tests.planted import PlantedLayer, planted, two_way
from tests.synthetic import synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.diagnostics.agreement_statement import verdicts
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.export.container import build

SHAPE = (1, 24, 30)
SCALES = (0.3, 0.3, 0.4)


def effects(seed, shape=SHAPE):
    return two_way(np.random.default_rng(seed), shape, SCALES)


def posterior(log_sd, *, conditional=None, factorised=True, mean=None, name="planted", **attrs):
    layer = PlantedLayer(
        sd=0.3 * np.exp(log_sd), mean=mean, conditional=None if conditional is None else 0.3 * np.exp(conditional)
    )
    return planted({"fc": layer}, factorised=factorised, approximation=name, **attrs)


def chains_of(log_sd, noise, *, chains=4, seed=9, **attrs):
    """A reference known by chains: each has its own noise in the log sd; sd is marginal and conditional alike."""
    rng = np.random.default_rng(seed)
    noisy = np.concatenate([log_sd + noise * rng.normal(size=log_sd.shape) for _ in range(chains)])
    said = {"guide": "MCMC", "converged_function": "yes", "converged_weights": "yes"} | attrs
    return posterior(noisy, conditional=noisy, factorised=False, name="nuts", **said)


def with_predictions(idata, mean, variance):
    """Add the predictive of a classifier: probabilities (image, class) and their variances."""
    groups = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    dims = ("chain", "obs_id", "class")
    data = {"mean": (dims, mean[None]), "probability_variance": (dims, variance[None])}
    return build(groups | {"predictive_sampled": xr.Dataset(data)})


def images(seed, num=200):
    rng = np.random.default_rng(seed)
    mean = rng.dirichlet([1.0, 1, 1], size=num)
    return mean, np.exp(rng.normal(size=(num, 1)) - 3) * np.ones((1, 3))


# figures


def test_figures_are_those_of_plain_computations():
    one, two, mean = effects(0), effects(1) + 0.5 * effects(0), 0.2 * effects(2)
    table = diagnostics.agreement({"a": posterior(one), "b": posterior(two, mean=0.3 + mean)}, num_bootstrap=5)
    row = table.sel(pair="a ~ b", layer="fc", kind="conditional")
    first, second = (0.3 * np.exp(values[0]) for values in (one, two))
    assert float(row["weight_rank"]) == pytest.approx(stats.spearmanr(first.ravel(), second.ravel())[0], abs=1e-5)
    ratio = np.log(first / second)
    assert float(row["weight_log_ratio"]) == pytest.approx(ratio.mean(), abs=1e-5)
    assert float(row["weight_log_distance"]) == pytest.approx(np.sqrt((ratio**2).mean()), abs=1e-5)
    distance = np.sqrt((mean[0] ** 2 + (first - second) ** 2).mean())  # of Normals, 2-Wasserstein; priors N(0, 1)
    assert float(row["weight_distance"]) == pytest.approx(distance, rel=1e-4)
    for name, axis in (("output_rank", 1), ("input_rank", 0)):
        units = [(values**2).mean(axis=axis) for values in (first, second)]
        assert float(row[name]) == pytest.approx(stats.spearmanr(*units)[0], abs=1e-6)
    contraction = table["contraction"].sel(posterior="b", layer="fc", kind="conditional")
    assert float(contraction) == pytest.approx(1 - (second**2).mean(), abs=1e-5)


def test_biases_are_an_input_of_their_own():
    sd = 0.3 * np.exp(effects(0))
    bias = np.linspace(0.1, 0.9, 24)[None]
    idatas = [planted({"fc": PlantedLayer(sd=sd, bias_sd=part)}) for part in (bias, bias[:, ::-1])]
    table = diagnostics.agreement(idatas, num_bootstrap=5).sel(kind="conditional", layer="fc").squeeze()
    pooled = [np.concatenate([sd[0].ravel(), part[0]]) for part in (bias, bias[:, ::-1])]
    assert float(table["weight_rank"]) == pytest.approx(stats.spearmanr(*pooled)[0], abs=1e-6)
    assert float(table["input_rank"]) == pytest.approx(1)


def test_conditional_stands_beside_conditional_and_marginal_beside_marginal():
    wide, tight = effects(0), effects(1)
    both = posterior(wide, conditional=tight, factorised=False)
    table = diagnostics.agreement(
        {"factorised": posterior(tight), "both": both, "too": posterior(wide, conditional=-tight, factorised=False)},
        num_bootstrap=5,
    )
    rank = table["weight_rank"].sel(layer="fc")
    assert float(rank.sel(pair="factorised ~ both", kind="conditional")) == pytest.approx(1)
    assert np.isnan(rank.sel(pair="factorised ~ both", kind="marginal"))
    assert float(rank.sel(pair="both ~ too", kind="marginal")) == pytest.approx(1)
    assert float(rank.sel(pair="both ~ too", kind="conditional")) == pytest.approx(-1)


def test_weights_at_a_point_estimate_take_no_part():
    log_sd = effects(0)
    part = log_sd.copy()
    held = posterior(part)
    schema.dataset(held, "moments_fc")["sd"].values[:, :12] = 0
    schema.dataset(held, "moments_fc")["sd_conditional"].values[:, :12] = 0
    table = diagnostics.agreement({"held": held, "free": posterior(log_sd)}, num_bootstrap=5)
    assert float(table["weight_rank"].sel(kind="conditional").squeeze()) == pytest.approx(1)
    assert np.isnan(table["weight_rank_low"].sel(kind="conditional").squeeze())  # 12 outputs


def test_function_figures_are_those_of_plain_computations():
    (mean, variance), (other, _) = images(0), images(1)
    scaled = variance * np.exp(0.3 * np.random.default_rng(3).normal(size=variance.shape)) * 2
    idatas = {
        "a": with_predictions(posterior(effects(0)), mean, variance),
        "b": with_predictions(posterior(effects(0)), other, scaled),
    }
    table = diagnostics.agreement(idatas, num_bootstrap=5).squeeze("pair")
    sums = [part.sum(axis=1) for part in (variance, scaled)]
    assert float(table["function_rank"]) == pytest.approx(stats.spearmanr(*sums)[0])
    ratio = np.log(sums[0] / sums[1])
    half = stats.norm.ppf(0.975) * ratio.std(ddof=1) / np.sqrt(200)
    assert float(table["function_log_ratio"]) == pytest.approx(ratio.mean())
    assert float(table["function_log_ratio_high"]) == pytest.approx(ratio.mean() + half)
    assert float(table["function_distance"]) == pytest.approx(np.abs(mean - other).sum(axis=1).mean() / 2, rel=1e-5)


def test_chains_of_a_reference_are_one_posterior_with_the_variance_between_them():
    means = np.stack([np.zeros(SHAPE[1:]), np.ones(SHAPE[1:])])
    two = posterior(np.zeros((2, *SHAPE[1:])), mean=means, conditional=np.zeros((2, *SHAPE[1:])), factorised=False,
                    guide="MCMC", name="nuts")  # fmt: skip
    table = diagnostics.agreement({"a": posterior(effects(0), conditional=effects(0), factorised=False)}, two,
                                  num_bootstrap=5)  # fmt: skip
    found = table["contraction"].sel(posterior="nuts", layer="fc")
    assert float(found.sel(kind="marginal")) == pytest.approx(1 - (0.3**2 + 0.25), abs=1e-5)
    assert float(found.sel(kind="conditional")) == pytest.approx(1 - 0.3**2, abs=1e-5)


# intervals


def test_interval_covers_the_correlation_of_all_units_at_about_its_level():
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(40):
        shared, own = (two_way(rng, (1, 30, 30), SCALES) for _ in range(2))
        table = diagnostics.agreement([posterior(shared), posterior(shared + own)], num_bootstrap=40)
        row = table.sel(layer="fc", kind="conditional").squeeze()
        truth = 6 / np.pi * np.arcsin(np.sqrt(0.5) / 2)  # Spearman's of a Normal pair of correlation √½
        covered.append(bool(row["weight_rank_low"] <= truth <= row["weight_rank_high"]))
    assert np.mean(covered) >= 0.85  # of 0.95: 3 standard errors of 40 below


def test_seeds_are_the_replicates_where_there_are_five():
    shape = (5, 24, 30)
    one, two = effects(0, shape), effects(0, shape) + 0.5 * effects(1, shape)
    runs = {name: posterior(values, seed=list(range(5))) for name, values in (("a", one), ("b", two))}
    table = diagnostics.agreement(runs, num_bootstrap=5)
    each = [stats.spearmanr(one[i].ravel(), two[i].ravel())[0] for i in range(5)]
    z = np.arctanh(each)
    reach = stats.t.ppf(0.975, 4) * z.std(ddof=1) / np.sqrt(5)
    row = table.sel(layer="fc", kind="conditional").squeeze("pair")
    assert float(row["weight_rank"]) == pytest.approx(np.tanh(z.mean()), abs=1e-4)
    assert float(row["weight_rank_low"]) == pytest.approx(np.tanh(z.mean() - reach), abs=1e-4)


# a reference and its noise


def test_ceiling_is_what_the_truth_itself_reaches_against_the_draws():
    truth = effects(0, (1, 40, 60))
    found = (
        diagnostics.agreement(
            {"truth": posterior(truth, conditional=truth, factorised=False)}, chains_of(truth, 0.5), num_bootstrap=5
        )
        .sel(layer="fc", kind="marginal")
        .squeeze("pair")
    )
    assert float(found["weight_rank_ceiling"]) < 0.95
    assert float(found["weight_rank"]) == pytest.approx(float(found["weight_rank_ceiling"]), abs=0.03)


def test_monte_carlo_error_is_the_spread_over_references():
    truth, other = effects(0), effects(0) + effects(1)
    approximation = posterior(other, conditional=other, factorised=False)
    values, errors = [], []
    for seed in range(20):
        table = diagnostics.agreement({"a": approximation}, chains_of(truth, 0.5, seed=seed), num_bootstrap=2)
        row = table.sel(layer="fc", kind="marginal").squeeze("pair")
        values.append(float(row["weight_rank"]))
        errors.append(float(row["weight_rank_mc"]))
    # an sd of 20 is known to 16 %, the mean of 20 jackknives over 4 chains to 10 %
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.6)


def test_reference_known_exactly_has_no_noise():
    table = diagnostics.agreement(
        {"a": posterior(effects(0))}, posterior(effects(1), guide="grid", name="grid"), num_bootstrap=5
    )
    row = table.sel(layer="fc", kind="conditional").squeeze("pair")
    assert (float(row["weight_rank_mc"]), float(row["weight_rank_ceiling"])) == (0, 1)


def test_reference_comes_by_name_or_by_itself():
    parts = {"a": posterior(effects(0)), "b": posterior(effects(1)), "c": posterior(effects(2))}
    by_name = diagnostics.agreement(parts, "c", num_bootstrap=5)
    reference = parts.pop("c")
    given = diagnostics.agreement(parts, reference, num_bootstrap=5)
    assert by_name["pair"].values.tolist() == ["a ~ c", "b ~ c", "a ~ b"]
    assert by_name["with_reference"].values.tolist() == [1, 1, 0]
    assert given["pair"].values.tolist() == ["a ~ planted", "b ~ planted", "a ~ b"]
    np.testing.assert_allclose(given["weight_rank"], by_name["weight_rank"])


# refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [posterior(effects(0))], "Two posteriors or more are needed"),
        (
            lambda: [posterior(effects(0)), posterior(effects(0, (1, 24, 31)))],
            r"layer 'fc' has .*\(24, 30\).*\(24, 31\)",
        ),
        (lambda: [posterior(effects(0)), posterior(effects(0, (2, 24, 30)))], "holds 1 and .* 2. Join the same seeds"),
        (lambda: [posterior(effects(0)), synthetic().idata], "has fc and .* fc1, fc2, out"),
    ],
)
def test_posteriors_of_other_networks_are_refused(make, message):
    with pytest.raises(SchemaError, match=message):
        diagnostics.agreement(make())


def test_unknown_reference_and_no_replicates_are_refused():
    parts = {"kfac": posterior(effects(0)), "diag": posterior(effects(1))}
    with pytest.raises(DataError, match="Unknown reference 'kfca'. Did you mean 'kfac'"):
        diagnostics.agreement(parts, "kfca")
    with pytest.raises(DataError, match="At least two bootstrap replicates are needed, got 1"):
        diagnostics.agreement(parts, num_bootstrap=1)


# statements


def planted_case(*, converged="yes", noise=0.1):
    truth = effects(0, (1, 40, 60))
    off = 0.2 * truth + effects(1, (1, 40, 60))
    mean, variance = images(0)
    parts = {"good": (truth + 0.05 * effects(2, (1, 40, 60)), variance), "bad": (off, variance[::-1])}
    idatas = {
        name: with_predictions(posterior(values, conditional=values, factorised=False), mean, spread)
        for name, (values, spread) in parts.items()
    }
    said = {"converged_function": converged, "converged_weights": converged}
    reference = chains_of(truth, noise, convergence_detail="R-hat at most 1.3", **said)
    groups = {name: schema.dataset(reference, name) for name in schema.groups(reference)}
    dims = ("chain", "obs_id", "class")
    data = {"mean": (dims, np.stack([mean] * 4)), "probability_variance": (dims, np.stack([variance] * 4))}
    return idatas, build(groups | {"predictive_sampled": xr.Dataset(data)})


def test_planted_agreement_is_called_right_and_planted_disagreement_off():
    table = diagnostics.agreement(*planted_case(), num_bootstrap=40)
    words = {one.posterior: one.word for one in verdicts(table, "weight_rank", layer="fc", kind="marginal")}
    assert words == {"good": "right", "bad": "off"}
    assert {one.posterior: one.word for one in verdicts(table, "function_rank")} == words
    said = diagnostics.agreement_statement(table)
    assert "Which of 200 images are uncertain" in said
    assert "right good 1.00" in said
    assert "Within 'fc', marginal sd: right good" in said


def test_noise_of_the_reference_adds_to_the_interval_by_students_t_over_its_chains():
    table = diagnostics.agreement(*planted_case(), num_bootstrap=40)
    assert table.attrs["reference_chains"] > 1
    row = table.sel(layer="fc", kind="marginal").isel(pair=0)
    value, low, high = (float(row[f"weight_rank{end}"]) for end in ("", "_low", "_high"))
    table["weight_rank_mc"] = table["weight_rank_mc"] * 0 + 0.004
    noise = stats.t.isf(0.025, table.attrs["reference_chains"] - 1) * 0.004
    found = verdicts(table, "weight_rank", layer="fc", kind="marginal")[0]
    assert found.low == pytest.approx(value - np.hypot(value - low, noise))
    assert found.high == pytest.approx(min(value + np.hypot(high - value, noise), 1))


def test_where_none_is_right_the_sentence_says_so():
    idatas, reference = planted_case()
    table = diagnostics.agreement({"bad": idatas["bad"]}, reference, num_bootstrap=40)
    said = diagnostics.agreement_statement(table)
    assert "No posterior finds the uncertain weights within 'fc' by the conditional sd (at best bad" in said


def test_no_claim_rests_on_a_reference_that_had_not_converged():
    said = diagnostics.agreement_statement(diagnostics.agreement(*planted_case(converged="no"), num_bootstrap=5))
    assert "No claim on function values: the reference, nuts, had not converged on them (R-hat at most 1.3)" in said
    assert "No claim on weights" in said
    assert "right" not in said


def test_unrelated_posteriors_are_hardly_ever_called_right():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(20):
        one, two = (two_way(rng, SHAPE, SCALES) for _ in range(2))
        reference = posterior(two, guide="grid", name="grid")
        table = diagnostics.agreement({"a": posterior(one)}, reference, num_bootstrap=20)
        found += [verdict.word for verdict in verdicts(table, "weight_rank", layer="fc", kind="conditional")]
    assert found.count("off") == 20


def test_without_a_reference_it_is_said_how_far_they_agree_and_not_which_is_true():
    idatas, _ = planted_case()
    said = diagnostics.agreement_statement(diagnostics.agreement(idatas, num_bootstrap=5))
    assert "They agree on which images are uncertain with a rank correlation of" in said
    assert "only a reference can tell" in said


def test_networks_around_other_modes_are_named():
    rng = np.random.default_rng(0)
    means = [rng.normal(size=SHAPE) for _ in range(2)]
    idatas = [posterior(effects(0), mean=mean) for mean in means]
    assert "Their means hardly correlate" in diagnostics.agreement_statement(
        diagnostics.agreement(idatas, num_bootstrap=5)
    )


def test_posterior_that_had_not_converged_is_named():
    table = diagnostics.agreement(
        {"a": posterior(effects(0), converged="no"), "b": posterior(effects(1))}, num_bootstrap=5
    )
    assert "Not converged, so at a stage of training: a." in diagnostics.agreement_statement(table)


def test_statement_refuses_another_table():
    with pytest.raises(SchemaError, match="Pass what wiu_pyro.diagnostics.agreement returned"):
        diagnostics.agreement_statement(xr.Dataset({"kl": 1.0}))
