"""A posterior that is there as draws alone: a Markov chain's, a grid's, another program's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.guides import ClosedForm
from wiu_pyro.infer.convergence import Convergence, assess
from wiu_pyro.nn import ModelStructure

__all__ = ["SampledPosterior"]


@dataclass(frozen=True)
class SampledPosterior:
    """Draws of a posterior over the weights of a network, ready for `wiu_pyro.to_inference_data`.

    Attributes
    ----------
    model : callable
        The Pyro model.
    structure : ModelStructure
        What `wiu_pyro.nn.inspect_model` says of it.
    samples : dict of site to Tensor, shape (chain, draw, *shape)
        Of every latent site.
    name : str
        What files and tables call it, for example ``"nuts"``.
    method : str
        Stands where others name their guide. ``"MCMC"`` says that all chains explore one posterior.
    closed : tuple of ClosedForm
        Exact moments of each chain, where they are known; else they are estimated from the draws.
    sd_conditional : tuple of mapping of site to Tensor
        Conditional sd of each weight by chain, where it is known beside estimated moments.
    convergence : Convergence
    seed : int
    notes : dict
        Further attributes of the file: texts and numbers.

    Raises
    ------
    GuideError
        If a latent site has no draws, or sites differ in their number.
    """

    model: Callable[..., Any]
    structure: ModelStructure
    samples: Mapping[str, torch.Tensor]
    name: str
    method: str = "MCMC"
    closed: tuple[ClosedForm, ...] = ()
    sd_conditional: tuple[Mapping[str, torch.Tensor], ...] = ()
    convergence: Convergence = field(default_factory=lambda: assess([]))
    seed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sites = [*self.structure.parameter_sites, *self.structure.other_sites]
        missing = [site for site in sites if site not in self.samples]
        if missing:
            raise GuideError(
                f"Draws of each site are needed, but there are none of {', '.join(map(repr, missing))}. Add them."
            )
        leading = {site: tuple(self.samples[site].shape[:2]) for site in sites}
        if len(set(leading.values())) > 1:
            raise GuideError(
                f"As many chains and draws of each site are needed, (chain, draw, *shape), but they are {leading}. "
                "Keep the same draws of all."
            )

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return int(next(iter(self.samples.values())).shape[0])

    @property
    def num_draws(self) -> int:
        """Draws in each chain."""
        return int(next(iter(self.samples.values())).shape[1])
