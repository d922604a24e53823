"""The noise of a layer's weights as noise of its output: the same −ELBO, with less noise of its own.

With independent Normal weights the output of a Linear layer on a vector is Normal and its units are independent, with
the mean weights' output as mean and the variances' response to the squared input as variance: drawing it for each datum
is local reparametrisation (Kingma, Salimans and Welling 2015, Variational Dropout and the Local Reparameterization
Trick, eq. 6). Where one weight is used at several positions, in convolutions and along sequences, the outputs of a
datum are correlated between positions, and drawing each on its own is the ELBO of another posterior, whose noise
averages out. There, three ways keep the expectation: one draw of the weights for the batch; two, of opposite noise, for
its halves, so that most of the noise cancels; and flipout (Wen et al. 2018, Flipout: Efficient Pseudo-Independent
Weight Perturbations, eq. 4), one draw with random signs of inputs and outputs for each datum, at the price of a second
pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from wiu_pyro.guides.local_linear import TINY, local_linear

__all__ = ["RULES", "Moments", "OutputNoise"]

Operation = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Moments:
    """A parameter's means and sds, of one shape; sds are None where it is not random."""

    loc: torch.Tensor
    scale: torch.Tensor | None = None


@dataclass(frozen=True)
class OutputNoise:
    """How a layer's output is sampled.

    Attributes
    ----------
    vectors : {"local", "flipout", "parts"}
        For a Linear layer on one vector per datum.
    positions : {"parts", "flipout", "local"}
        For a layer that uses its weights at several positions of a datum.
    num_parts : int
        Parts of the batch, each with a draw of its own, in pairs of opposite noise; 1 is one draw for the batch.
    """

    vectors: str
    positions: str
    num_parts: int = 1

    def with_particles(self, num: int) -> OutputNoise:
        """Return it for a batch that is `num` copies of a batch, one after the other, each with draws of its own."""
        return replace(self, num_parts=num * self.num_parts)

    def needs_draw(self, *, vectors: bool) -> bool:
        """Return whether a layer, on one vector per datum or on several positions, takes one draw for the batch."""
        return (self.vectors if vectors else self.positions) == "parts" and self.num_parts == 1

    def linear(self, layer_input: torch.Tensor, weight: Moments, bias: Moments | None) -> torch.Tensor:
        """Return the sampled output of a Linear layer.

        Parameters
        ----------
        layer_input : Tensor, shape (batch, *positions, in)
        weight : Moments, shape (out, in)
        bias : Moments, shape (out,), optional

        Returns
        -------
        Tensor, shape (batch, *positions, out)
        """
        how = self.vectors if layer_input.dim() == 2 else self.positions
        if how == "local":
            return local_linear(layer_input, weight.loc, _sd(weight), *(_loc_sd(bias)))
        if how == "flipout":
            return _flipout(F.linear, layer_input, weight, bias, channel=-1)
        return self._parts(F.linear, layer_input, weight, bias)

    def convolution(
        self, operation: Operation, layer_input: torch.Tensor, weight: Moments, bias: Moments | None, *options: Any
    ) -> torch.Tensor:
        """Return the sampled output of a convolution.

        Parameters
        ----------
        operation : callable
            `torch.nn.functional.conv1d`, `conv2d` or `conv3d`.
        layer_input : Tensor, shape (batch, in, *positions)
        weight : Moments, shape (out, in / groups, *kernel)
        bias : Moments, shape (out,), optional
        *options
            Stride, padding, dilation and groups, as `operation` takes them.

        Returns
        -------
        Tensor, shape (batch, out, *positions)
        """
        if self.positions == "local":
            return _independent_positions(operation, layer_input, weight, bias, *options)
        if self.positions == "flipout":
            return _flipout(operation, layer_input, weight, bias, *options, channel=1)
        return self._parts(operation, layer_input, weight, bias, *options)

    def _parts(
        self, operation: Operation, layer_input: torch.Tensor, weight: Moments, bias: Moments | None, *options: Any
    ) -> torch.Tensor:
        parts = layer_input.chunk(self.num_parts)
        weights = _draws(weight, len(parts))
        biases = (None,) * len(parts) if bias is None else _draws(bias, len(parts))
        return torch.cat([operation(*drawn, *options) for drawn in zip(parts, weights, biases, strict=True)])


RULES = {
    "local": OutputNoise("local", "parts"),
    "local_antithetic": OutputNoise("local", "parts", num_parts=2),
    "flipout": OutputNoise("flipout", "flipout"),
    "reparam": OutputNoise("parts", "parts"),
    "local_positions": OutputNoise("local", "local"),
}


def _sd(moments: Moments) -> torch.Tensor:
    return torch.zeros_like(moments.loc) if moments.scale is None else moments.scale


def _loc_sd(bias: Moments | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    return (None, None) if bias is None else (bias.loc, bias.scale)


def _draws(moments: Moments, num: int) -> tuple[torch.Tensor, ...]:
    """Return `num` draws, in pairs of opposite noise: the errors of a pair's first order cancel."""
    if moments.scale is None:
        return (moments.loc,) * num
    noise = torch.randn(((num + 1) // 2, *moments.loc.shape), dtype=moments.loc.dtype, device=moments.loc.device)
    noise = torch.cat([noise, -noise])[:num]
    return torch.addcmul(moments.loc, moments.scale, noise).unbind()


def _flipout(
    operation: Operation,
    layer_input: torch.Tensor,
    weight: Moments,
    bias: Moments | None,
    *options: Any,
    channel: int,
) -> torch.Tensor:
    output = operation(layer_input, weight.loc, None if bias is None else bias.loc, *options)
    if weight.scale is not None:
        perturbation = weight.scale * torch.randn_like(weight.loc)
        disturbed = layer_input * _signs(layer_input, channel)
        output = output + operation(disturbed, perturbation, None, *options) * _signs(output, channel)
    if bias is None or bias.scale is None:
        return output
    shape = _per_datum(output, channel)
    noise = torch.randn(shape, dtype=output.dtype, device=output.device)
    return output + bias.scale.view(shape[1:] if channel == -1 else (-1, *shape[2:])) * noise


def _independent_positions(
    operation: Operation, layer_input: torch.Tensor, weight: Moments, bias: Moments | None, *options: Any
) -> torch.Tensor:
    loc, sd = _loc_sd(bias)
    output = operation(layer_input, weight.loc, loc, *options)
    variance = operation(layer_input.square(), _sd(weight).square(), None if sd is None else sd.square(), *options)
    # relu: a fast convolution may round a variance of nearly zero below it
    return output + (variance.relu() + TINY).sqrt() * torch.randn_like(output)


def _per_datum(like: torch.Tensor, channel: int) -> tuple[int, ...]:
    """Return the shape of one number for each datum and channel, the same at all positions."""
    shape = [len(like), *[1] * (like.dim() - 1)]
    shape[channel] = like.shape[channel]
    return tuple(shape)


def _signs(like: torch.Tensor, channel: int) -> torch.Tensor:
    draws = torch.randint(0, 2, _per_datum(like, channel), device=like.device)
    return (2 * draws - 1).to(like.dtype)
