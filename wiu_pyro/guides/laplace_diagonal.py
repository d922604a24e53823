"""Diagonal Laplace: an independent Normal for each weight, from the exact diagonal of the curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wiu_pyro.guides.laplace_layers import AutoLaplace

__all__ = ["AutoDiagonalLaplace"]


class AutoDiagonalLaplace(AutoLaplace):
    """Laplace approximation with a diagonal precision: the posterior sd is the conditional one of each weight.

    Takes a Normal prior of any scales. Parameters and errors are those of `LaplaceGuide`.
    """

    cli_name = "laplace-diag"
    structure_name = "diagonal"

    def __init__(self, model: Callable[..., Any], **options: Any) -> None:
        super().__init__(model, structure="diagonal", **options)
