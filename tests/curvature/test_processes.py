"""Two processes that share the data hold the posterior of one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from tests.curvature.share import posteriors

pytestmark = pytest.mark.slow

NAMES = (
    "kfac",
    "kfac-sampled",
    "ekfac",
    "ekfac-sampled",
    "mixed",
    "full",
    "hessian",
    "subnetwork",
    "five batches",
    "one batch",
    "shuffled",
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.curvature.share", str(rank), "2", str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"2-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return posteriors()


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_posterior_of_one(name, shared, alone):
    first, second = (one["posteriors"][name] for one in shared)
    for mine, other, expected in zip(first, second, alone[name], strict=True):
        assert torch.equal(mine, other)
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=0.0)


def test_two_processes_average_a_curvature_in_the_same_rounds(shared):
    """Each sees other data, on which the outputs' variance settles in other rounds."""
    for mine, other in zip(*(one["averaged"] for one in shared), strict=True):
        assert torch.equal(mine, other)


def test_failure_of_one_process_is_said_by_all(shared):
    assert "The network's output must be finite, but batch 1 gave NaN" in shared[1]["refused"][0]
    assert "process 1 of 2 failed: DataError: The network's output must be finite" in shared[0]["refused"][0]


def test_processes_with_other_weights_are_refused(shared):
    for one in shared:
        assert "need the same weights, but those of process 1 differ from process 0's" in one["refused"][1]
