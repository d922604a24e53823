"""What an export starts from: a `Fit`, a guide with its model, or an MCMC result, all read into one form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.infer.mcmc.api import AbstractMCMC

from wiu_pyro.errors import GuideError, ModelError
from wiu_pyro.export.block_draws import GuideBlocks, read_blocks
from wiu_pyro.export.densities import log_density
from wiu_pyro.guides import ClosedForm, closed_form
from wiu_pyro.guides.ensemble import AutoEnsemble
from wiu_pyro.infer import Fit, SampledPosterior, draw_weights
from wiu_pyro.nn import ModelStructure, as_batches, inspect_model

__all__ = ["Chain", "Source", "read_source"]

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Chain:
    """The posterior of one network.

    Attributes
    ----------
    draws : callable
        Starts a fresh pass over the draws, the same ones each time: one mapping of site to Tensor per draw.
    log_q : callable or None
        Gives the log density of a draw.
    log_q_reason : str
        Why there is none; empty where there is one.
    closed : ClosedForm or None
        Exact moments, where the posterior has them.
    conditional : mapping of site to Tensor or None
        Conditional sds that are known beside estimated moments.
    blocks : GuideBlocks or None
        The guide taken apart, where its draws can be gone through block by block.
    draw_seed : int
        Seed of the draws of those blocks.
    """

    draws: Callable[[], Iterator[Weights]]
    log_q: Callable[[Weights], float] | None
    log_q_reason: str
    closed: ClosedForm | None
    conditional: Weights | None = None
    blocks: GuideBlocks | None = None
    draw_seed: int = 0


@dataclass(frozen=True)
class Source:
    """A posterior, ready to be exported.

    Attributes
    ----------
    structure : ModelStructure
    model : callable
    chains : tuple of Chain
        One for a fit or a guide; one for each chain of an MCMC result.
    num_draws : int
        Draws in each chain.
    seed : int
        Seed of the draws.
    guide : AutoGuide or None
        None for MCMC.
    fit : Fit or None
        What was given, if it was a fit.
    sampled : SampledPosterior or None
        What was given, if it was one.
    """

    structure: ModelStructure
    model: Callable[..., Any]
    chains: tuple[Chain, ...]
    num_draws: int
    seed: int
    guide: Any = None
    fit: Fit | None = None
    sampled: SampledPosterior | None = None


def read_source(posterior: Any, *, model: Callable[..., Any] | None, data: Any, num_samples: int, seed: int) -> Source:
    """Read a posterior into one form, whatever it came as.

    Parameters
    ----------
    posterior : Fit, AutoGuide, MCMC or SampledPosterior
    model : callable, optional
        The Pyro model; a guide's or an MCMC kernel's own when None.
    data : DataLoader, Dataset or tuple of tensors, optional
        Needed for a guide or MCMC result alone: one batch of it is looked at.
    num_samples, seed : int
        Number and seed of the draws; an MCMC result brings its own draws.

    Returns
    -------
    Source

    Raises
    ------
    GuideError
        If this is no posterior, a guide is not trained, an MCMC result holds no draws, or `num_samples` is below 2.
    ModelError
        If there is no model, or no data to look at it with.
    """
    if num_samples < 2:
        raise GuideError(f"At least 2 draws are needed for a posterior, but num_samples is {num_samples}. Raise it.")
    if isinstance(posterior, Fit):
        return _from_guide(posterior.guide, posterior.model, posterior.structure, num_samples, seed, fit=posterior)
    if isinstance(posterior, SampledPosterior):
        return _from_samples(posterior)
    if not isinstance(posterior, AutoGuide | AbstractMCMC):
        raise GuideError(
            f"A Fit, a Pyro AutoGuide or an MCMC result is needed, but this is a {type(posterior).__name__}. "
            "Pass what wiu_pyro.fit returned, or the guide that SVI trained."
        )
    if isinstance(posterior, AbstractMCMC):
        model = model or getattr(posterior.kernel, "model", None)
    else:
        model = model or posterior.model
    if isinstance(posterior, AutoEnsemble):
        raise GuideError(
            "An ensemble is exported by the Fit that wiu_pyro.fit returned, which holds each member's own, but this is "
            "the guide alone. Pass the Fit."
        )
    structure = getattr(posterior, "structure", None)
    if not isinstance(structure, ModelStructure):
        structure = _inspect(model, data)
    if isinstance(posterior, AbstractMCMC):
        return _from_mcmc(posterior, model, structure, seed)
    if posterior.prototype_trace is None:
        raise GuideError(
            f"A trained guide is needed, but this {type(posterior).__name__} has not seen any data. Train it with "
            "wiu_pyro.fit or Pyro's SVI first."
        )
    return _from_guide(posterior, model, structure, num_samples, seed, fit=None)


def _inspect(model: Callable[..., Any] | None, data: Any) -> ModelStructure:
    if model is None:
        raise ModelError(
            "The Pyro model is needed to know the priors of the weights, but this posterior does not hold it. "
            "Pass model=..."
        )
    if data is None:
        raise ModelError(
            "One batch of data is needed to look at the model, but none was given. Pass data=(inputs, labels), or "
            "train_data=(inputs, labels)."
        )
    return inspect_model(model, *next(iter(as_batches(data))))


def _from_guide(
    guide: Any, model: Callable[..., Any], structure: ModelStructure, num_samples: int, seed: int, *, fit: Fit | None
) -> Source:
    function, reason = log_density(guide)
    chain = Chain(
        draws=lambda: draw_weights(fit or guide, num_samples=num_samples, seed=seed),
        log_q=function,
        log_q_reason=reason,
        closed=closed_form(guide, structure),
        blocks=read_blocks(guide, structure),
        draw_seed=seed,
    )
    return Source(structure, model, (chain,), num_samples, seed, guide, fit)


def _from_mcmc(mcmc: AbstractMCMC, model: Callable[..., Any], structure: ModelStructure, seed: int) -> Source:
    samples = _grouped_samples(mcmc)
    missing = sorted({*structure.parameter_sites, *structure.other_sites} - set(samples))
    if missing:
        raise GuideError(
            f"Draws of each site are needed, but this MCMC result has none of {', '.join(map(repr, missing))}. "
            "Run MCMC on the whole model."
        )
    num_chains, num_draws = next(iter(samples.values())).shape[:2]
    sites = [*structure.parameter_sites, *structure.other_sites]

    def chain(number: int) -> Chain:
        def draws() -> Iterator[Weights]:
            for draw in range(num_draws):
                yield {site: samples[site][number, draw] for site in sites}

        return Chain(draws, None, "MCMC gives no density of a draw", None)

    return Source(structure, model, tuple(chain(number) for number in range(num_chains)), num_draws, seed)


def _from_samples(posterior: SampledPosterior) -> Source:
    """Take what is there as draws already."""

    def chain(number: int) -> Chain:
        def draws() -> Iterator[Weights]:
            for draw in range(posterior.num_draws):
                yield {site: values[number, draw] for site, values in posterior.samples.items()}

        closed = posterior.closed[number] if posterior.closed else None
        conditional = posterior.sd_conditional[number] if posterior.sd_conditional else None
        return Chain(draws, None, f"{posterior.name} gives no density of a draw", closed, conditional)

    found = tuple(chain(number) for number in range(posterior.num_chains))
    structure, num_draws = posterior.structure, posterior.num_draws
    return Source(structure, posterior.model, found, num_draws, posterior.seed, sampled=posterior)


def _grouped_samples(mcmc: AbstractMCMC) -> dict[str, torch.Tensor]:
    """Return the draws of an MCMC run by site, each of shape (chain, draw, *shape)."""
    try:
        samples = mcmc.get_samples(group_by_chain=True)
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise GuideError(
            f"An MCMC result that keeps its draws is needed, but this {type(mcmc).__name__} gives none: {error}. "
            "Call mcmc.run(...) first, and use pyro.infer.MCMC."
        ) from error
    if not samples:
        raise GuideError("An MCMC result with draws is needed, but this one has none. Call mcmc.run(...) first.")
    return samples
