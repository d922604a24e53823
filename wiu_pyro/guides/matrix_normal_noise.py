"""Noise of a matrix-variate Normal weight as noise of the layer's output.

With W ~ MN(M, U, V) the output of a Linear layer on a vector x is N(M x, (x' V x) U): drawn for each datum, it is local
reparametrisation with all correlations between outputs in it (Louizos and Welling 2016, section 3.2). Where weights are
used at several positions, they are drawn, for each part of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from wiu_pyro.guides.matrix_normal_factors import LayerFactors
from wiu_pyro.guides.output_noise import Moments
from wiu_pyro.guides.weight_draw import DrawSource

__all__ = ["MatrixSource"]

PARTS = 2  # of a batch, with opposite noise where weights are drawn for it


class MatrixSource(DrawSource):
    """A draw of one layer's weights around their mean, made only where it is needed as such.

    Parameters
    ----------
    loc : Tensor, shape (numel,)
        Means of the layer's parameters, one after another.
    factors : LayerFactors
    num_rows : int
        Rows of a layer's input when each is a datum.
    """

    def __init__(self, loc: torch.Tensor, factors: LayerFactors, *, num_rows: int) -> None:
        super().__init__(loc, torch.zeros_like(loc), self, num_rows=num_rows)  # type: ignore[arg-type]
        self.factors = factors
        self.around: torch.Tensor | None = None

    def value(self, span: tuple[int, int], moments: Any = None) -> torch.Tensor:
        """Return the drawn weights of a part, flat, on the graph of means and factors; one draw for all parts."""
        if self.around is None:
            parts = self._noise(1)
            self.around = torch.cat([parts[name].reshape(-1) for name in self.factors.rule.shapes])
        return (self.loc + self.around)[span[0] : span[1]]

    def _noise(self, num: int) -> dict[str, torch.Tensor]:
        """Return `num` draws around zero, in pairs of opposite noise, of shape (num, *shape)."""
        noise = torch.randn((num + 1) // 2, *self.factors.matrix_shape, dtype=self.loc.dtype, device=self.loc.device)
        found = self.factors.colour(noise)
        return {name: torch.cat([part, -part])[:num] for name, part in found.items()}

    def needs_draw(self, *, vectors: bool) -> bool:
        """Return whether a layer takes one draw for the batch: never."""
        return False

    def linear(self, layer_input: torch.Tensor, weight: Moments, bias: Moments | None) -> torch.Tensor:
        """Return the sampled output of a Linear layer: for each datum, or with weights for parts of the batch."""
        if layer_input.dim() != 2:
            return self.convolution(F.linear, layer_input, weight, bias)
        output = F.linear(layer_input, weight.loc, None if bias is None else bias.loc)
        inputs = layer_input
        if "bias" in self.factors.rule.shapes:
            inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], -1)
        spread = self.factors.columns.lengths(inputs)  # (batch,)
        noise = self.factors.rows.times(torch.randn_like(output).mT[None])[0].mT  # (batch, out)
        return torch.addcmul(output, spread[:, None], noise)

    def convolution(
        self, operation: Any, layer_input: torch.Tensor, weight: Moments, bias: Moments | None, *options: Any
    ) -> torch.Tensor:
        """Return the sampled output of a layer that uses its weights at several positions."""
        parts = layer_input.chunk(PARTS)
        noise = self._noise(len(parts))
        weights = (weight.loc + noise["weight"]).unbind()
        biases = (None,) * len(parts) if bias is None else (bias.loc + noise["bias"]).unbind()
        return torch.cat([operation(*drawn, *options) for drawn in zip(parts, weights, biases, strict=True)])
