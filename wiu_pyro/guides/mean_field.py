"""Mean-field variational inference: an independent Normal for each weight.

Hinton and van Camp (1993); Graves (2011); Blundell et al. (2015). The sites are true Normals, so that
`TraceMeanField_ELBO` takes the KL from a Normal prior in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import biject_to

from wiu_pyro.errors import GuideError, PriorError, near_matches
from wiu_pyro.guides.flat_prior import point_energy
from wiu_pyro.guides.initial_scale import WIDEST_START, check_init_scale, least_loss_scale
from wiu_pyro.guides.laplace_layers import matching_layers
from wiu_pyro.guides.mixture_kl import SiteKLs
from wiu_pyro.guides.network_guide import NetworkGuide, visible
from wiu_pyro.guides.normal_kl import mixed_kl, moments_and_kl
from wiu_pyro.guides.output_noise import RULES
from wiu_pyro.guides.start import is_real
from wiu_pyro.guides.weight_draw import DrawSource
from wiu_pyro.nn import base_distribution, run_at

__all__ = ["AutoMeanField"]


class AutoMeanField(NetworkGuide):
    """Independent Normal posteriors, started at the network's own weights with a small scale.

    Parameters
    ----------
    model : callable
        A Pyro model.
    estimator : {"local", "local_antithetic", "flipout", "reparam", "local_positions"}
        How `negative_elbo` estimates the expected log-likelihood. ``"local"`` samples the outputs of Linear layers for
        each datum (local reparametrisation) and draws other weights once for the batch; ``"local_antithetic"`` draws
        convolutions' weights twice, with opposite noise, for the halves of the batch; ``"flipout"`` gives one draw
        random signs for each datum; ``"reparam"`` draws all weights once for the batch. Their expectations are the
        same. ``"local_positions"`` samples the outputs of convolutions too, at each position on its own: the least
        noise, but −ELBO of another posterior, whose weights are drawn anew at each position. Pyro's `SVI` draws the
        weights, unless it runs inside of `local_reparameterization` or `flipout`.
    num_particles : int
        Draws per step, run as one batch; the noise of weights falls with it, the time rises.
    scale_indicators : bool
        Take the KL from mixtures of zero-mean Normals in closed form, over each weight and which of the scales it has
        (see `mixture_kl`): at least the KL of the weights alone, without the noise of a draw.
    init_scale : float, optional
        Initial posterior sd as a fraction of the prior sd. When None, 0.1, and `wiu.fit` lowers it to at least 0.001
        where −ELBO is less there.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the KL.
    point : str or sequence of str
        Names or patterns of layers that stay a point estimate, as ``"fc1"`` or ``"features*"``: trained with the others
        under their prior, without an uncertainty.

    Raises
    ------
    GuideError
        If `init_scale`, `num_particles` or the temperature is not positive, the estimator is unknown, or, once the
        model is looked at, `point` matches no layer or all of them.

    Examples
    --------
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Linear(4, 3), num_data=8)
    >>> guide = AutoMeanField(model)
    >>> sorted(guide(torch.ones(8, 4), torch.zeros(8)))
    ['bias', 'weight']
    """

    cli_name = "mean-field"
    structure_name = "mean-field"
    factorised = True

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        estimator: str = "local",
        num_particles: int = 1,
        scale_indicators: bool = False,
        init_scale: float | None = None,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
        point: str | Sequence[str] = (),
    ) -> None:
        check_init_scale(init_scale)
        if estimator not in RULES:
            raise GuideError(f"Unknown estimator '{estimator}'. {near_matches(estimator, RULES)}")
        if num_particles < 1:
            raise GuideError(f"num_particles must be at least 1, but is {num_particles}. 1 is one draw per step.")
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.estimator, self.num_particles, self.scale_indicators = estimator, num_particles, scale_indicators
        self.init_scale, self.start_scale = init_scale, init_scale or WIDEST_START
        self.asked_point = (point,) if isinstance(point, str) else tuple(point)
        self.point_sites: tuple[str, ...] = ()

    def _visible_model(self) -> Callable[..., Any]:
        if self.asked_point:
            layers = {layer.name: layer for layer in self.structure.layers}
            held = matching_layers(self.asked_point, self.structure)
            if len(held) == len(layers):
                raise GuideError(
                    f"At least one layer needs a posterior, but point={self.asked_point} holds all of them. "
                    "Leave one out."
                )
            self.point_sites = tuple(site for name in held for site in layers[name].sites.values())
        return visible(self.model, self.point_sites)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.loc = nn.Parameter(self._init_loc())
        if self.point_sites:
            fns = self.structure.priors
            starts = {name: self._init_loc_fn({"name": name, "fn": fns[name]}) for name in self.point_sites}
            self.point_loc = nn.Parameter(self._pack_points(starts))
        scales = []
        for name, _, shape in self.sites():
            fn = self.prototype_trace.nodes[name]["fn"]
            spread = _prior_sd(name, fn)
            spread = spread if spread.shape == shape else torch.ones(shape)
            scales.append(spread.reshape(-1).to(self.loc))
        self._site_kls = SiteKLs({name: self.prototype_trace.nodes[name]["fn"] for name, *_ in self.sites()})
        self.log_scale = nn.Parameter((self.start_scale * torch.cat(scales)).log())

    @property
    def objective(self) -> str:  # type: ignore[override]
        """What `negative_elbo` is, where the temperature is 1."""
        return "-ELBO over weights and their scales" if self.scale_indicators else "-ELBO"

    def _put_start_scale(self, scale: float) -> None:
        with torch.no_grad():
            self.log_scale += math.log(scale / self.start_scale)
        self.start_scale = scale

    def before_training(self, batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
        """Choose the initial scale by −ELBO, unless it was given."""
        if self.init_scale is None:
            least_loss_scale(self._put_start_scale, self.negative_elbo, batches)

    def least_travel(self) -> float:
        """Return the way of a log sd from its start to the prior's, where it belongs if the data say nothing."""
        return abs(math.log(self.start_scale))

    def loss_offset(self) -> float:
        """Return the least KL of any weights, in nats: of mixtures over scales too it is not 0."""
        return self.temperature * self._site_kls.least() if self.scale_indicators and self.fixed_priors else 0.0

    @property
    def point_values(self) -> dict[str, torch.Tensor]:
        """The value of each site that stays a point estimate, on the graph of its parameter."""
        if not self.point_sites:
            return {}
        priors = [self.structure.priors[name] for name in self.point_sites]
        parts = self.point_loc.split([prior.shape().numel() for prior in priors])
        return {
            name: biject_to(prior.support)(part.view(prior.shape()))
            for name, prior, part in zip(self.point_sites, priors, parts, strict=True)
        }

    def _pack_points(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        priors = self.structure.priors
        free = [biject_to(priors[name].support).inv(values[name]).reshape(-1) for name in self.point_sites]
        return torch.cat(free).to(self.loc)

    def unpack(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take a flat vector of shape (latent_dim,) apart by site; sites at a point estimate come with their value."""
        return {**super().unpack(flat), **self.point_values}

    def start_at(self, values: dict[str, torch.Tensor]) -> None:
        """Move the guide's centre, point estimates too, to given weights: a value for each site."""
        super().start_at(values)
        if self.point_sites:
            with torch.no_grad():
                self.point_loc.copy_(self._pack_points(values))

    def _point_energy(self) -> torch.Tensor:
        """Return −log prior of the sites at a point estimate, in nats; of Normal priors without their constant."""
        total = self.loc.new_zeros(())
        for name, value in self.point_values.items():
            total = total + point_energy(self.structure.priors[name], value)
        return total

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.Distribution:
        """Return the Normal over the flat, unconstrained vector of all weights."""
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loc, self.log_scale.exp()

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Sample each site from its Normal; returns the value of each site."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        plates = self._create_plates(*args, **kwargs)
        values = {}
        for name, posterior in self._posteriors():
            with ExitStack() as stack:
                for frame in self._cond_indep_stacks[name]:
                    stack.enter_context(plates[frame.name])
                values[name] = pyro.sample(name, posterior)
        for name, value in self.point_values.items():
            values[name] = pyro.sample(name, dist.Delta(value, event_dim=value.dim()))
        return values

    def _posteriors(self) -> Iterator[tuple[str, dist.Distribution]]:
        sites = self.sites()
        sizes = [shape.numel() for _, _, shape in sites]
        parts = zip(sites, self.loc.split(sizes), self.log_scale.exp().split(sizes), strict=True)
        for (name, _, shape), loc, scale in parts:
            prior = self.prototype_trace.nodes[name]["fn"]
            posterior = dist.Normal(loc.view(shape), scale.view(shape))
            if not is_real(prior.support):
                posterior = dist.TransformedDistribution(posterior, biject_to(prior.support))
            yield name, posterior.to_event(prior.event_dim - posterior.event_dim)

    def kl_divergence(self, flat: torch.Tensor | None = None) -> torch.Tensor:
        """Return KL(q ‖ prior) in nats: by the draw `flat` where priors are not Normal, unless over scales too."""
        return self._moments_and_kl(flat)[2]

    def _moments_and_kl(self, flat: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        prior = self.flat_prior()
        if prior.all_normal:
            return moments_and_kl(self.loc, self.log_scale, prior)
        scale = self.log_scale.exp()
        if flat is None and self.scale_indicators:
            return self.loc, scale, self._site_kls.total(self.sites(), (self.loc, self.log_scale, scale))
        if flat is None:
            flat = torch.addcmul(self.loc, scale, torch.randn_like(self.loc))
        divergence = mixed_kl(self.loc, self.log_scale, prior, flat=flat) - self.other_log_prior(flat)
        return self.loc, scale, divergence

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return an estimate of −ELBO from the batch, in nats; the temperature multiplies the KL."""
        if not self.fixed_priors:
            losses = [self._loss_by_traces(batch, kl_weight * self.temperature) for _ in range(self.num_particles)]
            return torch.stack(losses).mean()
        loc, scale, divergence = self._moments_and_kl()
        if self.point_sites:
            divergence = divergence + self._point_energy()
        return kl_weight * self.temperature * divergence - self._expected_log_likelihood(loc, scale, batch)

    def _expected_log_likelihood(
        self, loc: torch.Tensor, scale: torch.Tensor, batch: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        if not self.runs_directly:  # a model of the user's own scales its batch as it will: one run for each draw
            draws = [self._draw(loc, scale, len(batch[0])) for _ in range(self.num_particles)]
            return torch.stack([self.log_likelihood(weights, batch) for weights in draws]).mean()
        if self.estimator == "reparam" and self.num_particles > 1:
            draws = [self._draw(loc, scale, len(batch[0])) for _ in range(self.num_particles)]
            stacked = {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
            return self.log_likelihood(stacked, batch).mean()
        repeated = tuple(part.repeat(self.num_particles, *(1,) * (part.dim() - 1)) for part in batch)
        return self.log_likelihood(self._draw(loc, scale, len(repeated[0])), repeated)

    def _draw(self, loc: torch.Tensor, scale: torch.Tensor, num_rows: int) -> dict[str, torch.Tensor]:
        """Return a draw of each site, made at once or where it is needed; sites at a point estimate as they are."""
        if self.estimator == "reparam":
            return self.unpack(torch.addcmul(loc, scale, torch.randn_like(loc)))
        sites = self.sites()
        rule = RULES[self.estimator].with_particles(self.num_particles if self.runs_directly else 1)
        source = DrawSource(loc, scale, rule, num_rows=num_rows)
        nodes = self.prototype_trace.nodes
        drawn = {
            name: biject_to(nodes[name]["fn"].support)(draw)
            for (name, *_), draw in zip(sites, source.split([shape for *_, shape in sites]), strict=True)
        }
        return {**drawn, **self.point_values}

    def _loss_by_traces(self, batch: tuple[torch.Tensor, ...], kl_weight: float) -> torch.Tensor:
        """Return −ELBO for priors that depend on other sites or are learned: log q − log p at a draw."""
        values = self(*batch)
        trace, _ = run_at(self.model, values, batch)
        trace.compute_log_prob()
        prior = sum(trace.nodes[name]["log_prob_sum"] for name in values)
        log_q = sum(posterior.log_prob(values[name]).sum() for name, posterior in self._posteriors())
        return kl_weight * (log_q - prior) - trace.nodes[self.structure.observed]["log_prob_sum"]

    def log_prob(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return log q of a draw, on the unconstrained scale, a float64 scalar in nats."""
        flat = self.pack(weights).double()
        return dist.Normal(self.loc.double(), self.log_scale.double().exp()).log_prob(flat).sum()


def _prior_sd(name: str, prior: dist.Distribution) -> torch.Tensor:
    try:
        return prior.stddev
    except NotImplementedError:
        raise PriorError(
            f"A prior with a known standard deviation is needed, but the {type(base_distribution(prior)).__name__} of "
            f"'{name}' has none. Give its class a `mean` and a `variance`, or use a prior of wiu_pyro.nn."
        ) from None
