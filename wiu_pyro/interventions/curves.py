"""One network pruned by every criterion, to every share: its figures along the curves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from wiu_pyro.errors import DataError, WiuError
from wiu_pyro.export.sources import Chain, Source
from wiu_pyro.interventions.candidates import Candidates
from wiu_pyro.interventions.config import PruneConfig
from wiu_pyro.interventions.criteria import CRITERIA, Evidence, reduction
from wiu_pyro.interventions.fine_tune import fine_tuned
from wiu_pyro.interventions.judgement import Judge, Judged, safe_sparsity
from wiu_pyro.interventions.pruned_predictions import Network, masked
from wiu_pyro.interventions.ranking import Removal
from wiu_pyro.interventions.surgeon import compensated, surgeon_variance

__all__ = ["PROCEDURES", "Curves", "removals"]

PROCEDURES = ("one_shot", "compensated", "fine_tuned")
NETWORKS = ("mean", "predictive")


def removals(
    source: Source, weights: Candidates, config: PruneConfig, train_data: Any
) -> tuple[dict[str, Removal], dict[str, str]]:
    """Return the order of removal by each criterion, and why some criteria have none.

    Parameters
    ----------
    source : Source
    weights : Candidates
    config : PruneConfig
    train_data : DataLoader, Dataset or tuple of tensors, or None

    Returns
    -------
    orders : dict of str to Removal
    left_out : dict of str to str
        Reason by criterion.

    Raises
    ------
    WiuError
        If a criterion was asked for by name and the posterior does not allow it.
    """
    found, left_out = {}, {}
    for place, (name, criterion) in enumerate(CRITERIA.items()):
        if config.criteria is not None and name not in config.criteria:
            continue
        generator = torch.Generator().manual_seed(config.seed * 1009 + place)
        try:
            _refuse(weights, criterion.needs, config)
            variance = surgeon_variance(source, weights, train_data, seed=config.seed) if name == SURGEON else None
            spread = weights.sd if config.sd == "marginal" or weights.sd_conditional is None else weights.sd_conditional
            score = criterion.score(Evidence(weights, spread, generator, variance))
        except WiuError as error:
            if config.criteria is not None:
                raise
            left_out[name] = str(error)
            continue
        found[name] = Removal.by(weights, score, generator)
    return found, left_out


SURGEON = "brain_surgeon"


def _refuse(weights: Candidates, needs: Iterable[str], config: PruneConfig) -> None:
    if "sd" in needs:
        if not (weights.sd > 0).any():
            raise DataError(
                "This criterion needs an uncertainty of the weights, but the posterior is a point estimate. Rank by "
                "magnitude, or fit another posterior."
            )
        if config.sd == "conditional" and weights.sd_conditional is None:
            raise DataError(
                'This criterion needs the conditional sd, but the posterior is known by draws alone. Use sd="marginal".'
            )
    if "prior" in needs and not weights.fixed_priors:
        raise DataError(
            "This criterion needs priors that depend on nothing else, but those of the weights depend on another site "
            "or are learned. Rank by signal-to-noise, which needs none."
        )
    if "prior" in needs and weights.improper:
        raise DataError(
            f"This criterion needs a prior with an integral, but that of '{weights.improper[0]}' is improper. Rank by "
            "signal-to-noise, which needs none."
        )


@dataclass
class Curves:
    """One network, pruned.

    Attributes
    ----------
    source, chain, weights : Source, Chain, Candidates
    orders : dict of str to Removal
        By criterion.
    network : Network
    labels : ndarray, shape (N,)
    judge : Judge
    config : PruneConfig
    train_data : DataLoader, Dataset or tuple of tensors, or None
    """

    source: Source
    chain: Chain
    weights: Candidates
    orders: dict[str, Removal]
    network: Network
    labels: np.ndarray
    judge: Judge
    config: PruneConfig
    train_data: Any = None
    _seen: dict[bytes, Judged] = field(default_factory=dict, repr=False)

    def everything(self) -> dict[str, dict[tuple[str, ...], dict[str, Any]]]:
        """Return all figures: by name of the part, then by place along its dims, then by variable.

        Returns
        -------
        dict
            ``"whole"`` by (procedure, ranking, criterion, network), ``"layer"`` by (layer, criterion), ``"unpruned"``
            by (network,), ``"order"`` by (ranking, criterion), ``"removed"`` by (criterion, layer), ``"common"`` by
            (criterion, other).
        """
        base = {"mean": self._mean(torch.ones_like(self.weights.chosen))}
        whole, masks = {}, {}
        for ranking in self.config.rankings:
            for name, order in self.orders.items():
                masks[ranking, name] = [order.keep(share, ranking=ranking) for share in self.config.sparsities]
                for procedure in self.procedures:
                    found = [self._pruned(procedure, mask) for mask in masks[ranking, name]]
                    whole[procedure, ranking, name, "mean"] = self._curve(found, base["mean"])
        if self.config.num_samples:
            base["predictive"], predicted = self._predictive(masks)
            for (ranking, name), found in predicted.items():
                whole["one_shot", ranking, name, "predictive"] = self._curve(found, base["predictive"])
        return {
            "whole": whole,
            "layer": self._layers(base["mean"]) if self.config.per_layer else {},
            "unpruned": {
                (name,): {f"unpruned_{key}": v for key, v in one.figures.items()} for name, one in base.items()
            },
            "order": {key: {"evidence_change": self._evidence(found)} for key, found in masks.items()},
            "removed": self._removed(masks),
            "common": self._common(masks),
        }

    def evidence_sparsity(self) -> float:
        """Return the share of the weights whose removal by itself raises the evidence; NaN where it is not known."""
        change = self._reduction()
        return float("nan") if change is None else float((change[self.weights.chosen] > 0).double().mean())

    @property
    def procedures(self) -> list[str]:
        """The ways of pruning that were asked for."""
        asked = {"compensated": self.config.compensate, "fine_tuned": self.config.fine_tune_epochs > 0}
        return [name for name in PROCEDURES if asked.get(name, True)]

    def _curve(self, found: list[Judged], base: Judged) -> dict[str, Any]:
        safe = safe_sparsity(self.judge.no_worse(found, base), self.config.sparsities)
        return {**self.judge.curve(found, base), "safe_sparsity": safe}

    def _mean(self, keep: torch.Tensor) -> Judged:
        """Judge the mean network under a mask; once for criteria that keep the same weights."""
        key = np.packbits(keep.numpy()).tobytes()
        if key not in self._seen:
            probabilities = self.network.probabilities(masked(self.weights.centre, self.weights, keep))
            self._seen[key] = Judged.of(probabilities, self.labels)
        return self._seen[key]

    def _pruned(self, procedure: str, keep: torch.Tensor) -> Judged:
        if procedure == "one_shot":
            return self._mean(keep)
        if procedure == "compensated":
            moved = compensated(self.source, self.weights, keep)
        else:
            config = self.config
            moved = fine_tuned(
                self.source,
                self.weights,
                keep,
                train_data=self.train_data,
                epochs=config.fine_tune_epochs,
                learning_rate=config.learning_rate,
                seed=config.seed,
            )
        return Judged.of(self.network.probabilities(moved), self.labels)

    def _predictive(
        self, masks: dict[tuple[str, str], list[torch.Tensor]]
    ) -> tuple[Judged, dict[tuple[str, str], list[Judged]]]:
        """Judge the posterior's predictive unpruned and under all masks, on the same draws."""
        guide = self.source.guide
        linearised = getattr(guide, "default_predictive", "sampled") == "linearised"
        listed = [torch.ones_like(self.weights.chosen), *(mask for found in masks.values() for mask in found)]
        once = {np.packbits(mask.numpy()).tobytes(): mask for mask in listed}
        found = self.network.predictive(self.chain, self.weights, list(once.values()), linearised=linearised)
        judged = {key: Judged.of(each, self.labels) for key, each in zip(once, found, strict=True)}
        first, *rest = (judged[np.packbits(mask.numpy()).tobytes()] for mask in listed)
        ordered = iter(rest)
        return first, {key: [next(ordered) for _ in found] for key, found in masks.items()}

    def _layers(self, base: Judged) -> dict[tuple[str, ...], dict[str, Any]]:
        out = {}
        for layer in self.weights.layer_names:
            for name, order in self.orders.items():
                found = [self._mean(order.keep(share, layer=layer)) for share in self.config.sparsities]
                out[layer, name] = {f"layer_{key}": value for key, value in self._curve(found, base).items()}
        return out

    def _reduction(self) -> torch.Tensor | None:
        """Return the change in log evidence with each weight; None where the changes do not add up."""
        cold = float(getattr(self.source.guide, "temperature", 1.0)) != 1.0
        weights = self.weights
        known = weights.fixed_priors and not weights.improper
        if not weights.factorised or not known or cold or not (weights.sd[weights.chosen] > 0).all():
            return None
        return reduction(Evidence(weights, weights.sd, torch.Generator()))

    def _evidence(self, masks: list[torch.Tensor]) -> np.ndarray:
        change = self._reduction()
        if change is None:
            return np.full(len(masks), np.nan)
        return np.array([float(change[~mask].sum()) for mask in masks])

    def _removed(self, masks: dict[tuple[str, str], list[torch.Tensor]]) -> dict[tuple[str, ...], dict[str, Any]]:
        out = {}
        for (ranking, name), found in masks.items():
            for layer in self.weights.layer_names if ranking == "global" else ():
                inside = self.weights.of_layer(layer)
                out[name, layer] = {"removed": np.array([float((~mask[inside]).double().mean()) for mask in found])}
        return out

    def _common(self, masks: dict[tuple[str, str], list[torch.Tensor]]) -> dict[tuple[str, ...], dict[str, Any]]:
        """Return the share of the weights kept that two criteria have in common, all weights ranked together."""
        out, chosen = {}, self.weights.chosen
        for (ranking, one), first in masks.items():
            for (other_ranking, other), second in masks.items():
                if ranking == other_ranking == "global":
                    both = [
                        float((a & b & chosen).sum() / (a & chosen).sum().clamp(min=1)) for a, b in zip(first, second)
                    ]
                    out[one, other] = {"kept_in_common": np.array(both)}
        return out
