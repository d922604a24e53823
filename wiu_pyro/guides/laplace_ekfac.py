"""EKFAC Laplace: Kronecker factors whose eigenvalues are measured, not multiplied out.

George et al. (2018), Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis. Costs a second pass
over the data; the prior enters exactly, as in `AutoKFACLaplace`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wiu_pyro.guides.laplace_layers import AutoLaplace

__all__ = ["AutoEKFACLaplace"]


class AutoEKFACLaplace(AutoLaplace):
    """Laplace approximation with eigenvalue-corrected Kronecker factors for each layer; others get a diagonal.

    Never further from the exact block of a layer than KFAC, in Frobenius norm and in the prior's units. Parameters and
    errors are those of `LaplaceGuide`, priors as for `AutoKFACLaplace`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Linear(4, 3), num_data=8).eval()
    >>> posterior = AutoEKFACLaplace(model).laplace_approximation(torch.ones(8, 4), torch.zeros(8).long())
    >>> posterior.blocks[0].structure
    'ekfac'
    """

    cli_name = "laplace-ekfac"
    structure_name = "ekfac"

    def __init__(self, model: Callable[..., Any], **options: Any) -> None:
        super().__init__(model, structure="ekfac", **options)
