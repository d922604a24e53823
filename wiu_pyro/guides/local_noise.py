"""The noise of a layer's weights as noise of its output, another for each datum: the same −ELBO, with far less noise.

With independent Normal weights the output of a Linear layer on a vector is Normal and its units are independent, with
the mean weights' output as mean and the variances' response to the squared input as variance: drawing it for each datum
is local reparametrisation (Kingma, Salimans and Welling 2015, Variational Dropout and the Local Reparameterization
Trick, eq. 6). Where one weight is used at several positions, in convolutions and along sequences, the outputs of a
datum are correlated between positions, and drawing each on its own would be the ELBO of another posterior, whose weight
noise averages out. There the noise comes by flipout (Wen et al. 2018, Flipout: Efficient Pseudo-Independent Weight
Perturbations, eq. 4): one draw of the weights for the batch, with random signs of inputs and outputs for each datum.
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
        def disturb(
            module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor
        ) -> torch.Tensor:
            if name in called:
                raise ModelError(
                    f"Sampling a layer's output needs each layer to be used once in a pass, but '{name}' was called "
                    'twice. Use AutoMeanField(model, estimator="reparam").'
                )
            called.add(name)
            layer_input = args[0] if args else next(iter(named.values()))
            weight, bias = variances[name]["weight"], variances[name].get("bias")
            if isinstance(module, nn.Linear) and layer_input.dim() == 2:
                variance = F.linear(layer_input.square(), weight, bias)
                return output + (variance + TINY).sqrt() * torch.randn_like(output)
            return output + _flipout(module, layer_input, weight, bias)

        return disturb

    handles = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _flipout(
    module: nn.Module, layer_input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return weight noise as output noise, for a layer that uses its weights at several positions.

    Parameters
    ----------
    module : Module
    layer_input : Tensor, shape (batch, in, *positions), or (batch, *positions, in) for a Linear layer
    weight, bias : Tensor
        Variances.

    Returns
    -------
    Tensor, in the shape of the layer's output
    """
    channel = -1 if isinstance(module, nn.Linear) else 1
    perturbation = weight.sqrt() * torch.randn_like(weight)
    disturbed = layer_input * _signs(layer_input, layer_input.shape[channel], channel)
    if isinstance(module, nn.Linear):
        noise = F.linear(disturbed, perturbation)
    else:
        noise = module._conv_forward(disturbed, perturbation, None)  # type: ignore[operator]
    noise = noise * _signs(noise, noise.shape[channel], channel)
    if bias is None:
        return noise
    shape = _per_datum(noise, len(bias), channel)
    return noise + bias.sqrt().view(shape[1:]) * torch.randn(shape, dtype=noise.dtype, device=noise.device)


def _per_datum(like: torch.Tensor, channels: int, channel: int) -> tuple[int, ...]:
    """Return the shape of one number for each datum and channel, the same at all positions."""
    shape = [len(like), *[1] * (like.dim() - 1)]
    shape[channel] = channels
    return tuple(shape)


def _signs(like: torch.Tensor, channels: int, channel: int) -> torch.Tensor:
    draws = torch.randint(0, 2, _per_datum(like, channels, channel), device=like.device)
    return (2 * draws - 1).to(like.dtype)
