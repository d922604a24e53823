"""Mean-field variational inference: an independent Normal for each weight.

Hinton and van Camp (1993); Graves (2011); Blundell et al. (2015). The sites are true Normals, so that
`TraceMeanField_ELBO` takes the KL from a Normal prior in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import biject_to

from wiu_pyro.errors import GuideError, PriorError, near_matches
from wiu_pyro.guides.laplace_layers import matching_layers
from wiu_pyro.guides.local_noise import covers, local_noise
from wiu_pyro.guides.network_guide import HALF_LOG_TWO_PI, FlatPrior, NetworkGuide, visible
from wiu_pyro.guides.start import is_real
from wiu_pyro.nn import Layer, base_distribution, run_at

__all__ = ["AutoMeanField"]

ESTIMATORS = ("local", "reparam")


class AutoMeanField(NetworkGuide):
    """Independent Normal posteriors, started at the network's own weights with a small scale.

    Parameters
    ----------
    model : callable
        A Pyro model.
    estimator : {"local", "reparam"}
        How `negative_elbo` estimates the expected log-likelihood: from outputs sampled for each datum (local
        reparametrisation, flipout in convolutions; weights of layers these do not cover are sampled), or from one draw
        of the weights for the batch. The expectation is the same, the first has less noise. Pyro's `SVI` always samples
        the weights.
    init_scale : float
        Initial posterior sd as a fraction of the prior sd.
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
        If `init_scale` or the temperature is not positive, the estimator is unknown, or, once the model is looked at,
        `point` matches no layer or all of them.

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
        init_scale: float = 0.1,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
        point: str | Sequence[str] = (),
    ) -> None:
        if not init_scale > 0:
            raise GuideError(f"init_scale must be positive, but is {init_scale}. Pass for example 0.1.")
        if estimator not in ESTIMATORS:
            raise GuideError(f"Unknown estimator '{estimator}'. {near_matches(estimator, ESTIMATORS)}")
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.estimator = estimator
        self.init_scale = init_scale
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
        self.log_scale = nn.Parameter((self.init_scale * torch.cat(scales)).log())

    def least_travel(self) -> float:
        """Return the way of a log sd from its start to the prior's, where it belongs if the data say nothing."""
        return abs(math.log(self.init_scale))

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
            prior = self.structure.priors[name]
            base = base_distribution(prior)
            if type(base).__name__ == "Normal":
                total = total + 0.5 * ((value - base.loc) / base.scale).square().sum()
            else:
                total = total - prior.log_prob(value).sum()
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
        loc, scale = self.loc, self.log_scale.exp()
        for name, place, shape in self.sites():
            prior = self.prototype_trace.nodes[name]["fn"]
            posterior = dist.Normal(loc[place].view(shape), scale[place].view(shape))
            if not is_real(prior.support):
                posterior = dist.TransformedDistribution(posterior, biject_to(prior.support))
            yield name, posterior.to_event(prior.event_dim - posterior.event_dim)

    def kl_divergence(self, flat: torch.Tensor | None = None) -> torch.Tensor:
        """Return KL(q ‖ prior) in nats: closed form for Normal priors, by the draw `flat` for the others."""
        prior = self.flat_prior()
        if prior.all_normal:
            return _NormalKL.apply(self.loc, self.log_scale, prior)
        if flat is None:
            flat = self.loc + self.log_scale.exp() * torch.randn_like(self.loc)
        scale = self.log_scale.exp()
        log_q = -0.5 * ((flat - self.loc) / scale).square() - self.log_scale - HALF_LOG_TWO_PI
        if prior.num_normal == 0:
            return log_q.sum() - self.other_log_prior(flat)
        ratio, shift = (scale / prior.scale).square(), ((self.loc - prior.loc) / prior.scale).square()
        terms = 0.5 * (ratio + shift - 1) - self.log_scale + prior.scale.log()
        return torch.where(prior.normal, terms, log_q).sum() - self.other_log_prior(flat)

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return an estimate of −ELBO from the batch, in nats; the temperature multiplies the KL."""
        if not self.fixed_priors:
            return self._loss_by_traces(batch, kl_weight * self.temperature)
        layers = self._local_layers()
        if len(layers) == len(self._noisy_layers()) and not self.structure.other_sites:
            flat = self.loc  # all noise comes with the layers' outputs
        else:
            noise = torch.randn_like(self.loc)
            for name, place, _ in self.sites():
                if self.structure.parameter_sites.get(name, ("",))[0] in layers:
                    noise[place] = 0
            flat = self.loc + self.log_scale.exp() * noise
        log_likelihood = self._expected_log_likelihood(flat, layers, batch)
        divergence = self.kl_divergence() + self._point_energy() if self.point_sites else self.kl_divergence()
        return kl_weight * self.temperature * divergence - log_likelihood

    def _noisy_layers(self) -> list[Layer]:
        held = set(self.point_sites)
        return [layer for layer in self.structure.layers if not held & set(layer.sites.values())]

    def _local_layers(self) -> dict[str, Layer]:
        """Return the layers whose outputs are sampled in place of their weights, by name."""
        if self.estimator != "local":
            return {}
        return {
            layer.name: layer
            for layer in self._noisy_layers()
            if covers(layer.module, set(layer.sites))
            and all(is_real(self.structure.priors[site].support) for site in layer.sites.values())
        }

    def _expected_log_likelihood(
        self, flat: torch.Tensor, layers: dict[str, Layer], batch: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        weights = self.unpack(flat)
        if not layers:
            return self.log_likelihood(weights, batch)
        sites = self.sites()
        parts = (2 * self.log_scale).exp().split([shape.numel() for _, _, shape in sites])
        by_site = {name: part.view(shape) for (name, _, shape), part in zip(sites, parts, strict=True)}
        variances = {
            name: {parameter: by_site[site] for parameter, site in layer.sites.items()}
            for name, layer in layers.items()
        }
        with local_noise({name: layer.module for name, layer in layers.items()}, variances):
            return self.log_likelihood(weights, batch)

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


class _NormalKL(torch.autograd.Function):
    """KL(N(m, s²) ‖ N(m₀, s₀²)) with its gradient written out: fewer passes over memory, of which a step consists."""

    @staticmethod
    def forward(ctx: Any, loc: torch.Tensor, log_scale: torch.Tensor, prior: FlatPrior) -> torch.Tensor:
        ratio = log_scale.exp().div_(prior.scale)  # s / s₀
        shift = (loc - prior.loc).div_(prior.scale)
        ctx.save_for_backward(ratio, shift)
        ctx.prior_scale = prior.scale
        squares = torch.dot(ratio, ratio) + torch.dot(shift, shift)
        return 0.5 * (squares - loc.numel()) - (log_scale.sum() - prior.log_scale_sum)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ratio, shift = ctx.saved_tensors
        grad_loc = (shift / ctx.prior_scale).mul_(grad)  # dKL/dm = (m − m₀) / s₀²
        grad_log_scale = ratio.square().sub_(1).mul_(grad)  # dKL/d log s = s²/s₀² − 1
        return grad_loc, grad_log_scale, None
