"""``wiu run --resume`` goes on inside the fit that was killed."""

from __future__ import annotations

import numpy as np
import pytest

from wiu_pyro import schema
from wiu_pyro.cli import main
from wiu_pyro.cli import pipeline as pipeline_module
from wiu_pyro.export.files import load
from wiu_pyro.infer.training import Training

pytestmark = [pytest.mark.training, pytest.mark.slow]

SCRIPT = """
import torch
import wiu_pyro as wiu

DATA = "digits"


def build(num_classes, in_channels, image_size):
    height, width = image_size
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * height * width, num_classes))
    return wiu.nn.BayesianNetwork(net)
"""
OPTIONS = ["--no-report", "--epochs", "4", "--num-samples", "10", "--guides", "mean-field,laplace-diag"]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts") / "tiny.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def whole(script, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["run", str(script), "--out", str(folder), *OPTIONS]) == 0
    return folder


def run(script, folder, *more: str) -> int:
    return main(["run", str(script), "--out", str(folder), *OPTIONS, *more])


def stopped(script, folder, monkeypatch, *, guide: str) -> None:
    """Interrupt a run in the third epoch of that guide's training."""
    train = Training._train_epoch

    def cut(self, bar):
        train(self, bar)
        if type(self.run.guide).__name__ == guide and self.epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline_module, "CHECKPOINT_SECONDS", 0.0)
        patched.setattr(Training, "_train_epoch", cut)
        assert run(script, folder) == 130
    assert [path.name for path in (folder / "posteriors").glob(".under-way-*")]


@pytest.mark.parametrize("guide", ["AutoDiagonalLaplace", "AutoMeanField"])  # the point estimate; a posterior
def test_killed_run_goes_on_inside_the_fit_and_ends_the_same(guide, script, whole, tmp_path, monkeypatch):
    folder, epochs, train = tmp_path / "cut", [], Training._train_epoch
    stopped(script, folder, monkeypatch, guide=guide)

    def counted(self, bar):
        epochs.append((type(self.run.guide).__name__, self.epoch))
        train(self, bar)

    monkeypatch.setattr(Training, "_train_epoch", counted)
    assert run(script, folder, "--resume") == 0
    assert min(epoch for name, epoch in epochs if name == guide) == 2
    for name in ("mean-field", "laplace-diag"):
        one, other = (load(place / "posteriors" / f"{name}.nc") for place in (folder, whole))
        for group in ("layer_1", "moments_1", "training"):
            for variable, values in schema.dataset(other, group).data_vars.items():
                np.testing.assert_array_equal(schema.dataset(one, group)[variable], values)
    assert not list((folder / "posteriors").glob(".under-way-*"))


def test_run_without_resume_starts_the_fit_anew(script, tmp_path, monkeypatch):
    folder, epochs = tmp_path / "cut", []
    stopped(script, folder, monkeypatch, guide="AutoDiagonalLaplace")

    def seen(self, bar):
        epochs.append(self.epoch)
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_train_epoch", seen)
    assert run(script, folder) == 130
    assert epochs == [0]


def test_fit_under_way_with_other_settings_is_refused(script, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cut"
    stopped(script, folder, monkeypatch, guide="AutoDiagonalLaplace")
    assert run(script, folder, "--resume", "--learning-rate", "0.01") == 2
    assert "but this one's learning_rate differs" in capsys.readouterr().err
