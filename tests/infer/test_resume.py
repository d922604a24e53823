"""A fit that was killed goes on and ends as one that was never stopped, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pyro.infer import autoguide
from torch import nn

import wiu_pyro as wiu
from tests.infer.killed import data, whole_fit
from wiu_pyro.errors import FitError
from wiu_pyro.guides import AutoKFACLaplace, AutoMeanField, AutoSWAG, PriorTuning
from wiu_pyro.infer.fit_checkpoint import training_path
from wiu_pyro.infer.training import Training
from wiu_pyro.nn import BayesianNetwork, Normal

ONLINE = PriorTuning(when="online", per="layer")
BY_CLOSED_FORM = PriorTuning("empirical-bayes", per="layer", when="online", burn_in=2)
FITS = {
    "mean field": (AutoMeanField, {}),
    "recipe": (AutoMeanField, {"kl_warmup": 1, "rate_warmup": 1, "log_scale_rate": 3.0, "average": 0.6, "track": 2}),
    "early stopping": (AutoMeanField, {"patience": 5, "learning_rate": 0.1}),
    "empirical Bayes": (AutoMeanField, {"tune_prior": BY_CLOSED_FORM, "track": "epoch"}),
    "Laplace": (AutoKFACLaplace, {"track": "epoch"}),
    "Laplace, prior tuned online": (AutoKFACLaplace, {"tune_prior": ONLINE}),
    "SWAG": (AutoSWAG, {}),
    "Pyro's own": (autoguide.AutoNormal, {}),
}


class Killed(BaseException):
    """Nothing on the way may catch it."""


def network(**options) -> BayesianNetwork:
    torch.manual_seed(0)
    return BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), **options)


def fit(guide_class=AutoMeanField, *, model=None, source=None, **options):
    model = model or network()
    options = {"epochs": 6, "batch_size": 12, "validation": data(), **options}
    return wiu.fit(model, guide_class(model), source or data(), **options)


def killed(monkeypatch, guide_class=AutoMeanField, *, after: int = 3, **options) -> None:
    """Stop a fit in the epoch after that number."""
    train = Training._train_epoch

    def cut(self, bar):
        train(self, bar)
        if self.epoch > after:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_train_epoch", cut)
        with pytest.raises(Killed):
            fit(guide_class, **options)


def assert_same(one: wiu.Fit, other: wiu.Fit) -> None:
    assert np.array_equal(one.losses, other.losses)
    assert one.convergence == other.convergence or np.isnan(one.convergence.change)
    assert one.validation.keys() == other.validation.keys()
    assert all(np.array_equal(one.validation[name], other.validation[name]) for name in one.validation)
    draws = [next(iter(wiu.infer.draw_weights(found, num_samples=1))) for found in (one, other)]
    for parts in ((one.point_estimate, other.point_estimate), (one.unsampled, other.unsampled), tuple(draws)):
        assert parts[0].keys() == parts[1].keys()
        assert all(torch.equal(parts[0][name], parts[1][name]) for name in parts[0])
    assert (one.track is None) == (other.track is None)
    if one.track is not None:
        for name, values in one.track.figures.items():
            assert np.array_equal(values, other.track.figures[name], equal_nan=True)


@pytest.mark.parametrize("name", FITS)
def test_killed_fit_ends_as_one_that_was_never_stopped(name, tmp_path, monkeypatch):
    guide_class, options = FITS[name]
    whole = fit(guide_class, **options)
    path = tmp_path / "fit.ckpt"
    killed(monkeypatch, guide_class, checkpoint=path, **options)
    assert training_path(path).is_file()
    steps, step = [], Training._step

    def counted(self, batch):
        steps.append(self.epoch)
        return step(self, batch)

    monkeypatch.setattr(Training, "_step", counted)
    again = fit(guide_class, checkpoint=path, **options)
    assert min(steps) == 3
    assert_same(again, whole)
    assert not list(tmp_path.iterdir())


def test_same_guide_goes_on_after_an_interrupt(tmp_path, monkeypatch):
    """As in a notebook, where the cell is run again with the objects that are there."""
    model = network()
    guide, options = AutoMeanField(model), {"epochs": 6, "batch_size": 12, "checkpoint": tmp_path / "fit.ckpt"}
    train = Training._train_epoch
    with monkeypatch.context() as patched:
        patched.setattr(Training, "_train_epoch", lambda self, bar: _interrupted(self, bar, train))
        with pytest.raises(KeyboardInterrupt):
            wiu.fit(model, guide, data(), **options)
    again = wiu.fit(model, guide, data(), **options)
    assert_same(again, fit(validation=None))


def _interrupted(training, bar, train):
    train(training, bar)
    if training.epoch == 4:
        raise KeyboardInterrupt


def test_fit_killed_in_the_curvature_pass_does_not_train_again(tmp_path, monkeypatch):
    whole = fit(AutoKFACLaplace)
    with monkeypatch.context() as patched:
        patched.setattr(AutoKFACLaplace, "laplace_approximation", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            fit(AutoKFACLaplace, checkpoint=tmp_path / "fit.ckpt")
    monkeypatch.setattr(Training, "_step", lambda *_: pytest.fail("trained"))
    assert_same(fit(AutoKFACLaplace, checkpoint=tmp_path / "fit.ckpt"), whole)


@pytest.mark.training
def test_process_killed_at_some_moment_goes_on(tmp_path):
    path = tmp_path / "fit.ckpt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.infer.killed", str(path)]
    for _ in range(20):  # the file is there for a part of a second: look until the process was caught in it
        child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        if _caught(child, training_path(path), delay=0.01):
            break
    assert training_path(path).is_file()
    torch.set_num_threads(1)
    assert_same(whole_fit(str(path)), whole_fit())


def _caught(child: subprocess.Popen, file: Path, *, delay: float) -> bool:
    """Kill a process a moment after it has written a file, and return whether the file was left."""
    while child.poll() is None and not file.exists():
        time.sleep(0.001)
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return child.returncode == -signal.SIGKILL and file.exists()


OTHERS = {
    "learning_rate": {"learning_rate": 0.01},
    "epochs": {"epochs": 7},
    "seed": {"seed": 1},
    "kl_warmup": {"kl_warmup": 2},
    "data": {"source": (data()[0] + 1, data()[1])},
    "validation": {"validation": (data()[0][:20], data()[1][:20])},
}


@pytest.mark.parametrize("name", OTHERS)
def test_checkpoint_of_another_fit_is_refused_and_says_what_differs(name, tmp_path, monkeypatch):
    killed(monkeypatch, checkpoint=tmp_path / "fit.ckpt")
    with pytest.raises(FitError, match=f"but this one's {name} differs. Remove it, or give checkpoint= another path"):
        fit(checkpoint=tmp_path / "fit.ckpt", **OTHERS[name])


def test_checkpoint_of_another_model_guide_or_start_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "fit.ckpt"
    killed(monkeypatch, checkpoint=path)
    with pytest.raises(FitError, match="this one's model differs"):
        fit(model=network(prior=Normal(0.3)), checkpoint=path)
    moved = network()
    moved.net[0].weight += 1
    with pytest.raises(FitError, match="this one's start differs"):
        fit(model=moved, checkpoint=path)
    with pytest.raises(FitError, match="this one's start differs"):
        fit(start={name: torch.ones_like(value) for name, value in network().net.named_buffers()}, checkpoint=path)
    with pytest.raises(FitError, match="this one's guide differs"):
        fit(lambda model: AutoMeanField(model, estimator="reparam"), checkpoint=path)


def test_file_that_is_no_checkpoint_of_a_training_is_refused(tmp_path):
    training_path(tmp_path / "fit.ckpt").write_bytes(b"something else")
    with pytest.raises(FitError, match="A checkpoint of a training is needed, but the file cannot be read"):
        fit(checkpoint=tmp_path / "fit.ckpt")


def test_fit_is_the_same_with_a_checkpoint_and_without(tmp_path):
    assert_same(fit(checkpoint=tmp_path / "fit.ckpt"), fit())


def test_checkpoint_is_written_no_more_often_than_asked(tmp_path, monkeypatch):
    written, write = [], wiu.curvature.Checkpoint.write
    monkeypatch.setattr(
        wiu.curvature.Checkpoint, "write", lambda self, state: (written.append(state["epoch"]), write(self, state))
    )
    fit(checkpoint=tmp_path / "fit.ckpt", checkpoint_seconds=3600.0)
    assert written == [6]
    fit(checkpoint=tmp_path / "fit.ckpt")
    assert written[1:] == [1, 2, 3, 4, 5, 6]
