"""KFAC Laplace: a Kronecker-factored Gaussian for each layer, weight and bias in one block.

Ritter et al. (2018), A Scalable Laplace Approximation for Neural Networks. The prior enters exactly, as Q ⊗ I with one
precision per input column, by whitening the input factor; no damping is put on the factors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wiu_pyro.guides.laplace_layers import AutoLaplace

__all__ = ["AutoKFACLaplace"]


class AutoKFACLaplace(AutoLaplace):
    """Laplace approximation with a Kronecker-factored block for each Linear, convolution and transposed convolution.

    All other parameters (norms, embeddings, attention's projections, recurrent layers, parameters of no layer) get
    their exact diagonal, which a warning and the ``layers`` table say. ``weight_sharing="reduce"`` takes the other form
    of the factors where weights are used at several positions: see `wiu_pyro.curvature.KroneckerFactors`.

    The prior's scale may differ between the input columns of a layer (weight and bias, say), not within one. Parameters
    and errors are those of `LaplaceGuide`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Linear(4, 3), num_data=8).eval()
    >>> posterior = AutoKFACLaplace(model).laplace_approximation(torch.ones(8, 4), torch.zeros(8).long())
    >>> posterior.blocks[0].precision.variance().shape
    torch.Size([15])
    """

    cli_name = "laplace-kfac"
    structure_name = "kfac"

    def __init__(self, model: Callable[..., Any], **options: Any) -> None:
        super().__init__(model, structure="kfac", **options)
