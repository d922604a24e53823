"""A Linear layer with Normal weights whose output is drawn for each datum, with its gradient written out.

Kingma, Salimans and Welling (2015), Variational Dropout and the Local Reparameterization Trick, eq. 6.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd.function import once_differentiable

__all__ = ["TINY", "local_linear"]

TINY = 1e-20  # the square root's slope is infinite at a variance of zero


def local_linear(
    layer_input: torch.Tensor,
    loc: torch.Tensor,
    scale: torch.Tensor,
    bias_loc: torch.Tensor | None = None,
    bias_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return x M' + m + sqrt(x² (S²)' + s²) ε with one standard Normal ε for each datum and unit.

    Parameters
    ----------
    layer_input : Tensor, shape (..., in)
    loc, scale : Tensor, shape (out, in)
        Mean and sd of each weight.
    bias_loc, bias_scale : Tensor, shape (out,), optional
        Mean and sd of each bias; without an sd the bias is fixed.

    Returns
    -------
    Tensor, shape (..., out)
    """
    shape = (*layer_input.shape[:-1], len(loc))
    noise = torch.randn(shape, dtype=loc.dtype, device=loc.device)
    if layer_input.dim() != 2 or torch.is_autocast_enabled(loc.device.type):
        variance = F.linear(layer_input.square(), scale.square(), None if bias_scale is None else bias_scale.square())
        return F.linear(layer_input, loc, bias_loc) + (variance + TINY).sqrt() * noise
    return _LocalLinear.apply(layer_input, loc, scale, bias_loc, bias_scale, noise)


class _LocalLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layer_input: torch.Tensor,
        loc: torch.Tensor,
        scale: torch.Tensor,
        bias_loc: torch.Tensor | None,
        bias_scale: torch.Tensor | None,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        variances, squares = scale.square(), layer_input.square()
        sd = F.linear(squares, variances, None if bias_scale is None else bias_scale.square()).add_(TINY).sqrt_()
        ctx.save_for_backward(layer_input, loc, scale, bias_scale, variances, squares, noise / sd)
        ctx.has_bias = bias_loc is not None
        return F.linear(layer_input, loc, bias_loc).addcmul_(sd, noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layer_input, loc, scale, bias_scale, variances, squares, slope = ctx.saved_tensors
        grad_variance = grad * slope  # twice the gradient of the output's variance: d sd / d variance = 1 / (2 sd)
        grad_input = grad_bias = grad_bias_scale = None
        if ctx.needs_input_grad[0]:
            grad_input = (grad @ loc).addcmul_(grad_variance @ variances, layer_input)
        grad_loc = grad.t() @ layer_input
        grad_scale = (grad_variance.t() @ squares).mul_(scale)
        if ctx.has_bias:
            grad_bias = grad.sum(0)
        if bias_scale is not None:
            grad_bias_scale = grad_variance.sum(0).mul_(bias_scale)
        return grad_input, grad_loc, grad_scale, grad_bias, grad_bias_scale, None
