r"""Sparse variational dropout: Normal posteriors under a log-uniform prior, under which weights vanish.

Molchanov, Ashukha and Vetrov (2017), Variational Dropout Sparsifies Deep Neural Networks. The posterior of a weight is
N(θ, α θ²), trained in θ and log σ² = log(α θ²) (their eq. 10 to 12); the prior's density is 1/\|w\|. Weights whose
noise α grows beyond all bounds are those the data do not need: those of log α > 3 are removed (section 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributions import biject_to

from wiu_pyro.errors import GuideError
from wiu_pyro.guides.blocks import Block, BlockNormal
from wiu_pyro.guides.closed_form import ClosedForm
from wiu_pyro.guides.flat_prior import point_energy
from wiu_pyro.guides.log_uniform_kl import CLIP, clipped_log_alpha, log_uniform_kl, sd_and_kl
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.output_noise import RULES
from wiu_pyro.guides.start import is_real
from wiu_pyro.guides.weight_draw import DrawSource
from wiu_pyro.linalg import DiagonalPrecision
from wiu_pyro.nn import LogUniform, ModelStructure

__all__ = ["AutoSparseVariationalDropout"]

THRESHOLD = 3.0  # of log α, beyond which a weight is removed
NOTE = (
    "from a log-uniform prior, which is improper: up to a constant, chosen so that a weight of infinite noise has 0; "
    "by the approximation of Molchanov et al. (2017), eq. 14"
)


class AutoSparseVariationalDropout(NetworkGuide):
    """Sparse variational dropout: most weights end as noise around zero and can be removed.

    Weight matrices and kernels have independent Normal posteriors under a log-uniform prior, *in place of the model's*.
    All else (biases, normalisations, a noise scale) is a point estimate under the model's prior. The log-uniform prior
    is improper: the KL is known up to a constant, and contraction and effective parameters, which compare with a
    prior's sd, do not exist; files and tables say so. It is a way to prune: its evidence compares with no other's.

    ``removed`` gives the weights of log α > 3. As α = (sd / mean)², ranking by log α is ranking by signal-to-noise.
    Trained by `wiu_pyro.fit`, not by Pyro's `SVI`, which would take the model's prior. The KL removes weights before
    they have learned anything: start from a trained network, or let its weight rise over the first epochs.

    Parameters
    ----------
    model : callable
        A Pyro model.
    init_log_alpha : float
        Initial log (variance / mean squared weight), the same variance for all weights of a site.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the KL.

    Raises
    ------
    GuideError
        If `init_log_alpha` is not within −8 … 3 or the temperature is not positive; once the model is looked at, if it
        has no weight matrix.
    PriorError
        Once the model is looked at, if a prior depends on another site.

    Examples
    --------
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> guide = AutoSparseVariationalDropout(BayesianNetwork(nn.Linear(4, 3), num_data=8))
    >>> guide.setup((torch.ones(8, 4), torch.zeros(8)))
    >>> guide.removed()["weight"].shape
    torch.Size([3, 4])
    """

    cli_name = "sparse-dropout"
    structure_name = "sparse-dropout"
    trained_by = "fit"
    estimator = "local"  # the only one: each datum has noise of its own
    has_own_prior = True
    objective = "-ELBO up to a constant"

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_log_alpha: float = -4.0,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> None:
        if not -CLIP <= init_log_alpha < THRESHOLD:
            raise GuideError(
                f"init_log_alpha must be from {-CLIP:g} to {THRESHOLD:g}, beyond which weights are removed, but is "
                f"{init_log_alpha}. Pass for example -4."
            )
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.init_log_alpha = init_log_alpha

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.refuse_dependent_priors()
        own = self.structure.parameter_sites
        self.sparse = tuple(
            (name, place, shape)
            for name, place, shape in self.sites()
            if name in own and len(shape) >= 2 and is_real(self.structure.priors[name].support)
        )
        if not self.sparse:
            raise GuideError(
                "Sparse variational dropout removes entries of weight matrices and kernels, but the model samples "
                f"none: {', '.join(own) or 'no weights'}. Give it a Linear or convolutional layer with a prior."
            )
        self.loc = nn.Parameter(self._init_loc())
        self.log_variance = nn.Parameter(torch.cat([self._first_log_variance(*site) for site in self.sparse]))
        index = torch.cat([torch.arange(place.start, place.stop) for _, place, _ in self.sparse])
        self.register_buffer("index", index.to(self.loc.device), persistent=False)
        priors = {
            name: LogUniform(self.loc[place].view(shape)).to_event(self.structure.priors[name].event_dim)
            for name, place, shape in self.sparse
        }
        self.structure = replace(self.structure, priors={**self.structure.priors, **priors})

    def _first_log_variance(self, name: str, place: slice, shape: torch.Size) -> torch.Tensor:
        square = self.loc[place].detach().square().mean()
        if square == 0:  # then the model's prior says how large a weight is
            square = self.structure.priors[name].variance.mean().to(square)
        return torch.full((shape.numel(),), square.log().item() + self.init_log_alpha).to(self.loc)

    @property
    def point_sites(self) -> tuple[str, ...]:
        """The sites without a posterior, at a point estimate under the model's prior."""
        sparse = {name for name, *_ in self.sparse}
        return tuple(name for name, *_ in self.sites() if name not in sparse)

    def least_travel(self) -> float:
        """Return the way of a log α from its start to where weights are removed."""
        return THRESHOLD - self.init_log_alpha

    def _flat_loc(self) -> torch.Tensor:
        """Return the means of the sparse weights, joined, on the graph of `loc`."""
        sites = self.sites()
        # one backward for all, where slices need one each
        parts = self.loc.split([shape.numel() for *_, shape in sites])
        by_site = dict(zip((name for name, *_ in sites), parts, strict=True))
        return torch.cat([by_site[name] for name, *_ in self.sparse])

    def _flat_sd(self) -> torch.Tensor:
        return sd_and_kl(self._flat_loc().detach(), self.log_variance.detach())[0]

    def _by_site(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = flat.split([shape.numel() for *_, shape in self.sparse])
        return {name: part.view(shape) for (name, _, shape), part in zip(self.sparse, parts, strict=True)}

    def log_alpha(self) -> dict[str, torch.Tensor]:
        """Return log (variance / mean²) of each weight by site, within −8 … 8, detached."""
        return self._by_site(clipped_log_alpha(self._flat_loc().detach(), self.log_variance.detach()))

    def removed(self, threshold: float = THRESHOLD) -> dict[str, torch.Tensor]:
        """Return which weights go by site, bool: those of a log α above the threshold."""
        return {name: value > threshold for name, value in self.log_alpha().items()}

    def kl_divergence(self) -> torch.Tensor:
        """Return the KL from the log-uniform prior in nats, up to a constant; see `log_uniform_kl`."""
        return sd_and_kl(self._flat_loc(), self.log_variance)[1]

    def _point_energy(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return −log prior of the points in nats, on the unconstrained scale; of Normal priors without constants."""
        total = self.loc.new_zeros(())
        for name in self.point_sites:
            prior, value = self.structure.priors[name], values[name]
            total = total + point_energy(prior, value)
            if not is_real(prior.support):
                transform = biject_to(prior.support)
                total = total - transform.log_abs_det_jacobian(transform.inv(value), value).sum()
        return total

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return an estimate of −ELBO from the batch, in nats, up to a constant; the temperature multiplies the KL."""
        loc = self._flat_loc()
        scale, divergence = sd_and_kl(loc, self.log_variance)
        weights = self.unpack(self.loc)
        source = DrawSource(loc, scale, RULES["local"], num_rows=len(batch[0]))
        # drawn as weights only where a layer's output cannot be sampled instead
        weights |= zip((name for name, *_ in self.sparse), source.split([shape for *_, shape in self.sparse]))
        divergence = divergence + self._point_energy(weights)
        return kl_weight * self.temperature * divergence - self.log_likelihood(weights, batch)

    def get_posterior(self, *args: Any, **kwargs: Any) -> BlockNormal:
        """Return the Normal over the flat vector of all weights, detached, in which points do not move."""
        names = tuple(layer.name for layer in self.structure.layers)
        precision = DiagonalPrecision(self._flat_sd().square().reciprocal())
        return BlockNormal(self.loc.detach(), (Block(names, self.structure_name, precision, self.index),))

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loc, self.get_posterior().variance.sqrt()

    def moments(self, structure: ModelStructure) -> ClosedForm:
        """Return exact means and sds, and the KL of each layer up to a constant."""
        point = self.point_estimate()
        mean = {site: point[site] for site in structure.parameter_sites}
        spread = self._by_site(self._flat_sd())
        sd = {site: spread.get(site, torch.zeros_like(value)) for site, value in mean.items()}
        site_kl = {site: log_uniform_kl(value).double().sum().item() for site, value in self.log_alpha().items()}
        kl = {
            layer.name: sum(own)
            if (own := [site_kl[site] for site in layer.sites.values() if site in site_kl])
            else math.nan
            for layer in structure.layers
        }
        return ClosedForm(
            mean=mean,
            sd=sd,
            sd_conditional=sd,
            layer_kl=kl,
            kl_total=sum(site_kl.values()),
            layer_structure={name: "point" if math.isnan(value) else self.structure_name for name, value in kl.items()},
            factorised=True,
            kl_note=NOTE,
        )
