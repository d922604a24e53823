"""One training run: what `fit` does between its arguments and its result."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation
from torch import nn
from torch.distributions import biject_to

from wiu_pyro.errors import CostError, CurvatureError, FitError, GuideError
from wiu_pyro.guides.block_normal import CurvatureRecord
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.infer.averaged_curvature import average_curvature
from wiu_pyro.infer.checks import check_guide
from wiu_pyro.infer.config import FitConfig
from wiu_pyro.infer.online_tuning import OnlineTuning, untuned
from wiu_pyro.infer.track import Track
from wiu_pyro.infer.tracker import Tracker
from wiu_pyro.nn import Batches, ModelStructure, as_batches, put_unsampled, run_at, unsampled
from wiu_pyro.nn.checks import check_batch
from wiu_pyro.progress import ProgressBar

__all__ = ["Run"]

LEARNING_RATE = 1e-3
MAX_BYTES = 4 * 2**30  # of Pyro's own dense Hessian, its inverse and its factor


class Run:
    """One training run: the parts of `fit` share its state here."""

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
        check_guide(model, guide)
        self.direct = isinstance(guide, NetworkGuide)
        self.tracker: Tracker | None = None
        if not self.direct:
            self.elbo = Trace_ELBO() if isinstance(guide, AutoLaplaceApproximation) else TraceMeanField_ELBO()

    def prepare(self, batches: Batches, start: Mapping[str, torch.Tensor] | None) -> None:
        """Move everything to the device, set the guide up, and put it where it is to start."""
        if isinstance(self.model, nn.Module):
            self.model.to(self.device)
        self._mode(training=False)  # looking at the model leaves a trained network's running statistics alone
        batch = next(iter(batches))
        if self.guide.prototype_trace is None:
            self.guide(*batch)
        self.guide.to(self.device)
        self._refuse_curvature()
        if start is not None:
            beside = {name: start[name] for name in unsampled(self.model, self.structure.priors) if name in start}
            put_unsampled(self.model, beside)
            if not start or len(beside) < len(start):
                self._start_at(start)

    def _refuse_curvature(self) -> None:
        """Say what the curvature cannot cover, or would take, before any training is done for it."""
        if isinstance(self.guide, LaplaceGuide):
            self.guide.refuse_model()
            self.guide.refuse_cost()
        elif isinstance(self.guide, AutoLaplaceApproximation):
            needed = 3 * 4 * self.guide.latent_dim**2
            if needed > MAX_BYTES:
                raise CostError(
                    f"Pyro's AutoLaplaceApproximation of {self.guide.latent_dim:,} weights needs "
                    f"{needed / 2**30:,.1f} GiB for the Hessian. Use wiu_pyro.guides.AutoKFACLaplace."
                )

    def _start_at(self, values: Mapping[str, torch.Tensor]) -> None:
        if isinstance(self.guide, NetworkGuide):
            self.guide.start_at(dict(values))
        elif isinstance(self.guide, AutoLaplaceApproximation):
            with torch.no_grad():
                self.guide.loc.copy_(self._flat(values))
        else:
            raise GuideError(
                f"start= is for the toolkit's guides and AutoLaplaceApproximation; {type(self.guide).__name__} starts "
                "where its init_loc_fn says: wiu_pyro.guides.init_to_network(model), or init_to_value."
            )

    def _flat(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Put values into the flat, unconstrained vector of one of Pyro's guides."""
        parts = []
        for name, site in self.guide.prototype_trace.iter_stochastic_nodes():
            shape = tuple(site["fn"].shape())
            if name not in values or tuple(values[name].shape) != shape:
                got = tuple(values[name].shape) if name in values else "none"
                raise GuideError(
                    f"Site '{name}' needs a start of shape {shape}, but has {got}. Give a value for each site."
                )
            parts.append(biject_to(site["fn"].support).inv(values[name].to(self.device)).reshape(-1))
        return torch.cat(parts)

    def loss(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return −ELBO over the whole data, estimated from one batch."""
        if self.direct:
            return self.guide.negative_elbo(*batch)
        return self.elbo.differentiable_loss(self.model, self.guide, *batch)

    def parameters(self) -> list[torch.Tensor]:
        """Return what is trained: the guide's parameters, and the model's without a prior."""
        own = list(self.model.parameters()) if isinstance(self.model, nn.Module) else []
        return [parameter for parameter in [*self.guide.parameters(), *own] if parameter.requires_grad]

    def full_rate_epochs(self, epochs: int) -> int:
        """Return the number of epochs before the learning rate begins to fall."""
        return epochs if self.config.schedule == "constant" else epochs - math.floor(0.3 * epochs)

    def reach(self, epochs: int, steps_per_epoch: int) -> float:
        """Return about how far Adam can move a parameter: the learning rate, summed over the steps."""
        full = self.full_rate_epochs(epochs)
        return (self.config.learning_rate or LEARNING_RATE) * steps_per_epoch * (full + 0.5 * (epochs - full))

    def train(self, batches: Batches, epochs: int, validation: Any) -> tuple[list[float], dict[str, list[float]]]:
        """Train for `epochs` passes; return the loss of each, and the validation scores."""
        losses: list[float] = []
        scores: dict[str, list[float]] = {}
        if epochs == 0:
            return losses, scores
        parameters = self.parameters()
        rate = self.config.learning_rate or LEARNING_RATE
        optimiser = self._optimiser(parameters, rate)
        total, full = epochs * len(batches), self.full_rate_epochs(epochs) * len(batches)
        online = self._online(batches, epochs)
        if self.config.track is not None:
            self.tracker = Tracker(self, len(batches), self.full_rate_epochs(epochs))
        held_out = None if validation is None else as_batches(validation, batch_size=1000, device=self.device)
        if held_out is not None:
            check_batch(self.structure, next(iter(held_out)))
        with pyro.validation_enabled(False), ProgressBar(total, type(self.guide).__name__, self.config.progress) as bar:
            step = 0
            for number in range(1, epochs + 1):
                self._mode(training=True)
                running, count = 0.0, 0
                for batch in batches:
                    for group in optimiser.param_groups:
                        group["lr"] = rate * _fraction(step, full, total)
                    value = self._step(optimiser, parameters, batch, step)
                    if self.direct:
                        self.guide.after_step(step, total)
                    if self.tracker is not None:
                        self.tracker.stepped(batch, value)
                    running, count, step = running + value, count + 1, step + 1
                    bar.advance(loss=value)
                losses.append(running / count)
                for name, score in self._validate(held_out).items():
                    scores.setdefault(name, []).append(score)
                    bar.note(**{name: score})
                if online is not None and number < epochs:
                    self._mode(training=False)
                    online.after_epoch(number)
        return losses, scores

    def _optimiser(self, parameters: list[torch.Tensor], rate: float) -> torch.optim.Optimizer:
        if self.direct:
            return self.guide.make_optimiser(parameters, rate)
        return torch.optim.Adam(parameters, lr=rate, fused=True)

    @property
    def track(self) -> Track | None:
        """What was kept of the layers through the training, where that was asked for."""
        return None if self.tracker is None else self.tracker.result()

    def _online(self, batches: Batches, epochs: int) -> OnlineTuning | None:
        """Return what changes the prior between epochs, where that was asked for."""
        tuning = getattr(self.guide, "tuning", None)
        if tuning is None or tuning.when != "online":
            return None
        if epochs <= tuning.burn_in:
            raise GuideError(
                f"A prior tuned online needs more epochs than its burn-in of {tuning.burn_in}, but epochs is {epochs}. "
                'Train longer, or use tune_when="after".'
            )
        return OnlineTuning(self.guide, batches)

    def _step(self, optimiser: torch.optim.Optimizer, parameters: list[torch.Tensor], batch: Any, step: int) -> float:
        optimiser.zero_grad(set_to_none=True)
        try:
            loss = self.loss(batch)
        except (IndexError, RuntimeError):
            check_batch(self.structure, batch)  # a DataLoader's later batches are looked at only when they break
            raise
        value = loss.item()
        if not math.isfinite(value):
            raise FitError(
                f"Every loss must be finite, but at step {step} it is {value} (site '{self._broken_site(batch)}'). "
                f"Lower the learning rate (now {optimiser.param_groups[0]['lr']:.2g}) or check that batch's data."
            )
        loss.backward()
        if self.config.max_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.config.max_norm)
        optimiser.step()
        return value

    def _broken_site(self, batch: tuple[torch.Tensor, ...]) -> str:
        with torch.no_grad():
            values = self.guide(*batch)
            for name, value in values.items():
                if not torch.isfinite(value).all():
                    return name
        return self.structure.observed

    def _mode(self, *, training: bool) -> None:
        if isinstance(self.model, nn.Module):
            self.model.train(training)

    def _validate(self, held_out: Batches | None) -> dict[str, float]:
        """Return accuracy and negative log-likelihood per datum, in nats, of the guide's centre."""
        if held_out is None:
            return {}
        self._mode(training=False)
        nll, correct, count = 0.0, 0, 0
        weights = self.centre()
        with torch.no_grad():
            for batch in held_out:
                trace, _ = run_at(self.model, weights, batch)
                fn = trace.nodes[self.structure.observed]["fn"]
                nll -= fn.log_prob(batch[1]).sum().item()
                count += len(batch[0])
                if self.structure.likelihood == "categorical":
                    correct += int((fn.logits.argmax(-1) == batch[1]).sum())
        scores = {"nll": nll / count}
        return {"accuracy": correct / count, **scores} if self.structure.likelihood == "categorical" else scores

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
        self._mode(training=False)
        if isinstance(self.guide, LaplaceGuide):
            batches = as_batches(data, batch_size=self.config.curvature_batch_size, device=self.device)
            by_held_out = self.guide.tuning is not None and self.guide.tuning.by == "cross-validation"
            with untuned(self.guide) if by_held_out else nullcontext():  # then it is tuned afterwards
                posterior = self.guide.laplace_approximation(
                    batches, checkpoint=self.config.checkpoint, progress=self.config.progress
                )
                rounds = self.config.curvature_rounds
                return average_curvature(self.guide, posterior, batches, rounds=rounds) if rounds else posterior
        if isinstance(self.guide, AutoLaplaceApproximation):
            return _pyro_laplace(self.guide, data, self.device)
        return self.guide


def _fraction(step: int, full: int, total: int) -> float:
    """Return the learning rate as a fraction of the full one: 1, then a cosine to 0."""
    if step < full:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - full) / (total - full)))


def _pyro_laplace(guide: AutoLaplaceApproximation, data: Any, device: torch.device) -> AutoGuide:
    """Run Pyro's own Laplace approximation on the whole data in one call."""
    if guide.latent_dim > 2000:
        warnings.warn(
            f"Pyro's AutoLaplaceApproximation differentiates {guide.latent_dim:,} times over all data; "
            "AutoFullLaplace does the same faster.",
            stacklevel=2,
        )
    parts = list(as_batches(data, batch_size=2**30, device=device))
    whole = tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
    try:
        with torch.enable_grad():
            posterior = guide.laplace_approximation(*whole)
    except torch.linalg.LinAlgError:
        raise CurvatureError(
            "Pyro's AutoLaplaceApproximation needs a positive definite Hessian at the mode, but its Cholesky "
            "decomposition failed. Train further, or use AutoFullLaplace(model, curvature='ggn') or AutoKFACLaplace, "
            "whose curvature is positive semi-definite."
        ) from None
    posterior.source_name, posterior.cli_name, posterior.structure_name = type(guide).__name__, "auto-laplace", "full"
    num_data = len(whole[0])
    posterior.curvature = CurvatureRecord("hessian", num_data, num_data, 1.0)
    return posterior
