"""What predictions of whole test sets are judged by: scores of class probabilities, and the sets they are taken on."""

from __future__ import annotations

import numpy as np
import torch

from wiu_pyro import metrics
from wiu_pyro.datasets import load

__all__ = ["scores", "sets_of_images"]

Pair = tuple[torch.Tensor, torch.Tensor]


def sets_of_images() -> tuple[Pair, Pair, Pair]:
    """Return MNIST's training and test images, and the letters of notMNIST, which are none of its classes."""
    train, test, letters = (
        load(name, split=split).tensors for name, split in (("mnist", "train"), ("mnist", "test"), ("notmnist", "test"))
    )
    return train, test, letters


def scores(known: np.ndarray, labels: np.ndarray, unknown: np.ndarray, *, by_entropy: bool = False) -> dict[str, float]:
    """Return the scores of class probabilities: of test images with labels, and of images of none of the classes.

    Parameters
    ----------
    known : ndarray, shape (num_images, num_classes)
    labels : ndarray, shape (num_images,)
    unknown : ndarray, shape (num_others, num_classes)
    by_entropy : bool
        Tell the others by the entropy of their probabilities, not by the largest of them.

    Returns
    -------
    dict of str to float
        Error and AUROC in percent, NLL in nats per image, ECE.
    """
    both = np.concatenate([known, unknown])
    strangeness = -np.sum(both * np.log(np.clip(both, 1e-12, None)), -1) if by_entropy else -both.max(-1)
    return {
        "error %": 100 * (1 - metrics.accuracy(known, labels)),
        "NLL": metrics.nll(known, labels),
        "ECE": metrics.ece(known, labels),
        "AUROC": 100 * metrics.auroc(strangeness, np.repeat([False, True], [len(known), len(unknown)])),
    }
