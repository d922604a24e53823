"""What all guides of the toolkit share: a flat vector of weights, a start at the network's own, a direct objective.

Subclasses stay ordinary Pyro AutoGuides: `SVI`, `Predictive` and `poutine` work on them. The direct objective
`negative_elbo` is what `wiu_pyro.fit` uses instead of `SVI`: the same expectation, without the overhead per site.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.autoguide.guides import AutoContinuous
from pyro.infer.autoguide.initialization import InitMessenger
from torch.distributions import biject_to

from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI, FlatPrior, read_priors
from wiu_pyro.guides.start import init_to_network
from wiu_pyro.guides.trained_by import refuse_svi, refuse_uncallable
from wiu_pyro.nn import (
    Batches,
    BayesianNetwork,
    ModelStructure,
    as_batches,
    evaluation_mode,
    inspect_model,
    is_normal,
    run_at,
)

__all__ = ["NetworkGuide"]

_INSTANCES: dict[str, itertools.count[int]] = {}


class NetworkGuide(AutoContinuous):
    """Base of the toolkit's guides: a Gaussian over one flat vector of all weights.

    Parameters
    ----------
    model : callable
        A Pyro model: `BayesianNetwork`, or any with weights as sample sites and one observed site.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; `init_to_network` when None.
    temperature : float
        Multiplies the weight of the KL from the prior; 1 is Bayes, below 1 a "cold" posterior.

    Raises
    ------
    GuideError
        If the temperature is not positive.
    """

    cli_name: ClassVar[str] = ""
    structure_name: ClassVar[str] = ""
    default_predictive: ClassVar[str] = "sampled"
    trained_by: ClassVar[str] = "svi"
    default_learning_rate: ClassVar[float] = 1e-3
    factorised: ClassVar[bool] = False  # all weights independent Normals, with means and sds from `_loc_scale`
    has_own_prior: ClassVar[bool] = False  # whether `structure` has other priors than the model
    needs_dropout: ClassVar[bool] = False  # whether it takes networks with dropout alone
    objective: ClassVar[str] = "-ELBO"  # what `negative_elbo` is, where the temperature is 1
    no_density: ClassVar[str] = ""  # why `log_prob` gives no density, where it gives none

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise GuideError(f"The temperature must be positive, but is {temperature}. 1 is Bayes' rule.")
        refuse_uncallable(model)
        super().__init__(model)
        count = next(_INSTANCES.setdefault(type(self).__name__, itertools.count(1)))
        if count > 1:  # Pyro's parameters go by name: two guides of a class must not share theirs
            self._pyro_name = f"{type(self).__name__}_{count}"
        self._model = (model,)
        self._init_loc_fn = init_loc_fn or init_to_network(model)
        self.temperature = temperature
        self.structure: ModelStructure | None = None
        self.prior_scales: dict[str, float] = {}

    def setup(self, data: Any) -> None:
        """Look at the model with one batch of `data` and make the guide's parameters, unless that is done.

        Parameters
        ----------
        data : DataLoader, Dataset or tuple of tensors
            Labels included.
        """
        if self.prototype_trace is None:
            self._setup_prototype(*next(iter(as_batches(data))))

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        model = self.model
        self.structure = inspect_model(model, *args)
        self._model = (InitMessenger(self._init_loc_fn)(self._visible_model()),)
        with evaluation_mode(model):  # the running statistics of a trained network stay as they are
            super()._setup_prototype(*args, **kwargs)
        self._model = (model,)
        self.fixed_priors = not self.structure.dependent_priors

    def _visible_model(self) -> Callable[..., Any]:
        """Return the part of the model this guide approximates; by default all of it."""
        return self.model

    def sites(self) -> list[tuple[str, slice, torch.Size]]:
        """Return name, place in the flat vector, and shape of each site, in the flat vector's order."""
        if self.prototype_trace is None:
            raise GuideError(
                f"{type(self).__name__} has not seen any data yet. Fit it, or call guide.setup(data) with one batch."
            )
        found, start = [], 0
        for name, _ in self.prototype_trace.iter_stochastic_nodes():
            shape = self._unconstrained_shapes[name]
            found.append((name, slice(start, start + shape.numel()), shape))
            start += shape.numel()
        return found

    def unpack(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take a flat vector of shape (latent_dim,) apart into the value of each site."""
        sites = self.sites()
        parts = flat.split([shape.numel() for _, _, shape in sites])  # one backward for all, where slices need one each
        nodes = self.prototype_trace.nodes
        return {
            name: biject_to(nodes[name]["fn"].support)(part.view(shape))
            for (name, _, shape), part in zip(sites, parts, strict=True)
        }

    def point_estimate(self) -> dict[str, torch.Tensor]:
        """Return the weights at the guide's centre, by site, detached."""
        return {name: value.detach() for name, value in self.unpack(self.loc).items()}

    def pack(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Put the value of each site into a flat vector of shape (latent_dim,), unconstrained."""
        nodes = self.prototype_trace.nodes
        for name, _, _ in self.sites():
            if name not in values:
                raise GuideError(f"A value for each site is needed, but '{name}' is missing. Give all sites' values.")
            shape = nodes[name]["fn"].shape()
            if values[name].shape != shape:
                raise GuideError(
                    f"Site '{name}' needs a value of shape {tuple(shape)}, but it has {tuple(values[name].shape)}. "
                    "Give the weights of a network of the same layers."
                )
        return torch.cat(
            [biject_to(nodes[name]["fn"].support).inv(values[name]).reshape(-1) for name, *_ in self.sites()]
        )

    def start_at(self, values: dict[str, torch.Tensor]) -> None:
        """Move the guide's centre to given weights.

        Parameters
        ----------
        values : dict of site to Tensor
            A value for each site, in the site's own shape.
        """
        with torch.no_grad():
            self.loc.copy_(self.pack({name: value.to(self.loc.device) for name, value in values.items()}))

    @property
    def runs_directly(self) -> bool:
        """Whether the model is a `BayesianNetwork` as it is, whose likelihood needs none of Pyro's handlers."""
        return getattr(type(self.model), "forward", None) is BayesianNetwork.forward

    def log_likelihood(self, weights: dict[str, torch.Tensor], batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the log-likelihood of a batch at given weights, scaled to the whole data, in nats."""
        if self.runs_directly and len(batch) == 2:
            return self.model.log_likelihood(weights, *batch)
        trace, _ = run_at(self.model, weights, batch)
        node = trace.nodes[self.structure.observed]
        return scale_and_mask(node["fn"].log_prob(node["value"]), node["scale"], node["mask"]).sum()

    def set_prior_scales(self, scales: dict[str, float]) -> None:
        """Let the guide stand under the model's priors with their sds multiplied, by site; the model stays as it is."""
        self.prior_scales = dict(scales)
        self.__dict__.pop("_flat_prior", None)

    def flat_prior(self) -> FlatPrior:
        """Return the priors in the order of the flat vector; read once, and again after a move to another device."""
        cached = self.__dict__.get("_flat_prior")
        if cached is None or cached.loc.device != self.loc.device:
            nodes = self.prototype_trace.nodes
            sites = [(name, nodes[name]["fn"], shape) for name, _, shape in self.sites()]
            cached = self.__dict__["_flat_prior"] = read_priors(sites, self.prior_scales, like=self.loc)
        return cached

    def other_log_prior(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the log prior of the sites without a Normal prior at a flat vector, on the unconstrained scale."""
        total = flat.new_zeros(())
        for name, place, shape in self.sites():
            fn = self.prototype_trace.nodes[name]["fn"]
            if is_normal(fn):
                continue
            transform = biject_to(fn.support)
            free = flat[place].view(shape)
            value = transform(free)
            total = total + fn.log_prob(value).sum() + transform.log_abs_det_jacobian(free, value).sum()
        return total

    def log_prior(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the log prior at a flat vector, on the unconstrained scale, in nats."""
        prior = self.flat_prior()
        deviation = (flat - prior.loc) / prior.scale
        squares = deviation.square().sum() if prior.all_normal else deviation[prior.normal].square().sum()
        normal = -0.5 * squares - prior.log_scale_sum - prior.num_normal * HALF_LOG_TWO_PI
        return normal if prior.all_normal else normal + self.other_log_prior(flat)

    def sample_latent(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Sample the flat vector of all weights; not in a step of Pyro's `SVI` where that cannot train the guide."""
        if self.trained_by == "fit":
            refuse_svi(self)
        return super().sample_latent(*args, **kwargs)

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return an unbiased estimate of −ELBO over the whole data from one batch, in nats.

        This one draws from `get_posterior`; a guide that knows its KL in closed form does better.

        Parameters
        ----------
        *batch : Tensor
            What the model is called with.
        kl_weight : float
            Multiplies the KL, beside the temperature.

        Returns
        -------
        Tensor
            A scalar on the graph of the guide's parameters.

        Raises
        ------
        PriorError
            If a prior depends on another site.
        """
        self.refuse_dependent_priors()
        posterior = self.get_posterior()
        flat = posterior.rsample()
        divergence = posterior.log_prob(flat) - self.log_prior(flat)
        return kl_weight * self.temperature * divergence - self.log_likelihood(self.unpack(flat), batch)

    def refuse_dependent_priors(self) -> None:
        """Raise PriorError where a prior depends on another site or on what is learned."""
        if not self.fixed_priors:
            raise PriorError(
                f"{type(self).__name__} needs priors that depend on nothing else, but the prior of "
                f"'{self.structure.dependent_priors[0]}' depends on another site or on a learned parameter. "
                "Fix the prior, or use AutoMeanField."
            )

    def make_optimiser(self, parameters: list[torch.Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return what `wiu.fit` trains with: Adam, unless the guide has an update of its own.

        Parameters
        ----------
        parameters : list of Tensor
            The guide's parameters, and the model's without a prior.
        learning_rate : float

        Returns
        -------
        torch.optim.Optimizer
        """
        return torch.optim.Adam(parameters, lr=learning_rate, fused=True)

    def before_training(self, batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
        """Look at a few batches of the training data before the first step, in a guide that was not set up before."""

    def after_step(self, step: int, total: int) -> None:
        """Look at the parameters after each of the optimiser's steps; `step` counts from 0 to `total` - 1."""

    def after_training(self, batches: Batches) -> None:
        """Look at the training data once more when all steps are done."""

    def least_travel(self) -> float:
        """Return how far a parameter of a new guide must be able to move, or its result is where it started."""
        return 0.0

    def travel_per_step(self, learning_rate: float) -> float:
        """Return how far the optimiser moves a parameter in a step; Adam, by about its learning rate."""
        return learning_rate

    def loss_offset(self) -> float:
        """Return the part of −ELBO that no weight can change, in nats: relative changes are taken without it."""
        return 0.0

    def log_prob(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return log q of a draw, on the unconstrained scale, a float64 scalar in nats."""
        return self.get_posterior().log_prob(self.pack(weights)).double()


def visible(model: Callable[..., Any], hidden: tuple[str, ...]) -> Callable[..., Any]:
    """Return a model whose sites in `hidden` are not seen from outside."""
    return poutine.block(model, hide=list(hidden)) if hidden else model
