"""A reference by NUTS for networks of up to about a thousand weights, with an honest word on whether it converged.

References
----------
Hoffman and Gelman (2014), The No-U-Turn Sampler.
Vehtari et al. (2021), Rank-normalization, folding, and localization: an improved R-hat (also of function values: those
are what a network is about, and the weights of one mode may mix worse).
Opper and Archambeau (2009), The variational Gaussian approximation revisited, eq. 9 (the precision that mean-field
settles at is the average curvature; here the average is over the posterior itself).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from pyro.infer import MCMC, NUTS

from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.infer import Convergence, Fit, SampledPosterior
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.nn import as_batches
from wiu_pyro.testing.log_joint import LogJoint
from wiu_pyro.testing.symmetry import Alignment, align, hidden_units

__all__ = ["NutsConfig", "nuts_posterior"]

MOST_WEIGHTS = 1_500
MOST_INPUTS = 64  # whose function values are watched


@dataclass(frozen=True)
class NutsConfig:
    """How the chains run and what counts as converged.

    Attributes
    ----------
    num_samples, warmup_steps, num_chains : int
        Draws kept in each chain, steps before, chains.
    max_tree_depth : int
        A draw takes at most 2 to this power gradients.
    target_accept : float
    seed : int
    rhat_limit : float
        Largest split R-hat, over function values and over weights, of chains that converged.
    ess_limit : float
        Fewest effective draws, of all chains together.
    divergence_limit : float
        Largest share of divergent draws.
    """

    num_samples: int = 500
    warmup_steps: int = 500
    num_chains: int = 4
    max_tree_depth: int = 8
    target_accept: float = 0.8
    seed: int = 0
    rhat_limit: float = 1.05
    ess_limit: float = 200.0
    divergence_limit: float = 0.01

    def __post_init__(self) -> None:
        if self.num_chains < 2 or self.num_samples < 10 or self.warmup_steps < 1:
            raise GuideError(
                "Two chains of ten draws at least, and a warm-up, are needed to judge convergence, got "
                f"num_chains={self.num_chains}, num_samples={self.num_samples}, warmup_steps={self.warmup_steps}. "
                "Leave them out for 4, 500 and 500."
            )


def nuts_posterior(
    model: Callable[..., Any], data: Any, start: Fit | Mapping[str, torch.Tensor] | None = None, **options: Any
) -> SampledPosterior:
    """Sample the posterior of a small network by NUTS, around the mode it was trained to.

    Every chain starts at the mode. Afterwards each draw is moved to the copy of it that is nearest to the mode, over
    permutations of hidden units and, with an odd activation, their signs, so that single weights can be set beside
    those of an approximation around that mode. What other modes hold the chains need not have seen: the reference is
    one of the region they explored.

    The conditional sd of a weight is one over the root of the posterior average of its squared score, which is its
    average precision given all other weights; of a Gaussian posterior, the exact one.

    Parameters
    ----------
    model : callable
        A Pyro model with Normal priors, of at most 1,500 weights.
    data : DataLoader, Dataset or tuple of tensors
        All training data.
    start : Fit, or mapping of site to Tensor, optional
        The mode; the network's own weights when None.
    **options
        The fields of `NutsConfig`: ``num_samples``, ``warmup_steps``, ``num_chains``, ``max_tree_depth``,
        ``target_accept``, ``seed``, ``rhat_limit``, ``ess_limit``, ``divergence_limit``.

    Returns
    -------
    SampledPosterior
        For `wiu_pyro.to_inference_data`. The file's attributes say ``converged``, ``converged_function``,
        ``converged_weights``, ``rhat_function``, ``rhat_weights``, ``ess_function``, ``ess_weights``,
        ``divergences``, ``moved_draws`` (share of draws that were in another copy), ``symmetries``.

    Raises
    ------
    GuideError
        If an option is unknown, or the network too large.
    PriorError
        If a prior is not Normal.

    Examples
    --------
    >>> from wiu_pyro.testing import linear_gaussian
    >>> problem = linear_gaussian(in_features=1, out_features=1)
    >>> short = {"num_samples": 20, "warmup_steps": 20, "num_chains": 2}
    >>> nuts_posterior(problem.model, problem.data, problem.mean, **short).num_draws
    20
    """
    config = _config(options)
    batches = list(as_batches(data))
    log_joint = LogJoint(model, tuple(torch.cat(parts) for parts in zip(*batches, strict=True)))
    if log_joint.num_weights > MOST_WEIGHTS:
        raise GuideError(
            f"NUTS is a reference for up to {MOST_WEIGHTS:,} weights, but the network has {log_joint.num_weights:,}. "
            "Take a smaller network of the same kind."
        )
    values = start.point_estimate if isinstance(start, Fit) else start
    mode = log_joint.own_weights() if values is None else log_joint.flat({s: values[s] for s in log_joint.sites})
    mode = mode.detach().to(log_joint.prior_loc)
    runs = [_chain(log_joint, mode, config, number) for number in range(config.num_chains)]
    flat = torch.stack([draws for draws, _ in runs])  # (chain, draw, num_weights)
    divergences = sum(count for _, count in runs) / (config.num_chains * config.num_samples)
    scores = torch.stack([_scores(log_joint, draws) for draws in flat])
    samples, squared, alignment, symmetries = _aligned(log_joint, mode, flat, scores)
    found = _diagnosed(log_joint, samples, flat, config, divergences=divergences)
    notes = found[1] | {
        "moved_draws": float(alignment.moved.float().mean()),
        "symmetries": symmetries or "none",
        "num_chains": config.num_chains,
        "warmup_steps": config.warmup_steps,
    }
    return SampledPosterior(
        model=model,
        structure=log_joint.structure,
        samples=samples,
        name="nuts",
        sd_conditional=tuple({site: value.rsqrt() for site, value in one.items()} for one in squared),
        convergence=found[0],
        seed=config.seed,
        notes=notes,
    )


def _config(options: dict[str, Any]) -> NutsConfig:
    known = [item.name for item in fields(NutsConfig)]
    for name in options:
        if name not in known:
            raise GuideError(f"nuts_posterior has no option '{name}'. {near_matches(name, known)}")
    return NutsConfig(**options)


def _chain(log_joint: LogJoint, mode: torch.Tensor, config: NutsConfig, number: int) -> tuple[torch.Tensor, int]:
    """Return the draws of one chain, (draw, num_weights), and how many of them diverged."""
    kernel = NUTS(
        potential_fn=lambda values: -log_joint(values["flat"]),
        target_accept_prob=config.target_accept,
        max_tree_depth=config.max_tree_depth,
    )
    mcmc = MCMC(
        kernel,
        num_samples=config.num_samples,
        warmup_steps=config.warmup_steps,
        initial_params={"flat": mode.clone()},
        disable_progbar=True,
    )
    with seeded(config.seed * 1_009 + number):
        mcmc.run()
    return mcmc.get_samples()["flat"].detach(), len(mcmc.diagnostics()["divergences"]["chain 0"])


def _scores(log_joint: LogJoint, draws: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the log joint at each draw, (draw, num_weights)."""
    found = []
    for weights in draws:
        point = weights.clone().requires_grad_()
        found.append(torch.autograd.grad(log_joint(point), point)[0])
    return torch.stack(found)


def _aligned(
    log_joint: LogJoint, mode: torch.Tensor, flat: torch.Tensor, scores: torch.Tensor
) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]], Alignment, str]:
    """Return the draws by site, the mean squared score of each chain, how they were aligned, and over what."""
    units = hidden_units(log_joint, mode)
    chains, draws = flat.shape[:2]
    by_site = log_joint.by_site(flat.flatten(0, 1))
    scale = log_joint.by_site(log_joint.prior_scale)
    alignment = align(by_site, log_joint.by_site(mode), units=units, scale=scale)

    def back(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {site: value.reshape(chains, draws, *value.shape[1:]) for site, value in values.items()}

    moved = back(alignment.apply(by_site))
    squares = back(alignment.apply(log_joint.by_site(scores.flatten(0, 1))))
    squared = [{site: value[chain].square().mean(0) for site, value in squares.items()} for chain in range(chains)]
    words = [f"{'permutations and signs' if one.signs else 'permutations'} of {one.layer}" for one in units]
    return moved, squared, alignment, ", ".join(words)


def _diagnosed(
    log_joint: LogJoint,
    samples: Mapping[str, torch.Tensor],
    flat: torch.Tensor,
    config: NutsConfig,
    *,
    divergences: float,
) -> tuple[Convergence, dict[str, Any]]:
    """Return the verdict, and the figures it rests on."""
    inputs = log_joint.data[0]
    chosen = inputs[torch.linspace(0, len(inputs) - 1, min(len(inputs), MOST_INPUTS)).long().unique()]
    with torch.no_grad():
        outputs = [log_joint.values(weights, chosen).reshape(-1) for weights in flat.flatten(0, 1)]
    function = torch.stack(outputs).reshape(*flat.shape[:2], -1).double().numpy()
    weights = log_joint.flat(samples).double().numpy()
    figures: dict[str, Any] = {"divergences": divergences}
    verdicts = {}
    for name, values in {"function": function, "weights": weights}.items():
        rhat, ess = rhat_and_ess(values)
        figures |= {f"rhat_{name}": rhat, f"ess_{name}": ess}
        verdicts[name] = rhat <= config.rhat_limit and ess >= config.ess_limit
    calm = divergences <= config.divergence_limit
    figures |= {f"converged_{name}": "yes" if good and calm else "no" for name, good in verdicts.items()}
    total = flat.shape[0] * flat.shape[1]
    detail = (
        f"R-hat at most {figures['rhat_function']:.3f} over function values and {figures['rhat_weights']:.3f} over "
        f"weights (limit {config.rhat_limit:g}); of {total:,} draws in {flat.shape[0]} chains at least "
        f"{figures['ess_function']:,.0f} and {figures['ess_weights']:,.0f} effective (limit {config.ess_limit:g}); "
        f"{divergences:.1%} divergent; all chains began at one mode, so other modes may be missing."
    )
    return Convergence(all(verdicts.values()) and calm, math.nan, math.nan, detail), figures


def rhat_and_ess(values: np.ndarray) -> tuple[float, float]:
    """Return the largest split R-hat and the fewest effective draws of many quantities.

    Parameters
    ----------
    values : ndarray, shape (chain, draw, quantity)
        Quantities that are the same in all draws are left out.

    Returns
    -------
    (float, float)
        Infinite R-hat and 0 effective draws where nothing moves.
    """
    import arviz as az
    import xarray as xr

    moving = values[..., np.ptp(values, axis=(0, 1)) > 0]
    if moving.shape[-1] == 0:
        return math.inf, 0.0
    data = xr.Dataset({"value": (("chain", "draw", "quantity"), moving)})
    data = data.assign_coords({dim: np.arange(size) for dim, size in data.sizes.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ's own words on few draws; the figures say it
        return float(az.rhat(data)["value"].max()), float(az.ess(data)["value"].min())
