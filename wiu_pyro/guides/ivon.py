"""Natural-gradient variational inference at about the price of Adam: an independent Normal for each weight.

Shen et al. (2024), Variational Learning is Effective for Large Deep Networks, algorithm 1 (IVON, the improved
variational online Newton method). The mean moves along the natural gradient; the sd follows from a running estimate of
the Hessian's diagonal, which one gradient at one draw of the weights gives by the reparametrisation trick.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from wiu_pyro.errors import GuideError
from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI
from wiu_pyro.guides.ivon_update import IVONUpdate, Target
from wiu_pyro.guides.network_guide import NetworkGuide

__all__ = ["AutoIVON"]

START_SCALE = 0.3  # initial sd, in units of the prior's
NATURAL_RATE = 0.01  # of which a mean's jitter at full rate is √(rate num_data / (2 batch_size)) posterior sds


class AutoIVON(NetworkGuide):
    """Independent Normal posteriors, trained by natural gradients in place of Adam; `wiu_pyro.fit` alone trains it.

    Each weight's prior enters exactly, as weight decay of its own strength: a Normal prior in the update, another one
    by the gradient of its density. The posterior sd is 1 / √(λ (h + δ)), with λ = num_data / temperature, h the Hessian
    of the mean loss, and λ δ the prior's precision.

    Parameters
    ----------
    model : callable
        A Pyro model.
    num_samples : int
        Draws of the weights in each step, each with a pass forward and back.
    hess_init : float or None
        Initial h of all weights, with the learning rate in units of h + δ there, as in the paper (its default rate is
        then 0.1). When None, sds start at 0.3 of the prior's and the learning rate is that of the natural gradient
        (0.01): the same training whatever the units of the weights. Then a step moves a mean by no more than a tenth
        of its sd, and multiplies h + δ by 13/8 at most, which the first, noisy gradients of convolutions would exceed.
    betas : tuple of float
        How much of the running gradient and of the running h a step keeps.
    clip_radius : float
        Longest step of a weight, before the learning rate.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the KL.

    Raises
    ------
    GuideError
        If a number is out of its range.

    Notes
    -----
    Parameters without a prior are trained by Adam, at 0.001 where the learning rate is at its full height.

    Examples
    --------
    >>> import wiu_pyro as wiu
    >>> model = wiu.nn.BayesianNetwork(nn.Linear(4, 3), num_data=8)
    >>> data = torch.ones(8, 4), torch.zeros(8).long()
    >>> fit = wiu.fit(model, AutoIVON(model), data, epochs=2)
    """

    cli_name = "ivon"
    structure_name = "mean-field"
    trained_by = "fit"
    factorised = True

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        num_samples: int = 1,
        hess_init: float | None = None,
        betas: tuple[float, float] = (0.9, 0.9995),
        clip_radius: float = math.inf,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> None:
        _check(num_samples=num_samples, hess_init=hess_init, betas=betas, clip_radius=clip_radius)
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.num_samples = num_samples
        self.hess_init = hess_init
        self.betas = betas
        self.clip_radius = clip_radius

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.loc = nn.Parameter(self._init_loc())
        # never moved: its gradient is noise times gradient, summed over draws, batches and processes as any gradient is
        self.stretch = nn.Parameter(torch.zeros_like(self.loc))
        self.register_buffer("momentum", torch.zeros_like(self.loc))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        target = self.target()
        start = target.decay / START_SCALE**2 if self.hess_init is None else self.hess_init + target.decay
        start = torch.where(self.flat_prior().normal, start, self.hess_init or 1.0)
        self.register_buffer("start_precision", start)
        self.register_buffer("hess", start - target.decay)

    def target(self, kl_weight: float = 1.0) -> Target:
        """Return what the update needs of data and prior.

        Parameters
        ----------
        kl_weight : float
            Multiplies the KL, beside the temperature.

        Returns
        -------
        Target

        Raises
        ------
        GuideError
            If a weight's precision is not positive under it: it was trained with more weight on the KL.
        """
        prior, temperature = self.flat_prior(), kl_weight * self.temperature
        cached: Target | None = self.__dict__.get("_target")
        if cached is None or cached.prior is not prior or cached.temperature != temperature:
            cached = Target.of(prior, self.structure.num_data, temperature)
            self._refuse_lost_precision(cached)
            self.__dict__["_target"] = cached
        return cached

    def _refuse_lost_precision(self, target: Target) -> None:
        """Raise where h, which may be negative down to −δ, goes below it as δ falls with the KL's weight."""
        hess = self._buffers.get("hess")
        lost = 0 if hess is None else int((hess + target.decay <= 0).sum())
        if lost:
            raise GuideError(
                f"Every weight needs a positive precision, but with the KL's weight times temperature at "
                f"{target.temperature:.3g} that of {lost} of {len(hess)} weights is not: their Hessians were estimated "
                "at a larger one. Train on without a warm-up of the KL, at the same temperature, or make a new guide."
            )

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return an estimate of −ELBO from the batch, in nats; only its expected log-likelihood has a gradient.

        The KL's part of the step, for Normal priors, is in the update.

        Parameters
        ----------
        *batch : Tensor
            What the model is called with.
        kl_weight : float
            Multiplies the KL, beside the temperature; positive.

        Returns
        -------
        Tensor
            A scalar on the graph of `loc`.

        Raises
        ------
        GuideError
            If the KL has no weight: then no sd is the best.
        PriorError
            If a prior depends on another site.
        """
        self.refuse_dependent_priors()
        if not kl_weight > 0:
            raise GuideError(
                f"{type(self).__name__} needs a positive weight of the KL, but it is {kl_weight}: the sd follows from "
                "it. Start a warm-up above 0."
            )
        target = self.in_force = self.target(kl_weight)
        with torch.no_grad():
            precision = self.hess + target.decay
            scale = precision.rsqrt().mul_(target.ess**-0.5)
            divergence = target.divergence(self.loc, precision)
        total = self.loc.new_zeros(())
        for _ in range(self.num_samples):
            flat = _Draw.apply(self.loc, self.stretch, torch.randn_like(self.loc).mul_(scale))
            total = total - self.log_likelihood(self.unpack(flat), batch)
            if not target.prior.all_normal:
                total = total - target.temperature * self.other_log_prior(flat)
        return total / self.num_samples + target.temperature * divergence

    def make_optimiser(self, parameters: list[torch.Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the natural-gradient update of the weights; Adam moves what has no prior."""
        own = {id(self.loc), id(self.stretch)}
        others = [parameter for parameter in parameters if id(parameter) not in own]
        return IVONUpdate(self, others, learning_rate=learning_rate)

    @property
    def never_clipped(self) -> tuple[torch.Tensor, ...]:
        """What `max_norm` of `wiu_pyro.fit` leaves as it is: scaled down, it would make all sds too wide."""
        return (self.stretch,)

    @property
    def rescaled(self) -> bool:
        """Whether the learning rate is in units of the initial h + δ, or that of the natural gradient itself."""
        return self.hess_init is not None

    @property
    def default_learning_rate(self) -> float:  # type: ignore[override]
        """What `wiu_pyro.fit` takes when none is asked for."""
        return 0.1 if self.rescaled else NATURAL_RATE

    def travel_per_step(self, learning_rate: float) -> float:
        """Return how far a log sd can move towards the prior's in a step, whatever the learning rate."""
        return 0.5 * (1 - self.betas[1])

    def least_travel(self) -> float:
        """Return the longest way of a log sd from its start to the prior's, once the guide is set up."""
        if self.prototype_trace is None:
            return 0.0
        normal = self.flat_prior().normal
        ratio = (self.start_precision / self.target().decay)[normal]
        return 0.5 * math.log(ratio.max().item()) if len(ratio) else 0.0

    def kl_divergence(self) -> torch.Tensor:
        """Return KL(q ‖ prior) in nats; for a prior that is not Normal, its density comes by one draw."""
        with torch.no_grad():
            target = self.target()
            found = target.divergence(self.loc, self.hess + target.decay)
            if not target.prior.all_normal:
                found = found - self.other_log_prior(self.get_posterior().sample())
            return found

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.Distribution:
        """Return the Normal over the flat, unconstrained vector of all weights."""
        return dist.Normal(*self._loc_scale()).to_event(1)

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        target = self.target()
        return self.loc, (target.ess * (self.hess + target.decay)).rsqrt()

    def log_prob(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return log q of a draw, on the unconstrained scale, a float64 scalar in nats."""
        loc, scale = self._loc_scale()
        deviation = (self.pack(weights).double() - loc.double()) / scale.double()
        return -0.5 * deviation.square().sum() - scale.double().log().sum() - len(loc) * HALF_LOG_TWO_PI


class _Draw(torch.autograd.Function):
    """loc + (1 + stretch) noise at stretch = 0, whose gradient is noise times the draw's; it takes the noise over."""

    @staticmethod
    def forward(ctx: Any, loc: torch.Tensor, stretch: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(noise)
        return loc + noise

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (noise,) = ctx.saved_tensors
        return grad, noise * grad, None


def _check(*, num_samples: int, hess_init: float | None, betas: tuple[float, float], clip_radius: float) -> None:
    if num_samples < 1:
        raise GuideError(f"num_samples must be at least 1, but is {num_samples}. Each is one more pass in a step.")
    if hess_init is not None and not (math.isfinite(hess_init) and hess_init > 0):
        raise GuideError(f"hess_init must be positive, but is {hess_init}. Pass for example 1.0.")
    if not all(0 <= beta < 1 for beta in betas):
        raise GuideError(f"Both betas must lie from 0 to below 1, but are {betas}. Pass for example (0.9, 0.9999).")
    if not clip_radius > 0:
        raise GuideError(f"clip_radius must be positive, but is {clip_radius}. Leave it out for none.")
