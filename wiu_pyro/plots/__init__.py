"""Figures of what the diagnostics computed: one plot per file, drawn with matplotlib, never shown, never saved.

Every plot takes a posterior (or the diagnostic's table) and gives back matplotlib's `Axes`, or a `Figure` where it has
several panels. `KINDS` names those that draw a single posterior, for ``wiu plot FILE KIND``.
"""

from collections.abc import Callable
from typing import Any

from wiu_pyro.plots.agreement import agreement
from wiu_pyro.plots.between_layers import between_layers
from wiu_pyro.plots.compare_layers import compare_layers
from wiu_pyro.plots.convergence import convergence
from wiu_pyro.plots.declined_images import declined_images
from wiu_pyro.plots.evolution import evolution
from wiu_pyro.plots.identification import identification
from wiu_pyro.plots.input_map import input_map
from wiu_pyro.plots.layer_effects import layer_effects
from wiu_pyro.plots.layer_uncertainty import layer_uncertainty
from wiu_pyro.plots.loss import loss
from wiu_pyro.plots.magnitude import magnitude
from wiu_pyro.plots.network import network
from wiu_pyro.plots.pruning import pruning
from wiu_pyro.plots.reliability import reliability
from wiu_pyro.plots.risk_coverage import risk_coverage
from wiu_pyro.plots.stochastic_layers import stochastic_layers
from wiu_pyro.plots.weight_heatmap import weight_heatmap
from wiu_pyro.plots.within_layer import within_layer

__all__ = [
    "KINDS",
    "agreement",
    "between_layers",
    "compare_layers",
    "convergence",
    "declined_images",
    "evolution",
    "identification",
    "input_map",
    "layer_effects",
    "layer_uncertainty",
    "loss",
    "magnitude",
    "network",
    "pruning",
    "reliability",
    "risk_coverage",
    "stochastic_layers",
    "weight_heatmap",
    "within_layer",
]

KINDS: dict[str, Callable[..., Any]] = {
    "network": network,
    "layer-uncertainty": layer_uncertainty,
    "between-layers": between_layers,
    "within-layer": within_layer,
    "weight-heatmap": weight_heatmap,
    "input-map": input_map,
    "magnitude": magnitude,
    "identification": identification,
    "evolution": evolution,
    "convergence": convergence,
    "loss": loss,
    "reliability": reliability,
    "risk-coverage": risk_coverage,
    "declined-images": declined_images,
}
