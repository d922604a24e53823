from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from wiu_pyro.cli.settings import RunSettings, differences, settings_hash
from wiu_pyro.errors import DataError, GuideError


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, r"--epochs must be at least 1, got 0"),
        ("epochs", -3, r"--epochs must be at least 1, got -3"),
        ("num_samples", 1, r"--num-samples must be at least 2, got 1"),
        ("batch_size", 0, r"--batch-size must be at least 1, got 0"),
        ("seed", -1, r"--seed must be at least 0, got -1"),
    ],
)
def test_counts_that_make_no_sense_are_refused_by_their_option_name(field, value, message):
    with pytest.raises(DataError, match=message):
        RunSettings(**{field: value}).check()


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_that_is_not_positive_is_refused_and_not_taken_for_none_given(rate):
    with pytest.raises(DataError, match=f"--learning-rate must be a positive number, got {rate:g}"):
        RunSettings(learning_rate=rate).check()


def test_resume_and_overwrite_exclude_each_other():
    with pytest.raises(DataError, match="--resume and --overwrite exclude each other"):
        RunSettings(resume=True, overwrite=True).check()


def test_no_guide_is_refused():
    with pytest.raises(GuideError, match="At least one guide is needed"):
        RunSettings(guides=()).check()


def test_a_guide_named_twice_is_refused():
    with pytest.raises(GuideError, match="named twice: mean-field"):
        RunSettings(guides=("mean-field", "laplace-diag", "mean-field")).check()


def test_defaults_are_accepted():
    RunSettings().check()


def test_command_gives_only_what_differs_from_the_defaults():
    settings = RunSettings(data="my images", guides=("mean-field",), out=Path("runs/a"), seed=3, overwrite=True)
    words = shlex.split(settings.command())
    assert words == [
        *("wiu", "run", "digits_mlp", "--data", "my images", "--guides", "mean-field"),
        *("--out", "runs/a", "--seed", "3"),
    ]


def test_command_asks_for_no_page_and_says_nothing_of_the_page_it_has_by_default():
    assert RunSettings(report=False).command() == "wiu run digits_mlp --no-report"
    assert "report" not in RunSettings().command()


def test_equal_settings_have_equal_hashes_whatever_their_order():
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})


def test_differences_speak_in_options_and_name_a_changed_script():
    lines = differences(
        {"seed": 0, "script_sha256": "a", "batch_size": 1}, {"seed": 0, "script_sha256": "b", "batch_size": 2}
    )
    assert lines == ["--batch-size was 1, now 2", "the text of the model script has changed"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune_prior": "evidence"}, r"--tune-prior has no choice 'evidence'.*marginal-likelihood"),
        ({"tune_prior": "cross-validation"}, "needs data held out beside the test data"),
        ({"tune_prior": "marginal-likelihood", "tune_per": "weight"}, "--tune-per has no choice 'weight'"),
        ({"tune_per": "layer"}, "--tune-prior is not given"),
    ],
)
def test_a_tuning_that_is_none_is_refused(settings, message):
    with pytest.raises(GuideError, match=message):
        RunSettings(**settings).check()


def test_command_says_how_the_prior_was_tuned():
    settings = RunSettings(tune_prior="marginal-likelihood", tune_per="layer")
    assert "--tune-prior marginal-likelihood --tune-per layer" in settings.command()
