"""Local reparametrisation: sample what a layer puts out instead of its weights.

With independent Normal weights the output of a Linear or convolutional layer at one position is Normal, with the mean
weights' output as mean and the variances' response to the squared input as variance. Drawing it for each datum on its own
gives the same expectation of the log-likelihood as drawing the weights once for the batch, with far less noise (Kingma,
Salimans and Welling 2015, Variational Dropout and the Local Reparameterization Trick, eq. 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from wiu_pyro.errors import ModelError

__all__ = ["covers", "local_noise"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
TINY = 1e-20  # the square root's slope is infinite at a variance of zero


def covers(module: nn.Module | None, parameters: set[str]) -> bool:
    """Return whether a layer's output can be sampled: Linear or a convolution whose sampled parameters are its own."""
    return isinstance(module, LAYERS) and "weight" in parameters and parameters <= {"weight", "bias"}


@contextmanager
def local_noise(layers: Mapping[str, nn.Module], variances: Mapping[str, Mapping[str, torch.Tensor]]) -> Iterator[None]:
    """Add to each layer's output the noise its weights' variances make; run the network at the mean weights inside.

    Parameters
    ----------
    layers : mapping of str to Module
        Those `covers` says yes to.
    variances : mapping of str to mapping of str to Tensor
        Of each layer, the variances of ``"weight"`` and ``"bias"``, in the parameters' shapes.

    Yields
    ------
    None

    Raises
    ------
    ModelError
        If a layer is called twice in a pass: its two outputs share their weights and are not independent.
    """
    called: set[str] = set()

    def hook(name: str) -> Callable[..., torch.Tensor]:
        def disturb(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            if name in called:
                raise ModelError(
                    f"Local reparametrisation needs each layer to be used once in a pass, but '{name}' was called twice. "
                    'Use AutoMeanField(model, estimator="reparam").'
                )
            called.add(name)
            variance = _respond(module, args[0].square(), variances[name]["weight"], variances[name].get("bias"))
            return output + (variance + TINY).sqrt() * torch.randn_like(output)

        return disturb

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _respond(module: nn.Module, squares: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if isinstance(module, nn.Linear):
        return F.linear(squares, weight, bias)
    return module._conv_forward(squares, weight, bias)
