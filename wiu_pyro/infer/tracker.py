"""The recorder of a training: layer figures every so many steps or epochs, without a trace in the training itself.

A record draws no random number of the training's, leaves the model's mode, its running statistics and the optimiser as
they are, and never iterates over the data: what a curvature needs is kept of the batches that training goes through.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation

from wiu_pyro import metrics
from wiu_pyro.errors import GuideError
from wiu_pyro.guides.closed_form import ClosedForm, closed_form
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.laplace_layers import AutoLaplace
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.point_estimate import AutoPointEstimate
from wiu_pyro.guides.prior_scales import scaled_structure
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.infer.track import FIGURES, Track, TrackConfig
from wiu_pyro.nn import Layer, ModelStructure, evaluation_mode, prior_moments

if TYPE_CHECKING:
    from wiu_pyro.infer.run import Run

__all__ = ["Tracker"]

Batch = tuple[torch.Tensor, ...]
STRUCTURE = "diagonal"  # around a point estimate
SEED = 0  # of what a record draws, which training does not see


class Tracker:
    """Keeps layer figures of a guide while it is trained.

    Parameters
    ----------
    run : Run
        Whose guide is set up; what it is asked for stands in its ``config.track``.
    steps_per_epoch : int
    full_rate_epochs : int
        Epochs before the learning rate begins to fall.
    """

    def __init__(self, run: Run, steps_per_epoch: int, full_rate_epochs: int) -> None:
        guide, config = run.guide, run.config.track
        self.guide, self.config, self.structure, self.device = guide, config, run.structure, run.device
        self.centre = run.centre
        self.every = config.every * (steps_per_epoch if config.unit == "epochs" else 1)
        self.steps_per_epoch, self.full_rate_epochs = steps_per_epoch, full_rate_epochs
        self.around_point = _around_point(guide, config) if _is_point(guide) else None
        self._kept: list[Batch] = []
        self._num_kept = self._step = 0
        self._losses: list[float] = []
        self._rows: list[dict[str, Any]] = []
        self._before: dict[str, np.ndarray] = {}
        self._factorised = True

    def stepped(self, batch: Batch, loss: float) -> None:
        """Note a step that was done, and keep the layers' figures if it is time."""
        if self._step == 0:
            self._try(batch)
        if self.around_point is not None and self._num_kept < self.config.num_data:
            rest = self.config.num_data - self._num_kept
            self._kept.append(tuple(part[:rest].detach().clone() for part in batch))
            self._num_kept += len(self._kept[-1][0])
        self._step += 1
        self._losses.append(loss)
        if self._step % self.every == 0:
            self._record()

    def result(self) -> Track:
        """Return what was kept."""
        layers = tuple(layer.name for layer in self.structure.layers)
        shape = (len(self._rows), len(layers))
        figures = {
            name: np.array([[row["figures"][layer][name] for layer in layers] for row in self._rows]).reshape(shape)
            for name in FIGURES
        }
        if self._factorised:
            figures.pop("conditional_contraction")
        steps = np.array([row["step"] for row in self._rows], dtype=np.int64)
        return Track(
            layers=layers,
            figures=figures,
            step=steps,
            epoch=steps / self.steps_per_epoch,
            loss=np.array([row["loss"] for row in self._rows]),
            num_data=np.array([row["num_data"] for row in self._rows], dtype=np.int64),
            full_rate_epochs=float(self.full_rate_epochs),
            every=self.config.every,
            unit=self.config.unit,
            structure=STRUCTURE if self.around_point is not None else getattr(self.guide, "structure_name", ""),
            curvature=self.config.curvature if self.around_point is not None else "none",
            factorised=self._factorised,
        )

    def state(self) -> dict[str, Any]:
        """Return what a training needs to go on later."""
        return {
            "kept": self._kept,
            "step": self._step,
            "losses": self._losses,
            "rows": [row | {"figures": _plain(row["figures"])} for row in self._rows],
            "before": {name: torch.from_numpy(values) for name, values in self._before.items()},
            "factorised": self._factorised,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""
        self._kept = [tuple(part.to(self.device) for part in batch) for batch in state["kept"]]
        self._num_kept = sum(len(batch[0]) for batch in self._kept)
        self._step, self._losses, self._rows = state["step"], state["losses"], state["rows"]
        self._before = {name: values.cpu().numpy() for name, values in state["before"].items()}
        self._factorised = state["factorised"]

    def _try(self, batch: Batch) -> None:
        """Read the posterior once, from one batch, so that what cannot be tracked is said at the start."""
        with seeded(SEED, self.device):
            self._read((batch,))

    def _record(self) -> None:
        with seeded(SEED, self.device):
            form, structure = self._read(self._kept)
        priors, figures = prior_moments(structure), {}
        for layer in structure.layers:
            figures[layer.name] = self._figures(layer, form, priors)
        self._factorised &= form.factorised
        row = {"step": self._step, "loss": float(np.mean(self._losses)), "num_data": self._num_kept, "figures": figures}
        self._rows.append(row)
        self._losses.clear()

    def _read(self, data: Any) -> tuple[ClosedForm, ModelStructure]:
        """Return the moments of the posterior at this moment, and the structure that has its priors."""
        guide, structure = self.guide, self.structure
        if self.around_point is not None:
            guide = self._approximated(tuple(torch.cat(parts) for parts in zip(*data, strict=True)))
            structure = guide.structure
        elif getattr(guide, "has_own_prior", False):
            structure = guide.structure
        elif isinstance(guide, NetworkGuide) and guide.prior_scales:
            structure = scaled_structure(structure, guide.prior_scales)
        form = closed_form(guide, structure)
        if form is None:
            raise GuideError(
                "track= keeps figures of a posterior with closed-form moments, or of a point estimate that a Laplace "
                f"guide trains, but {type(guide).__name__} is neither. Leave track out."
            )
        return form, structure

    def _approximated(self, data: Batch) -> Any:
        """Return the diagonal Gaussian around the weights as they are now."""
        own = self.around_point
        with evaluation_mode(own.model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the curvature's coverage: the fit says it of its own
            if own.prototype_trace is None:
                own.setup(data)
                own.to(self.device)
            if isinstance(self.guide, NetworkGuide):
                own.set_prior_scales(self.guide.prior_scales)
            own.start_at(self.centre())
            return own.laplace_approximation(data)

    def _figures(self, layer: Layer, form: ClosedForm, priors: dict[str, Any]) -> dict[str, float]:
        """Return the figures of one layer by the names of `FIGURES`."""
        sites = list(layer.sites.values())
        mean, sd = (_pooled([part[site] for site in sites]) for part in (form.mean, form.sd))
        given = form.sd_conditional
        conditional = None if given is None else _pooled([given[site] for site in sites])
        prior_mean, prior_sd = (_pooled([priors[site][place] for site in sites]) for place in (0, 1))
        found = metrics.layer_figures(mean, sd, prior_sd=prior_sd, sd_conditional=conditional)
        known, kl = sd > 0, form.layer_kl[layer.name]
        found["mean_to_prior"] = _rms(((mean - prior_mean) / prior_sd)[known])
        before = self._before.get(layer.name)
        found["mean_change"] = np.nan if before is None else _rms(((mean - before) / prior_sd)[known])
        self._before[layer.name] = mean
        found["kl"], found["kl_per_weight"] = kl, kl / known.sum() if known.any() else np.nan
        return {name: found[name] for name in FIGURES}


def _plain(figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {layer: {name: float(value) for name, value in row.items()} for layer, row in figures.items()}


def _is_point(guide: AutoGuide) -> bool:
    return isinstance(guide, LaplaceGuide | AutoLaplaceApproximation | AutoPointEstimate)


def _around_point(guide: Any, config: TrackConfig) -> AutoLaplace:
    """Return the guide whose cheap passes say what the point estimate's posterior is like."""
    structure: Any = STRUCTURE
    if isinstance(guide, LaplaceGuide):
        structure = dict.fromkeys(guide.covered_layers(), STRUCTURE)
    options = {"curvature": config.curvature, "zero_curvature": "prior"}
    return AutoLaplace(guide.model, structure=structure, temperature=getattr(guide, "temperature", 1.0), **options)


def _pooled(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([part.detach().reshape(-1) for part in parts]).double().cpu().numpy()


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else np.nan
