"""`fit`: train a guide on data and return everything that is known of it afterwards."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation
from torch import nn

from wiu_pyro.errors import CostError, CurvatureError, DataError, DeviceError, FitError, GuideError, near_matches
from wiu_pyro.guides.block_normal import CurvatureRecord
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.infer.checks import check_data
from wiu_pyro.infer.convergence import Convergence, assess
from wiu_pyro.infer.progress import ProgressBar
from wiu_pyro.nn import Batches, BayesianNetwork, ModelStructure, as_batches, run_at

__all__ = ["Fit", "FitConfig", "fit"]


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit.

    Attributes
    ----------
    batch_size : int
        Data per step, for tensors and Datasets; a DataLoader brings its own.
    learning_rate : float or None
        Of Adam; the guide's default (1e-3) when None.
    schedule : {"tail", "constant"}
        ``"tail"``: full rate, then a cosine to zero over the last 30 % of the epochs; or no change at all.
    device : {"cpu", "cuda", "auto"}
    temperature : float or None
        Set on the guide when given.
    max_norm : float or None
        Gradients longer than this are scaled down to it.
    curvature_batch_size : int
        Data per batch of the curvature pass, for tensors and Datasets.
    progress : bool
        Show a progress bar on stderr.
    """

    batch_size: int = 128
    learning_rate: float | None = None
    schedule: str = "tail"
    device: str = "cpu"
    temperature: float | None = None
    max_norm: float | None = None
    curvature_batch_size: int = 512
    progress: bool = False


@dataclass(frozen=True)
class Fit:
    """A trained posterior and how it came about.

    Attributes
    ----------
    model : callable
        The Pyro model.
    guide : AutoGuide
        Ready to sample; after a Laplace guide was fitted, the Gaussian around its point estimate.
    losses : ndarray, shape (epochs,)
        −ELBO per epoch, summed over the data, in nats: the mean over the epoch's batches, as they were trained on.
    validation : dict of str to ndarray, shape (epochs,)
        ``accuracy`` and ``nll`` of the guide's centre after each epoch, when validation data were given.
    convergence : Convergence
    seed : int
    settings : dict
        All settings, as plain values.
    structure : ModelStructure
    point_estimate : dict of site to Tensor
        The guide's centre.
    """

    model: Callable[..., Any]
    guide: AutoGuide
    losses: np.ndarray
    validation: dict[str, np.ndarray]
    convergence: Convergence
    seed: int
    settings: dict[str, Any]
    structure: ModelStructure
    point_estimate: dict[str, torch.Tensor] = field(repr=False)


def fit(
    model: Callable[..., Any],
    guide: AutoGuide,
    data: Any,
    *,
    epochs: int = 20,
    seed: int = 0,
    validation: Any = None,
    start: Fit | Mapping[str, torch.Tensor] | None = None,
    **options: Any,
) -> Fit:
    """Train a guide; for a Laplace guide, then compute the curvature in one more pass over the data.

    The global random state is left as it was. The same seed gives the same result on the same machine.

    Parameters
    ----------
    model : callable
        `BayesianNetwork` or any Pyro model with one observed site; batches call it as ``model(*batch)``.
    guide : AutoGuide
        One of the toolkit's or Pyro's own, made for `model`.
    data : DataLoader, Dataset, or tuple of tensors (x, y)
    epochs : int
        Passes over the data; 0 keeps the weights as they are.
    seed : int
    validation : like `data`, optional
        Looked at after each epoch.
    start : Fit or mapping of site to Tensor, optional
        Weights to start from, such as another fit's point estimate.
    **options
        The fields of `FitConfig`.

    Returns
    -------
    Fit

    Raises
    ------
    FitError
        If a loss is not finite; names the first site that is not.
    DataError
        If the data are not finite, have labels out of range, or are empty.
    DeviceError
        If the device is not there.
    GuideError
        If an option is unknown or a number is negative.
    """
    config = _config(options)
    if epochs < 0:
        raise GuideError(f"epochs must be 0 or more, but is {epochs}. 0 keeps the weights as they are.")
    device = _device(config.device)
    _adopt(model, guide, data, config)
    devices = [device] if device.type == "cuda" else []
    # a scope of its own: Pyro's parameters go by name, and a second guide of the same class would take the first's
    with torch.random.fork_rng(devices=devices), pyro.get_param_store().scope(), pyro.poutine.block():
        pyro.set_rng_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        batches = as_batches(data, batch_size=config.batch_size, generator=generator, device=device)
        structure = check_data(model, batches)
        run = _Run(model, guide, config=config, structure=structure, device=device)
        run.prepare(batches, start)
        losses, scores = run.train(batches, epochs, validation)
        posterior = run.finish(data)
    settings = {
        "guide": type(guide).__name__,
        "epochs": epochs,
        **asdict(config),
        "device": str(device),
        "batches_per_epoch": len(batches),
    }
    offset = guide.loss_offset() if isinstance(guide, NetworkGuide) else 0.0
    convergence = assess(
        [loss - offset for loss in losses],
        full_rate_epochs=run.full_rate_epochs(epochs),
        least=0.0 if structure.likelihood in ("categorical", "bernoulli") else structure.num_data,
    )
    return Fit(
        model=model,
        guide=posterior,
        losses=np.asarray(losses),
        validation={name: np.asarray(values) for name, values in scores.items()},
        convergence=convergence,
        seed=seed,
        settings=settings,
        structure=structure,
        point_estimate=run.centre(),
    )


def _config(options: dict[str, Any]) -> FitConfig:
    known = [item.name for item in fields(FitConfig)]
    for name in options:
        if name not in known:
            raise GuideError(f"fit has no option '{name}'. {near_matches(name, known)}")
    config = FitConfig(**options)
    for name in ("batch_size", "curvature_batch_size"):
        if getattr(config, name) < 1:
            raise DataError(f"{name} must be at least 1, but is {getattr(config, name)}. Pass for example 128.")
    for name in ("learning_rate", "temperature", "max_norm"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise GuideError(f"{name} must be a positive number, but is {value}. Leave it out for the default.")
    if config.schedule not in ("tail", "constant"):
        raise GuideError(f"Unknown schedule '{config.schedule}'. {near_matches(config.schedule, ['tail', 'constant'])}")
    return config


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"Unknown device '{name}'. {near_matches(name, ['auto', 'cpu', 'cuda'])}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("Device 'cuda' was asked for, but torch sees no GPU. Use device='cpu' or 'auto'.")
    return device


def _adopt(model: Callable[..., Any], guide: AutoGuide, data: Any, config: FitConfig) -> None:
    """Complete model and guide by what the call says: the number of data, the temperature."""
    if not isinstance(guide, AutoGuide):
        raise GuideError(
            f"A Pyro AutoGuide is needed, but this is a {type(guide).__name__}. Pass AutoMeanField(model)."
        )
    if isinstance(model, BayesianNetwork) and model.num_data is None:
        model.num_data = as_batches(data).num_data
    if config.temperature is not None:
        if not isinstance(guide, NetworkGuide):
            raise GuideError("A temperature is for the toolkit's guides; Pyro's own have none. Leave it out.")
        guide.temperature = config.temperature


class _Run:
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
        self.direct = isinstance(guide, NetworkGuide)
        if not self.direct:
            self.elbo = Trace_ELBO() if isinstance(guide, AutoLaplaceApproximation) else TraceMeanField_ELBO()

    def prepare(self, batches: Batches, start: Fit | Mapping[str, torch.Tensor] | None) -> None:
        """Move everything to the device, set the guide up, and put it where it is to start."""
        if isinstance(self.model, nn.Module):
            self.model.to(self.device)
        batch = next(iter(batches))
        if self.guide.prototype_trace is None:
            self.guide(*batch)
        self.guide.to(self.device)
        if start is not None:
            values = start.point_estimate if isinstance(start, Fit) else dict(start)
            self._start_at(values)

    def _start_at(self, values: Mapping[str, torch.Tensor]) -> None:
        if isinstance(self.guide, NetworkGuide):
            self.guide.start_at(dict(values))
        elif isinstance(self.guide, AutoLaplaceApproximation):
            flat = torch.cat(
                [values[name].reshape(-1) for name, _ in self.guide.prototype_trace.iter_stochastic_nodes()]
            )
            with torch.no_grad():
                self.guide.loc.copy_(flat)
        else:
            raise GuideError(
                f"start= is for the toolkit's guides and AutoLaplaceApproximation; {type(self.guide).__name__} starts "
                "where its init_loc_fn says: wiu_pyro.guides.init_to_network(model), or init_to_value."
            )

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

    def train(self, batches: Batches, epochs: int, validation: Any) -> tuple[list[float], dict[str, list[float]]]:
        """Train for `epochs` passes; return the loss of each, and the validation scores."""
        losses: list[float] = []
        scores: dict[str, list[float]] = {}
        if epochs == 0:
            return losses, scores
        parameters = self.parameters()
        rate = self.config.learning_rate or 1e-3
        optimiser = torch.optim.Adam(parameters, lr=rate, fused=True)
        total, full = epochs * len(batches), self.full_rate_epochs(epochs) * len(batches)
        held_out = None if validation is None else as_batches(validation, batch_size=1000, device=self.device)
        with pyro.validation_enabled(False), ProgressBar(total, type(self.guide).__name__, self.config.progress) as bar:
            step = 0
            for _ in range(epochs):
                self._mode(training=True)
                running, count = 0.0, 0
                for batch in batches:
                    for group in optimiser.param_groups:
                        group["lr"] = rate * _fraction(step, full, total)
                    value = self._step(optimiser, parameters, batch, step)
                    running, count, step = running + value, count + 1, step + 1
                    bar.advance(loss=value)
                losses.append(running / count)
                for name, score in self._validate(held_out).items():
                    scores.setdefault(name, []).append(score)
                    bar.note(**{name: score})
        return losses, scores

    def _step(self, optimiser: torch.optim.Optimizer, parameters: list[torch.Tensor], batch: Any, step: int) -> float:
        optimiser.zero_grad(set_to_none=True)
        loss = self.loss(batch)
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
                return {name: value.detach().clone() for name, value in self.guide.unpack(self.guide.loc).items()}
            if isinstance(self.guide, AutoLaplaceApproximation):
                latent = self.guide._unpack_latent(self.guide.loc.detach())
                return {site["name"]: value.clone() for site, value in latent}
            return {name: value.detach().clone() for name, value in self.guide.median().items()}

    def finish(self, data: Any) -> AutoGuide:
        """Return the guide to sample from: for a Laplace guide, the Gaussian around its point estimate."""
        self._mode(training=False)
        if isinstance(self.guide, LaplaceGuide):
            batches = as_batches(data, batch_size=self.config.curvature_batch_size, device=self.device)
            return self.guide.laplace_approximation(batches)
        if isinstance(self.guide, AutoLaplaceApproximation):
            return _pyro_laplace(self.guide, data, self.device)
        return self.guide


def _fraction(step: int, full: int, total: int) -> float:
    """Return the learning rate as a fraction of the full one: 1, then a cosine to 0."""
    if step < full:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - full) / (total - full)))


def _pyro_laplace(guide: AutoLaplaceApproximation, data: Any, device: torch.device) -> AutoGuide:
    """Run Pyro's own Laplace approximation on the whole data in one call, cost checked first."""
    needed = 3 * 4 * guide.latent_dim**2
    if needed > 4 * 2**30:
        raise CostError(
            f"Pyro's AutoLaplaceApproximation of {guide.latent_dim:,} weights needs {needed / 2**30:,.1f} GiB for the "
            "Hessian. Use wiu_pyro.guides.AutoKFACLaplace."
        )
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
