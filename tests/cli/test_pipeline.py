from __future__ import annotations

import json

import numpy as np
import pytest

from tests.report.pictures import unpictured
from wiu_pyro import schema
from wiu_pyro.cli import main
from wiu_pyro.cli.plan import prepare
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.errors import DataError, DeviceError, GuideError, ModelError
from wiu_pyro.export.files import load

pytestmark = [pytest.mark.training, pytest.mark.slow]

SCRIPT = """
import torch
import wiu_pyro as wiu

DATA = "digits"
EPOCHS = 2


def build(num_classes, in_channels, image_size):
    height, width = image_size
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * height * width, {outputs}))
    return wiu.nn.BayesianNetwork(net)
"""
SHORT = ["--epochs", "2", "--num-samples", "10"]
OPTIONS = [*SHORT, "--no-report"]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts") / "tiny.py"
    path.write_text(SCRIPT.format(outputs="num_classes"))
    return path


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory):
    """A run of two posteriors; tests that change it work on the same folder in the order they stand."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    code = main(["run", str(script), "--out", str(folder), "--guides", "mean-field,laplace-kfac", *SHORT])
    assert code == 0
    return folder


NORMALISED = """
import torch
import wiu_pyro as wiu

DATA = "digits"


def build(num_classes, in_channels, image_size):
    height, width = image_size
    inputs = in_channels * height * width
    layers = [torch.nn.Flatten(), torch.nn.Linear(inputs, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, num_classes)]
    return wiu.nn.BayesianNetwork(torch.nn.Sequential(*layers), {"1.*": wiu.nn.Normal(), "*": None})
"""


def test_running_statistics_are_those_of_the_point_estimate_whatever_is_fitted_before(tmp_path):
    """The posterior fitted last, and one added to a finished run, stand on the network the point estimate left.

    Pyro's own guide in between must not train the point estimate's weights in place either.
    """
    script, point_means = tmp_path / "normalised.py", []
    script.write_text(NORMALISED)
    for name, guides in {"alone": "laplace-diag", "after": "mean-field,auto-normal,laplace-kfac,laplace-diag"}.items():
        folder = tmp_path / name
        assert main(["run", str(script), "--out", str(folder), "--guides", guides, *OPTIONS]) == 0
        point_means.append(load(folder / "posteriors" / "laplace-diag.nc")["predictive_linearised"]["point_mean"])
    resumed = ["run", str(script), "--out", str(tmp_path / "alone"), "--guides", "laplace-kfac", "--resume", *OPTIONS]
    assert main(resumed) == 0
    kfac = load(tmp_path / "alone" / "posteriors" / "laplace-kfac.nc")["predictive_linearised"]["point_mean"]
    for other in (point_means[1], kfac):
        np.testing.assert_allclose(point_means[0].values, other.values, atol=1e-6)


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_run_leaves_record_posteriors_and_page_and_nothing_half_written(finished):
    left = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file())
    posteriors = ["posteriors/laplace-kfac.nc", "posteriors/mean-field.nc"]
    assert left == ["point_estimate.pt", *posteriors, "report.html", "run.json"]


def test_the_record_says_what_was_done_and_how_it_ended(finished):
    record = record_of(finished)
    assert record["finished"] is True
    assert record["data"]["num_train"] == 1437
    assert record["settings"]["seed"] == 0
    assert record["peak_memory_bytes"] > 1e7
    assert len(record["point_estimate"]["losses"]) == 2
    assert set(record["posteriors"]) == {"mean-field", "laplace-kfac"}
    assert "torch" in record["versions"]


def test_the_files_carry_names_and_scaling_of_the_data(finished):
    attrs = schema.attrs(load(finished / "posteriors" / "mean-field.nc"))
    assert attrs["model_name"] == "tiny"
    assert attrs["data_name"] == "digits"
    assert attrs["input_scaling"] == "pixel / 16"
    assert attrs["approximation"] == "mean-field"


def test_a_laplace_posterior_has_the_convergence_and_losses_of_its_point_estimate(finished):
    idata = load(finished / "posteriors" / "laplace-kfac.nc")
    assert schema.dataset(idata, "training").sizes["epoch"] == 2


def test_a_second_run_into_the_folder_is_refused_before_any_computing(finished, script, capsys):
    before = (finished / "run.json").read_bytes()
    assert main(["run", str(script), "--out", str(finished), *OPTIONS]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (finished / "run.json").read_bytes() == before


def test_resume_adds_a_posterior_and_leaves_the_others_as_they_are(finished, script, capsys):
    kept = finished / "posteriors" / "mean-field.nc"
    before = kept.stat().st_mtime_ns
    arguments = ["--out", str(finished), "--guides", "mean-field,laplace-diag", "--resume", *OPTIONS]
    assert main(["run", str(script), *arguments]) == 0
    out, err = capsys.readouterr()
    assert kept.stat().st_mtime_ns == before
    assert "mean-field: kept" in err
    assert "Point estimate: kept" in err
    assert "laplace-diag" in out
    assert record_of(finished)["settings"]["guides"] == ["mean-field", "laplace-kfac", "laplace-diag"]


def test_page_that_was_not_asked_for_is_not_written_and_one_without_the_new_posterior_does_not_stay(
    script, tmp_path, monkeypatch, capsys
):
    from wiu_pyro.cli import pipeline

    folder, written = tmp_path / "run", []
    monkeypatch.setattr(pipeline, "write_report", lambda path, *_, **__: written.append(path))
    asked = ["run", str(script), "--out", str(folder), *SHORT, "--guides"]
    assert main([*asked, "laplace-diag", "--no-report"]) == 0
    assert not (folder / "report.html").exists()
    assert f"Write it with: wiu report {folder}" in capsys.readouterr().err
    hashed = record_of(folder)["settings_hash"]
    assert main([*asked, "laplace-diag", "--resume"]) == 0  # nothing to fit: the page alone
    assert written == [folder]
    assert record_of(folder)["settings_hash"] == hashed
    (folder / "report.html").write_text("page of laplace-diag")
    assert main([*asked, "laplace-diag", "--resume", "--no-report"]) == 0
    assert (folder / "report.html").exists()
    assert main([*asked, "laplace-diag,laplace-kfac", "--resume", "--no-report"]) == 0
    assert not (folder / "report.html").exists()
    assert record_of(folder)["command"].endswith("--no-report")
    assert written == [folder]


def test_resume_with_other_settings_is_refused(finished, script, capsys):
    assert main(["run", str(script), "--out", str(finished), "--resume", *OPTIONS, "--seed", "4"]) == 2
    assert "--seed was 0, now 4" in capsys.readouterr().err


def test_the_report_can_be_written_again_and_leaves_out_a_broken_file(finished, capsys, monkeypatch):
    unpictured(monkeypatch)
    broken = finished / "posteriors" / "laplace-diag.nc"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:3000])
    try:
        assert main(["report", str(finished)]) == 0
    finally:
        broken.write_bytes(whole)
    out, err = capsys.readouterr()
    assert out.strip().endswith("report.html")
    assert "laplace-diag is left out" in err
    assert "laplace-diag is missing" in (finished / "report.html").read_text()


def test_compare_takes_the_folder_of_a_run(finished, capsys):
    assert main(["compare", str(finished)]) == 0
    assert "laplace-kfac" in capsys.readouterr().out


def test_a_killed_run_leaves_whole_files_and_is_gone_on_with(script, tmp_path, monkeypatch, capsys):
    from wiu_pyro.cli import pipeline

    folder, export = tmp_path / "cut", pipeline._export

    def killed(plan, name, fit):
        if name == "laplace-diag":
            raise KeyboardInterrupt
        return export(plan, name, fit)

    arguments = ["run", str(script), "--out", str(folder), "--guides", "mean-field,laplace-diag", *OPTIONS]
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "_export", killed)
        assert main(arguments) == 130
    assert "Interrupted" in capsys.readouterr().err
    assert [path.name for path in (folder / "posteriors").iterdir()] == ["mean-field.nc"]
    assert not record_of(folder)["finished"]
    assert main([*arguments, "--resume"]) == 0
    assert record_of(folder)["finished"]


def test_bad_input_that_shows_only_in_training_leaves_no_folder_behind(tmp_path, capsys):
    script = tmp_path / "laplace_prior.py"
    text = SCRIPT.format(outputs="num_classes").replace(
        "BayesianNetwork(net)", "BayesianNetwork(net, wiu.nn.Laplace(1.0))"
    )
    script.write_text(text)
    arguments = ["run", str(script), "--out", str(tmp_path / "out"), "--guides", "laplace-kfac", *OPTIONS]
    assert main(arguments) == 2
    assert "Normal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pyros_own_guide_runs_alone_from_a_point_estimate(script, tmp_path):
    assert main(["run", str(script), "--out", str(tmp_path / "own"), "--guides", "auto-normal", *OPTIONS]) == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"guides": ("mean-feild",)}, GuideError, "Did you mean 'mean-field'"),
        ({"model": "digit_mlp"}, ModelError, "Did you mean 'digits_mlp'"),
        ({"data": "mnits"}, DataError, "Did you mean 'mnist'"),
        ({"guides": ("mc-dropout",)}, GuideError, "needs a network with dropout, but this one has none"),
        ({"device": "tpu"}, DeviceError, "--device must be auto, cpu or cuda, got 'tpu'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_training(changes, error, message, tmp_path):
    with pytest.raises(error, match=message):
        prepare(RunSettings(out=tmp_path / "out", **changes))


def test_images_change_at_random_as_the_script_says_unless_told_not_to(tmp_path, capsys):
    script, folder = tmp_path / "changing.py", tmp_path / "run"
    text = SCRIPT.format(outputs="num_classes").replace("EPOCHS = 2", "EPOCHS = 2\nAUGMENT = lambda images: images * 0")
    script.write_text(text)
    command = ["run", str(script), "--guides", "laplace-diag", *OPTIONS]
    losses = {}
    for option in ("--augment", "--no-augment"):
        assert main([*command, option, "--out", str(folder / option)]) == 0
        record = json.loads((folder / option / "run.json").read_text())
        losses[option] = record["point_estimate"]["losses"][-1]
        assert record["settings"]["augment"] is (option == "--augment")
    assert losses["--no-augment"] < losses["--augment"]  # black images say nothing of their classes
    capsys.readouterr()
    assert main([*command, "--out", str(folder / "--no-augment"), "--resume"]) == 2
    assert "augment" in capsys.readouterr().err


def test_a_network_with_too_few_outputs_is_refused_before_training(tmp_path):
    script = tmp_path / "narrow.py"
    script.write_text(SCRIPT.format(outputs="3"))
    with pytest.raises(ModelError, match=r"must have shape \(2, 10\) for 2 images and 10 classes, got \(2, 3\)"):
        prepare(RunSettings(model=str(script), out=tmp_path / "out"))


def test_a_network_that_cannot_take_the_images_is_refused_before_training(tmp_path):
    script = tmp_path / "wrong.py"
    script.write_text(SCRIPT.replace("in_channels * height * width", "7").format(outputs="num_classes"))
    with pytest.raises(ModelError, match=r"must take images of shape \(2, 1, 8, 8\)"):
        prepare(RunSettings(model=str(script), out=tmp_path / "out"))


def test_a_script_without_data_needs_the_option(tmp_path):
    script = tmp_path / "no_data.py"
    script.write_text(SCRIPT.replace('DATA = "digits"', "").format(outputs="num_classes"))
    with pytest.raises(DataError, match="neither --data was given nor does no_data define DATA"):
        prepare(RunSettings(model=str(script), out=tmp_path / "out"))


def test_training_on_the_first_images_alone_is_what_the_posterior_and_the_record_speak_of(script, tmp_path):
    plan = prepare(RunSettings(model=str(script), out=tmp_path / "run", train_images=100))
    whole = prepare(RunSettings(model=str(script), out=tmp_path / "whole")).train
    assert plan.model.num_data == plan.deciding()["num_train"] == len(plan.train) == 100
    assert (plan.train.images == whole.images[:100]).all()


def test_the_same_seed_gives_the_same_network(script, tmp_path):
    import torch

    first, again, other = (
        prepare(RunSettings(model=str(script), out=tmp_path / "out", seed=seed)).model for seed in (1, 1, 2)
    )
    weights = [next(iter(dict(model.net.named_buffers()).values())) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.filterwarnings("ignore:The posterior's prior is the model's with:UserWarning")
def test_tuned_prior_is_in_the_file_and_on_the_page(script, tmp_path, monkeypatch):
    unpictured(monkeypatch)
    folder = tmp_path / "tuned"
    tuning = ["--tune-prior", "marginal-likelihood", "--tune-per", "site"]
    guides = ["--guides", "laplace-kfac,laplace-diag,mean-field"]
    assert main(["run", str(script), "--out", str(folder), *guides, *tuning, *SHORT]) == 0
    for name in ("laplace-kfac", "laplace-diag"):
        idata = load(folder / "posteriors" / f"{name}.nc")
        attrs = schema.attrs(idata)
        assert attrs["prior_tuned"].endswith("tuned by marginal likelihood, after the fit")
        assert attrs["prior_trained_with"].startswith("no")
        prior_sd = float(schema.dataset(idata, "moments_1")["bias_prior_sd"])
        assert f"{prior_sd:.3g} (1.bias)" in attrs["prior_tuned"]  # the model's own is 1
        assert np.isfinite(attrs["log_marginal_likelihood"])
    assert "prior_tuned" not in schema.attrs(load(folder / "posteriors" / "mean-field.nc"))
    page = (folder / "report.html").read_text()
    assert "tuned by marginal likelihood, after the fit" in page
    assert "The weights were trained under another prior" in page
