"""Random numbers of one task, which leave the global random state as they found it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["draw_seed", "seeded"]


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch, NumPy and Python inside the context; put their states back afterwards.

    Parameters
    ----------
    seed : int
    device : device, optional
        A GPU whose generator is seeded as well; no other GPU is touched.

    Yields
    ------
    None
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global state is what is kept)
    gpu = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpu):
        # torch.manual_seed would seed every GPU of the machine
        torch.default_generator.manual_seed(seed)
        if gpu:
            with torch.cuda.device(gpu[0]):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def draw_seed(seed: int, number: int) -> int:
    """Return the seed of one draw of many, so that each can be made without those before it.

    Parameters
    ----------
    seed : int
        Of all draws together.
    number : int
        From 0.

    Returns
    -------
    int
    """
    return seed * 1_000_003 + number
