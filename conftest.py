"""What every test and doctest shares: global state restored, no display, real data where it is found."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Restore dtype, random states, Pyro's parameter store and matplotlib's figures after every test."""
    import matplotlib.pyplot as plt
    import pyro
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    pyro.clear_param_store()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    pyro.clear_param_store()
    plt.close("all")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `needs_data` tests where the files they name are not there.

    ``@pytest.mark.needs_data("MNIST")`` names folders inside ``WIU_DATA``; without a name, MNIST is meant.
    """
    root = os.environ.get("WIU_DATA")
    for item in items:
        for mark in item.iter_markers("needs_data"):
            wanted = mark.args or ("MNIST",)
            missing = [name for name in wanted if not (root and (Path(root) / name).exists())]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"WIU_DATA holds no {', '.join(missing)}"))


@pytest.fixture
def data_root() -> Path:
    """Give the folder WIU_DATA, or skip the test where it is not set."""
    root = os.environ.get("WIU_DATA")
    if not root:
        pytest.skip("WIU_DATA is not set")
    return Path(root)
