"""Two processes that share a training end with the parameters of one."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.infer.share import EXACT, FITS, data, fits, gradient_and_elbo
from wiu_pyro.guides import by_name, known_guides
from wiu_pyro.guides.ensemble import PREFIX
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.infer.shares import _noise_per_datum
from wiu_pyro.nn import BayesianNetwork

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.infer.share", str(rank), "2", str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [child.communicate(timeout=240)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"2-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return fits()


@pytest.mark.parametrize("name", FITS)
def test_two_processes_hold_the_same(name, shared):
    first, second = (one["fits"][name] for one in shared)
    for part in ("losses", "nll", "weights"):
        assert torch.equal(first[part], second[part])
    assert all(torch.equal(one, other) for one, other in zip(first["beside"], second["beside"], strict=True))
    assert first["processes"] == 2


@pytest.mark.parametrize("name", EXACT)
def test_two_processes_have_the_fit_of_one_where_weights_alone_are_drawn(name, shared, alone):
    found, expected = shared[0]["fits"][name], alone[name]
    for part in ("losses", "nll", "weights"):
        torch.testing.assert_close(found[part], expected[part], rtol=2e-4, atol=1e-5)


def test_noise_of_single_data_is_drawn_apart_and_the_expected_elbo_is_the_same(shared):
    found, expected = shared[0]["elbo"], gradient_and_elbo()
    assert found["mean"] == pytest.approx(expected["mean"], abs=4 * (found["se"] ** 2 + expected["se"] ** 2) ** 0.5)
    assert found["se"] == pytest.approx(expected["se"], rel=0.25)  # noise in common would make it greater


@pytest.mark.parametrize("name", [name for name in known_guides() if not name.startswith(PREFIX)])
def test_guides_whose_random_numbers_grow_with_the_batch_have_them_drawn_apart(name):
    model = BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.2), nn.Linear(5, 3)), num_data=33)
    if name != "mc-dropout":
        model.net[2].p = 0.0
    guide = by_name(name)(model)
    if not isinstance(guide, NetworkGuide):
        return  # Pyro's own draw weights alone
    guide.setup(data())
    after = []
    for rows in (3, 33):
        torch.manual_seed(0)
        guide.negative_elbo(*(part[:rows] for part in data()))
        after.append(torch.rand(()).item())
    assert _noise_per_datum(SimpleNamespace(model=model, guide=guide)) or after[0] == after[1]


def test_processes_go_on_together_after_they_were_stopped(shared):
    for one in shared:
        for part in ("losses", "nll", "weights"):
            assert torch.equal(one["resumed"]["again"][part], one["resumed"]["whole"][part])


def test_failure_of_one_process_is_said_by_all(shared):
    assert "DataError: Labels" in shared[1]["refused"][0]
    assert "process 1 of 2 failed: see its own output" in shared[0]["refused"][0]


def test_processes_with_other_weights_are_refused(shared):
    for one in shared:
        assert "need the same parameters, but those of process 1 differ from process 0's" in one["refused"][1]


def test_model_that_does_not_scale_its_likelihood_is_refused(shared):
    for one in shared:
        assert "ModelError: Processes that share a batch need a likelihood scaled to all data" in one["refused"][2]
