"""One training run: what `fit` does between its arguments and its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoLaplaceApproximation
from torch import nn
from torch.distributions import biject_to

from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.running_statistics import tracking_layers
from wiu_pyro.infer.averaged_curvature import average_curvature
from wiu_pyro.infer.checks import check_guide
from wiu_pyro.infer.config import FitConfig
from wiu_pyro.infer.drawn_statistics import follow_draws, free_scales, settle_at_draws
from wiu_pyro.infer.means import autocast, give_own_rate
from wiu_pyro.infer.online_tuning import untuned
from wiu_pyro.infer.pyro_laplace import pyro_laplace, refuse_cost
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.infer.start_values import put_at
from wiu_pyro.nn import Batches, ModelStructure, as_batches, put_unsampled, unsampled
from wiu_pyro.nn.checks import check_batch

__all__ = ["Run"]

LEARNING_RATE = 1e-3


class Run:
    """A model and its guide on their device: where they start, their loss, and what comes of them when trained.

    The training itself is `wiu_pyro.infer.training.Training`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: AutoGuide,
        *,
        config: FitConfig,
        structure: ModelStructure,
        device: torch.device,
    ) -> None:
        self.model, self.guide, self.config = model, guide, config
        self.structure, self.device = structure, device
        self.learning_rate = config.learning_rate or getattr(guide, "default_learning_rate", LEARNING_RATE)
        check_guide(model, guide)
        self.direct = isinstance(guide, NetworkGuide)
        self.is_new = self.direct and guide.prototype_trace is None
        self.batch_statistics, self.has_statistics = config.batch_statistics, False
        if not self.direct:
            self.elbo = Trace_ELBO() if isinstance(guide, AutoLaplaceApproximation) else TraceMeanField_ELBO()

    def prepare(self, batches: Batches, start: Mapping[str, torch.Tensor] | None) -> None:
        """Move everything to the device, set the guide up, and put it where it is to start."""
        if isinstance(self.model, nn.Module):
            self.model.to(self.device)
        self.mode(training=False)  # looking at the model leaves a trained network's running statistics alone
        batch = next(iter(batches))
        if self.guide.prototype_trace is None:
            self.guide(*batch)
        self.guide.to(self.device)
        self._refuse_curvature()
        if start is not None:
            beside = {name: start[name] for name in unsampled(self.model, self.structure.priors) if name in start}
            put_unsampled(self.model, beside)
            self.has_statistics = any(name.endswith("running_mean") for name in beside)
            if not start or len(beside) < len(start):
                put_at(self.guide, start)
        if self.batch_statistics is None:
            self.batch_statistics = not self.is_distribution

    @property
    def draws_statistics(self) -> bool:
        """Whether BatchNorm's running statistics are means over the draws of a distribution that is trained."""
        return self.is_distribution and not self.batch_statistics and bool(tracking_layers(self.model))

    def start_statistics(self, batches: Batches) -> None:
        """Let BatchNorm hold mean statistics over draws, where its training does not take each batch's own.

        A point keeps the ones it starts with. A new distribution begins at the scale of its prior where that is free.
        """
        if self.draws_statistics and self.is_new:
            free_scales(self.guide, self.structure, batches)
        if self.draws_statistics or not (self.batch_statistics or self.has_statistics):
            self.settle_statistics(batches)

    def settle_statistics(self, batches: Batches) -> None:
        """Let BatchNorm hold the mean statistics over draws of the guide as it is."""
        settle_at_draws(self.model, self.guide, batches, self.device)

    def follow_statistics(self, batch: tuple[torch.Tensor, ...], step: int) -> None:
        """Let BatchNorm's statistics follow the draws in a training that does not take each batch's own."""
        if self.draws_statistics:
            follow_draws(self.model, self.guide, batch, step, self.device)

    def show_data(self, batches: Batches) -> None:
        """Let a new guide look at the data before it is trained, with random numbers of its own."""
        if self.is_new:
            shuffled = replace(batches, augment=None, generator=torch.Generator().manual_seed(0))
            with seeded(0, self.device):
                self.guide.before_training(self._checked(shuffled))

    def _checked(self, batches: Batches) -> Iterator[tuple[torch.Tensor, ...]]:
        for batch in batches:
            check_batch(self.structure, batch)
            yield batch

    def _refuse_curvature(self) -> None:
        """Say what the curvature cannot cover, or would take, before any training is done for it."""
        if isinstance(self.guide, LaplaceGuide):
            self.guide.refuse_model()
            self.guide.refuse_cost()
        elif isinstance(self.guide, AutoLaplaceApproximation):
            refuse_cost(self.guide)

    @property
    def objective(self) -> str:
        """What `loss` is, in words, at a temperature of 1."""
        if self.direct:
            return self.guide.objective
        is_point = isinstance(self.guide, AutoDelta | AutoLaplaceApproximation)
        return "-log joint density" if is_point else "-ELBO"

    @property
    def is_distribution(self) -> bool:
        """Whether a distribution over the weights is trained, rather than a point."""
        return self.objective.startswith("-ELBO")

    def loss(self, batch: tuple[torch.Tensor, ...], *, kl_weight: float = 1.0) -> torch.Tensor:
        """Return the objective over the whole data, estimated from one batch; `kl_weight` multiplies the KL."""
        with autocast(self.device, self.config.precision):
            if not self.direct:
                return self.elbo.differentiable_loss(self.model, self.guide, *batch)
            if kl_weight == 1.0:
                return self.guide.negative_elbo(*batch)
            return self.guide.negative_elbo(*batch, kl_weight=kl_weight)

    def parameters(self) -> list[torch.Tensor]:
        """Return what is trained: the guide's parameters, and the model's without a prior."""
        own = list(self.model.parameters()) if isinstance(self.model, nn.Module) else []
        return [parameter for parameter in [*self.guide.parameters(), *own] if parameter.requires_grad]

    def optimiser(self, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        """Return what moves the parameters: the guide's own update, or Adam."""
        if self.direct:
            found = self.guide.make_optimiser(parameters, self.learning_rate)
        else:
            found = torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        if self.config.log_scale_rate != 1:
            named = [(name.partition(".")[0], value) for name, value in self.guide.named_parameters()]
            log_scales = [value for name, value in named if "scale" in name or "variance" in name]
            give_own_rate(found, log_scales, self.config.log_scale_rate)
        return found

    def mode(self, *, training: bool) -> None:
        """Put the network into training or evaluation mode; BatchNorm as the settings say."""
        if not isinstance(self.model, nn.Module):
            return
        self.model.train(training)
        if training and not self.batch_statistics:
            for layer in tracking_layers(self.model):
                layer.eval()

    def centre(self) -> dict[str, torch.Tensor]:
        """Return the guide's centre by site: its mean, or median for Pyro's own guides."""
        with torch.no_grad():
            if isinstance(self.guide, NetworkGuide):
                return {name: value.clone() for name, value in self.guide.point_estimate().items()}
            if isinstance(self.guide, AutoLaplaceApproximation):
                latent = self.guide._unpack_latent(self.guide.loc.detach())
                return {site["name"]: biject_to(site["fn"].support)(value).clone() for site, value in latent}
            return {name: value.detach().clone() for name, value in self.guide.median().items()}

    def finish(self, data: Any) -> AutoGuide:
        """Return the guide to sample from: for a Laplace guide, the Gaussian around its point estimate."""
        self.mode(training=False)
        if isinstance(self.guide, LaplaceGuide):
            batches = as_batches(data, batch_size=self.config.curvature_batch_size, device=self.device)
            batches = replace(batches, channels_last=self.config.channels_last)
            by_held_out = self.guide.tuning is not None and self.guide.tuning.by == "cross-validation"
            with untuned(self.guide) if by_held_out else nullcontext():  # then it is tuned afterwards
                posterior = self.guide.laplace_approximation(
                    batches, checkpoint=self.config.checkpoint, progress=self.config.progress
                )
                rounds = self.config.curvature_rounds
                return average_curvature(self.guide, posterior, batches, rounds=rounds) if rounds else posterior
        if isinstance(self.guide, AutoLaplaceApproximation):
            return pyro_laplace(self.guide, data, self.device)
        return self.guide
