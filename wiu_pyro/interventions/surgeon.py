r"""Optimal brain surgeon: the curvature behind it, and how the remaining weights follow those that go.

Under a quadratic loss with Hessian H around the weights w, removing a set S of them costs least where the others move
by the solution of H_RR δ_R = H_RS w_S (Hassibi and Stork 1993, eq. 5, for more than one weight at a time). For a
Gaussian posterior with precision H it is the mean of the others given that those in S are zero: the mean of the
posterior under the reduced prior (Friston and Penny 2011). Where the posterior factorises nothing moves. H is never
formed: conjugate gradients ask for H times a vector only, block by block.

References
----------
Hassibi and Stork (1993), Second order derivatives for network pruning: Optimal Brain Surgeon.
Hestenes and Stiefel (1952), Methods of conjugate gradients for solving linear systems.
"""

from __future__ import annotations

from typing import Any

import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.export.sources import Source
from wiu_pyro.guides import AutoKFACLaplace, closed_form
from wiu_pyro.guides.gaussian import Gaussian, read_gaussian
from wiu_pyro.infer import fit
from wiu_pyro.interventions.candidates import Candidates
from wiu_pyro.linalg import DiagonalPrecision, EigenbasisPrecision, Precision

__all__ = ["compensated", "surgeon_variance"]

MOST_STEPS = 200
TOLERANCE = 1e-4  # of the residual, beside the right side


def surgeon_variance(source: Source, weights: Candidates, train_data: Any, *, seed: int) -> torch.Tensor:
    """Return the diagonal of the inverse Kronecker-factored curvature, prior included, shape (num,), float64.

    Of a posterior whose layers are all Kronecker-factored this is its own marginal variance; else the curvature is
    computed at the posterior's mean, in one pass over the training data.

    Parameters
    ----------
    source : Source
    weights : Candidates
    train_data : DataLoader, Dataset or tuple of tensors, or None
    seed : int

    Returns
    -------
    Tensor

    Raises
    ------
    GuideError
        If the posterior has no such factors and there are no training data.
    """
    gaussian = None if source.guide is None else read_gaussian(source.guide, source.structure)
    if gaussian is not None and gaussian.blocks and all(_is_kronecker(block.precision) for block in gaussian.blocks):
        return weights.sd.square()
    if train_data is None:
        raise GuideError(
            "The brain surgeon needs Kronecker factors of the curvature, which this posterior does not have, or "
            "training data to compute them. Pass train_data=(images, labels)."
        )
    unsampled = {} if source.fit is None else source.fit.unsampled
    guide = AutoKFACLaplace(source.model)
    found = fit(source.model, guide, train_data, epochs=0, seed=seed, start={**weights.centre, **unsampled})
    closed = closed_form(found.guide, source.structure)
    return torch.cat([closed.sd[site].detach().double().reshape(-1) for site in weights.shapes]).square()


def _is_kronecker(precision: Precision) -> bool:
    return isinstance(precision, EigenbasisPrecision)


def compensated(source: Source, weights: Candidates, keep: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the weights by site after the removed ones went to zero and the others of their block followed.

    Parameters
    ----------
    source : Source
    weights : Candidates
    keep : Tensor of bool, shape (num,)

    Returns
    -------
    dict of site to Tensor
        Biases follow too.

    Raises
    ------
    GuideError
        If the posterior is no Gaussian that is known in closed form.
    """
    gaussian = None if source.guide is None else read_gaussian(source.guide, source.structure)
    if gaussian is None:
        raise GuideError(
            "The remaining weights can follow those removed where the posterior is a Gaussian in closed form, but this "
            "is none. Leave compensate out, or fine-tune."
        )
    removed = _removed(gaussian, weights, keep)
    flat = gaussian.loc.detach().clone()
    for block in gaussian.blocks:
        gone = removed[block.index]
        if gone.any():
            flat[block.index] = _follow(block.precision, flat[block.index], gone)
    moved = {site: flat[place].view(shape) for site, (place, shape) in gaussian.places.items()}
    return {**weights.centre, **{site: value for site, value in moved.items() if site in weights.centre}}


def _removed(gaussian: Gaussian, weights: Candidates, keep: torch.Tensor) -> torch.Tensor:
    """Return which entries of the posterior's own flat vector go."""
    gone = torch.zeros(len(gaussian.loc), dtype=torch.bool, device=gaussian.loc.device)
    for site, stays in weights.by_site(keep).items():
        if site in gaussian.places:
            gone[gaussian.places[site][0]] = ~stays.reshape(-1).to(gone.device)
    return gone


def _follow(precision: Precision, mean: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    """Return the mean of a block given that the entries in `gone` are zero."""
    start = torch.where(gone, torch.zeros_like(mean), mean)
    if isinstance(precision, DiagonalPrecision) or gone.all():
        return start
    stays = (~gone).to(mean)
    residual = -stays * _times(precision, start - mean)  # H_RR δ_R = H_RS w_S
    goal = TOLERANCE * residual.norm()
    change, direction, size = torch.zeros_like(mean), residual.clone(), residual.square().sum()
    for _ in range(MOST_STEPS):
        if size.sqrt() <= goal or not size > 0:
            break
        product = stays * _times(precision, direction)
        step = size / torch.dot(direction, product)
        change, residual = change + step * direction, residual - step * product
        before, size = size, residual.square().sum()
        direction = residual + size / before * direction
    return start + change


def _times(precision: Precision, vector: torch.Tensor) -> torch.Tensor:
    """Return Λ v: half the gradient of v'Λv."""
    with torch.enable_grad():
        variable = vector.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(precision.quadratic(variable).sum(), variable)
    return gradient / 2
