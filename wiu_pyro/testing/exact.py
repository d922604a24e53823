"""References whose moments hold no Monte Carlo noise: a grid for up to three weights, and the linear-Gaussian network.

References
----------
MacKay (1992), A practical Bayesian framework for backpropagation networks (what a Gaussian around a mode is held to).
Bishop (2006), Pattern Recognition and Machine Learning, section 3.3 (the linear-Gaussian posterior).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.guides import ClosedForm
from wiu_pyro.infer import Convergence, SampledPosterior
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.nn import as_batches, inspect_model
from wiu_pyro.testing.log_joint import LogJoint
from wiu_pyro.testing.symmetry import align, hidden_units
from wiu_pyro.testing.toys import LinearGaussian

__all__ = ["exact_posterior", "grid_posterior"]

POINTS = {1: 2_001, 2: 201, 3: 61}  # along each weight
DEPTH = 25.0  # nats below the highest point, beyond which the density counts as none
CHUNK = 4_096
ZOOMS = 12
ERROR_LIMIT = 0.01  # relative, of the sds between the grid and every second point of it


@dataclass(frozen=True)
class _Grid:
    """Points of a box, (cells, weights), their log joint density, and the box's steps."""

    points: torch.Tensor
    log_joint: torch.Tensor
    step: torch.Tensor


def grid_posterior(
    model: Callable[..., Any], data: Any, *, num_samples: int = 2_000, points: int | None = None, seed: int = 0
) -> SampledPosterior:
    """Integrate the posterior of a model of up to three weights over a grid.

    The grid begins six prior sds to each side and closes in on where the density is. Where hidden units have copies
    (permutations, signs), each point is moved to the copy nearest to the mode.

    Parameters
    ----------
    model : callable
        A Pyro model with Normal priors and at most three weights, biases included.
    data : DataLoader, Dataset or tuple of tensors
        All training data.
    num_samples : int
        Draws from the grid's cells, uniform within each.
    points : int, optional
        Along each weight: 2,001, 201 or 61 for one, two or three weights when None.
    seed : int

    Returns
    -------
    SampledPosterior
        With exact moments: mean, sd, conditional sd (one over the root of the mean squared score) and KL from the
        prior. ``grid_error`` in the file's attributes is the largest relative change of an sd when every second point
        is left out; above 1 % the file says ``converged = "no"``.

    Raises
    ------
    GuideError
        If the model has more than three weights, or fewer than 11 points are asked for.

    Examples
    --------
    >>> from wiu_pyro.testing import linear_gaussian
    >>> problem = linear_gaussian(in_features=1, out_features=1)
    >>> grid = grid_posterior(problem.model, problem.data)
    >>> sd = problem.covariance.diagonal().sqrt()
    >>> bool(torch.allclose(grid.closed[0].sd["weight"].flatten(), sd[:1], rtol=1e-4))
    True
    """
    batches = list(as_batches(data))
    log_joint = LogJoint(model, tuple(torch.cat(parts) for parts in zip(*batches, strict=True)))
    num = log_joint.num_weights
    if num not in POINTS:
        raise GuideError(
            f"A grid is a reference for up to three weights, but the model has {num}. Use nuts_posterior for up to "
            "about a thousand."
        )
    points = POINTS[num] if points is None else points | 1  # odd, so that every second point is a grid too
    if points < 11:
        raise GuideError(f"At least 11 points along each weight are needed, got {points}. Leave points out.")
    grid = _zoomed(log_joint, points)
    chance = (grid.log_joint - grid.log_joint.max()).exp().double()
    chance = chance / chance.sum()
    aligned, scores = _aligned(log_joint, grid)
    coarse = _every_second(points, num)
    sds = [_moments(aligned[one], chance[one])[1] for one in (slice(None), coarse)]
    error = float(((sds[0] - sds[1]) / sds[0]).abs().max())
    closed = _closed(log_joint, grid, aligned, chance, scores)
    draws = _drawn(log_joint, grid, aligned, chance, num_samples, seed)
    edge = float(chance.view([points] * num)[_edges(points, num)].sum())
    detail = (
        f"a grid of {points} points along each of {num} weights: leaving out every second one changes the sds by "
        f"{error:.2%} at most (limit {ERROR_LIMIT:.0%}), {edge:.1e} of the mass lies on its edge."
    )
    return SampledPosterior(
        model=model,
        structure=log_joint.structure,
        samples={site: value[None] for site, value in log_joint.by_site(draws).items()},
        name="grid",
        method="grid",
        closed=(closed,),
        convergence=Convergence(error <= ERROR_LIMIT and edge < ERROR_LIMIT, error, ERROR_LIMIT, detail),
        seed=seed,
        notes={"grid_error": error, "grid_points": points},
    )


def _zoomed(log_joint: LogJoint, points: int) -> _Grid:
    """Return a grid over the box that holds all the density."""
    low, high = (log_joint.prior_loc + sign * 6 * log_joint.prior_scale for sign in (-1, 1))
    grid = _box(log_joint, low, high, points)
    for _ in range(ZOOMS):
        near = grid.points[grid.log_joint > grid.log_joint.max() - DEPTH]
        closer = near.amin(0) - grid.step, near.amax(0) + grid.step
        if bool(((closer[1] - closer[0]) > 0.8 * (high - low)).all()):
            break
        low, high = closer
        grid = _box(log_joint, low, high, points)
    return grid


def _box(log_joint: LogJoint, low: torch.Tensor, high: torch.Tensor, points: int) -> _Grid:
    unit = torch.linspace(0, 1, points).to(low)
    axes = torch.meshgrid(*[unit] * len(low), indexing="ij")
    cells = low + torch.stack([axis.reshape(-1) for axis in axes], -1) * (high - low)  # (cells, weights)
    with torch.no_grad():
        run = torch.vmap(log_joint)
        values = torch.cat([run(part) for part in cells.split(CHUNK)])
    return _Grid(cells, values, (high - low) / (points - 1))


def _aligned(log_joint: LogJoint, grid: _Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the points and the gradients there, (cells, weights), each moved to the copy nearest to the mode."""
    run = torch.vmap(torch.func.grad(log_joint))
    scores = torch.cat([run(part) for part in grid.points.split(CHUNK)]).detach()
    mode = grid.points[int(grid.log_joint.argmax())]
    units = hidden_units(log_joint, mode)
    if not units:
        return grid.points, scores
    by_site, scale = log_joint.by_site(grid.points), log_joint.by_site(log_joint.prior_scale)
    alignment = align(by_site, log_joint.by_site(mode), units=units, scale=scale)
    return log_joint.flat(alignment.apply(by_site)), log_joint.flat(alignment.apply(log_joint.by_site(scores)))


def _moments(points: torch.Tensor, chance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weight = (chance / chance.sum())[:, None]
    mean = (points.double() * weight).sum(0)
    return mean, ((points.double() - mean).square() * weight).sum(0).sqrt()


def _every_second(points: int, num: int) -> torch.Tensor:
    """Return the places of every second point along each weight."""
    kept = torch.zeros([points] * num, dtype=torch.bool)
    kept[(slice(None, None, 2),) * num] = True
    return kept.reshape(-1)


def _edges(points: int, num: int) -> torch.Tensor:
    inner = torch.ones([points] * num, dtype=torch.bool)
    inner[(slice(1, -1),) * num] = False
    return inner


def _closed(
    log_joint: LogJoint, grid: _Grid, aligned: torch.Tensor, chance: torch.Tensor, scores: torch.Tensor
) -> ClosedForm:
    mean, sd = _moments(aligned, chance)
    conditional = (scores.double().square() * chance[:, None]).sum(0).rsqrt()
    structure = log_joint.structure
    layer_kl, start = {}, 0
    for layer in structure.layers:
        stop = start + layer.num_weights
        layer_kl[layer.name] = _kl(log_joint, grid, chance, slice(start, stop))
        start = stop
    found = [log_joint.by_site(values.to(log_joint.prior_loc)) for values in (mean, sd, conditional)]
    total = _kl(log_joint, grid, chance, slice(0, log_joint.num_weights))
    names = dict.fromkeys(layer_kl, "grid")
    return ClosedForm(*found, layer_kl=layer_kl, kl_total=total, layer_structure=names, factorised=False)


def _kl(log_joint: LogJoint, grid: _Grid, chance: torch.Tensor, own: slice) -> float:
    """Return the KL of some weights' marginal from their prior, nats: a sum over the grid."""
    num = log_joint.num_weights
    points = round(len(chance) ** (1 / num))
    others = [axis for axis in range(num) if axis not in range(*own.indices(num))]
    whole = chance.view([points] * num)
    marginal = whole.sum(others) if others else whole
    places = grid.points.view(*[points] * num, num)
    for axis in others:
        places = places.narrow(axis, 0, 1)
    normal = torch.distributions.Normal(log_joint.prior_loc[own].double(), log_joint.prior_scale[own].double())
    log_prior = normal.log_prob(places.reshape(-1, num)[:, own].double()).sum(-1).view_as(marginal)
    volume = float(grid.step[own].double().log().sum())
    return float((torch.special.xlogy(marginal, marginal) - marginal * (volume + log_prior)).sum())


def _drawn(
    log_joint: LogJoint, grid: _Grid, aligned: torch.Tensor, chance: torch.Tensor, num_samples: int, seed: int
) -> torch.Tensor:
    with seeded(seed):
        cells = torch.multinomial(chance, num_samples, replacement=True)
        within = (torch.rand(num_samples, log_joint.num_weights).to(aligned) - 0.5) * grid.step
    return aligned[cells] + within


def exact_posterior(problem: LinearGaussian, *, num_samples: int = 2_000, seed: int = 0) -> SampledPosterior:
    """Return the posterior of a linear-Gaussian network, known in closed form.

    Parameters
    ----------
    problem : LinearGaussian
        From `linear_gaussian`.
    num_samples : int
    seed : int

    Returns
    -------
    SampledPosterior
        With exact moments.

    Examples
    --------
    >>> from wiu_pyro.testing import linear_gaussian
    >>> exact_posterior(linear_gaussian(), num_samples=5).samples["weight"].shape
    torch.Size([1, 5, 2, 3])
    """
    structure = inspect_model(problem.model, *problem.data)
    sites = [site for layer in structure.layers for site in layer.sites.values()]
    loc = torch.cat([problem.mean[site].reshape(-1) for site in sites])
    with seeded(seed):
        draws = torch.distributions.MultivariateNormal(loc, problem.covariance).sample((num_samples,))
    precision = torch.linalg.inv(problem.covariance).diagonal()

    def by_site(values: torch.Tensor) -> dict[str, torch.Tensor]:
        shapes = {site: problem.mean[site].shape for site in sites}
        parts = values.split([shape.numel() for shape in shapes.values()], -1)
        return {
            site: part.reshape(*values.shape[:-1], *shape).to(problem.data[0])
            for (site, shape), part in zip(shapes.items(), parts, strict=True)
        }

    name = structure.layers[0].name
    closed = ClosedForm(
        mean=by_site(loc),
        sd=by_site(problem.covariance.diagonal().sqrt()),
        sd_conditional=by_site(precision.rsqrt()),
        layer_kl={name: problem.kl},
        kl_total=problem.kl,
        layer_structure={name: "full"},
        factorised=False,
    )
    return SampledPosterior(
        model=problem.model,
        structure=structure,
        samples={site: value[None] for site, value in by_site(draws).items()},
        name="exact",
        method="closed form",
        closed=(closed,),
        convergence=Convergence(True, 0.0, math.nan, "the posterior is known in closed form."),
        seed=seed,
    )
