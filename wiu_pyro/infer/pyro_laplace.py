"""Pyro's own AutoLaplaceApproximation, fitted as the toolkit's guides are: cost said first, failure explained."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation

from wiu_pyro.errors import CostError, CurvatureError
from wiu_pyro.guides.block_normal import CurvatureRecord
from wiu_pyro.nn import as_batches

__all__ = ["pyro_laplace", "refuse_cost"]

MAX_BYTES = 4 * 2**30  # of the dense Hessian, its inverse and its factor


def refuse_cost(guide: AutoLaplaceApproximation) -> None:
    """Raise CostError where the Hessian would not fit."""
    needed = 3 * 4 * guide.latent_dim**2
    if needed > MAX_BYTES:
        raise CostError(
            f"Pyro's AutoLaplaceApproximation of {guide.latent_dim:,} weights needs "
            f"{needed / 2**30:,.1f} GiB for the Hessian. Use wiu_pyro.guides.AutoKFACLaplace."
        )


def pyro_laplace(guide: AutoLaplaceApproximation, data: Any, device: torch.device) -> AutoGuide:
    """Run Pyro's own Laplace approximation on the whole data in one call.

    Parameters
    ----------
    guide : AutoLaplaceApproximation
        Trained.
    data : DataLoader, Dataset or tuple of tensors
    device : device

    Returns
    -------
    AutoGuide
        Pyro's Gaussian guide.

    Raises
    ------
    CurvatureError
        If the Hessian is not positive definite.
    """
    if guide.latent_dim > 2000:
        warnings.warn(
            f"Pyro's AutoLaplaceApproximation differentiates {guide.latent_dim:,} times over all data; "
            "AutoFullLaplace does the same faster.",
            stacklevel=2,
        )
    parts = list(as_batches(data, batch_size=2**30, device=device))
    whole = tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
    try:
        with torch.enable_grad():
            posterior = guide.laplace_approximation(*whole)
    except torch.linalg.LinAlgError:
        raise CurvatureError(
            "Pyro's AutoLaplaceApproximation needs a positive definite Hessian at the mode, but its Cholesky "
            "decomposition failed. Train further, or use AutoFullLaplace(model, curvature='ggn') or AutoKFACLaplace, "
            "whose curvature is positive semi-definite."
        ) from None
    posterior.source_name, posterior.cli_name, posterior.structure_name = type(guide).__name__, "auto-laplace", "full"
    num_data = len(whole[0])
    posterior.curvature = CurvatureRecord("hessian", num_data, num_data, 1.0)
    return posterior
