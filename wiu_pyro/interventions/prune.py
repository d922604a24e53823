"""`prune`: how many weights can go, by which criterion, before the network gets worse.

References
----------
LeCun, Denker and Solla (1990), Optimal Brain Damage.
Hassibi and Stork (1993), Second order derivatives for network pruning: Optimal Brain Surgeon.
Friston and Penny (2011), Post hoc Bayesian model selection.
Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1.
Maurer, Hothorn and Lehmacher (1995), Multiple comparisons in drug clinical trials (shares tested in order).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from wiu_pyro import metrics
from wiu_pyro.errors import DataError
from wiu_pyro.export.attributes import posterior_attrs
from wiu_pyro.export.sources import Source, read_source
from wiu_pyro.interventions.candidates import read_candidates
from wiu_pyro.interventions.config import PruneConfig, read_config
from wiu_pyro.interventions.curves import NETWORKS, PROCEDURES, Curves, removals
from wiu_pyro.interventions.judgement import Judge
from wiu_pyro.interventions.pruned_predictions import Network, gathered
from wiu_pyro.interventions.pruning_table import add_seeds, described, filled

__all__ = ["prune"]

MOMENT_DRAWS = 200  # behind means and sds of a posterior without a closed form
CARRIED = (
    "guide",
    "approximation",
    "curvature",
    "structure",
    "prior",
    "num_data",
    "temperature",
    "converged",
    "convergence_detail",
)


def prune(
    posterior: Any,
    data: Any,
    *,
    train_data: Any = None,
    model: Callable[..., Any] | None = None,
    **options: Any,
) -> xr.Dataset:
    r"""Remove weights by their posterior, more and more of them, and judge what is left.

    Weights go by their rank under a criterion, see `wiu_pyro.interventions.CRITERIA`; biases stay. Two networks are
    judged: the *mean* network, the posterior means with zeros where weights went; and with ``num_samples`` the
    *predictive* of the posterior with those weights fixed at zero, without variance (linearised at the pruned mean
    where the posterior's own predictive is linearised). Everything is paired: the same images, the same draws.

    Safe sparsity is the largest share up to which, going up the list of shares and stopping at the first failure, the
    error is shown to rise by less than the margin (0.1 percentage points by default): with five networks of different
    seeds or more by a t test over the seeds, else by a score test over the images, which a few hundred images cannot
    pass.

    Parameters
    ----------
    posterior : Fit, AutoGuide, MCMC, or sequence of these
        Several, and the members of an ensemble, are the same model trained from different seeds, one after the other
        along `chain`; each is pruned and judged alone.
    data : DataLoader, Dataset or tuple of tensors (images, labels)
        To judge on; not what was trained on.
    train_data : like `data`, optional
        For fine-tuning, and for the brain surgeon's curvature where the posterior is not Kronecker-factored.
    model : callable, optional
        For a guide or MCMC result that does not know its own.
    **options
        The fields of `wiu_pyro.interventions.PruneConfig`.

    Returns
    -------
    Dataset, dims (chain, procedure, ranking, criterion, network, sparsity), (chain, layer, criterion, sparsity), ...
        ``error`` (share of images), ``nll`` (nats), ``ece``, each with ``_difference`` from the unpruned network of the
        same kind and its ``_low`` and ``_high`` (over images, together over the shares); ``unpruned_<name>`` (chain,
        network). ``safe_sparsity`` (chain, procedure, ranking, criterion, network). The same for one layer pruned
        alone, one-shot, mean network: ``layer_<name>`` (chain, layer, criterion, sparsity), ``layer_safe_sparsity``.
        ``removed`` (chain, criterion, layer, sparsity): share of each layer that goes where all are ranked together.
        ``kept_in_common`` (chain, criterion, other, sparsity): of the weights kept, all ranked together.
        ``evidence_change`` (chain, ranking, criterion, sparsity): change in log evidence, nats, by Bayesian model
        reduction, of posteriors that factorise over weights at temperature 1; ``evidence_sparsity`` (chain): share of
        the weights that the evidence is better without. ``num_candidates`` and ``num_left_out`` (chain, layer). With
        several networks also ``seeds_<name>`` (mean over them), with five or more its ``_low`` and ``_high``
        (Student's t, together over the shares) and ``seeds_safe_sparsity``. `chain` is there with several networks
        alone. Rows of a procedure other than ``one_shot`` have no predictive: NaN. Attributes: settings, ``left_out``
        (criteria and why), and what the posterior is.

    Raises
    ------
    DataError
        If an option is wrong, the labels are none of a classification, a criterion asked for cannot be had, or of five
        fits and more a seed stands twice: as further replicates they would make the intervals too narrow.
    GuideError
        If this is no posterior, or fine-tuning or the surgeon lacks training data.
    ModelError
        If the model has no weight matrices.

    References
    ----------
    .. [1] Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1.
    .. [2] Friston and Penny (2011), Post hoc Bayesian model selection, NeuroImage 56.
    """
    config = read_config(options)
    posteriors = list(posterior) if isinstance(posterior, list | tuple) else [posterior]
    if not posteriors:
        raise DataError("At least one posterior is needed, got none. Pass what wiu_pyro.fit returned.")
    posteriors = [network for one in posteriors for network in getattr(one, "networks", (one,))]
    draws = config.num_samples or MOMENT_DRAWS
    sources = [read_source(one, model=model, data=data, num_samples=draws, seed=config.seed) for one in posteriors]
    replicates = _num_replicates(sources)
    images, labels = gathered(data, sources[0])
    networks: list[xr.Dataset] = []
    left_out: dict[str, str] = {}
    for source in sources:
        for found, missing in _networks(source, (images, labels), train_data, config):
            networks.append(found)
            left_out |= missing
    table = xr.concat(networks, dim="chain", join="outer") if len(networks) > 1 else networks[0]
    if len(networks) > 1:
        table = add_seeds(table.assign_coords(chain=np.arange(len(networks))), config, replicates=replicates)
    described(table)
    table.attrs = _attrs(sources, config) | {
        "num_networks": len(networks),
        "num_images": len(labels),
        "left_out": "; ".join(f"{name}: {reason}" for name, reason in left_out.items()),
    }
    return table


def _num_replicates(sources: Sequence[Source]) -> int:
    """Return how many trainings there are; chains of MCMC explore one posterior: they are no replicates."""
    if any(posterior_attrs(source, labels={}).get("guide") == "MCMC" for source in sources):
        return 1
    seeds = [source.fit.seed for source in sources if source.fit is not None]
    num = sum(len(source.chains) for source in sources)
    return metrics.num_replicates(seeds) if len(seeds) == num else num


def _networks(
    source: Source, data: tuple[torch.Tensor, torch.Tensor], train_data: Any, config: PruneConfig
) -> list[tuple[xr.Dataset, dict[str, str]]]:
    """Return the figures of each network of a posterior, and which criteria it does not allow."""
    labels = data[1].reshape(-1).long().cpu().numpy()
    network = Network(source, data)
    judge = Judge.of(len(labels), level=config.level, margin=config.margin, seed=config.seed)
    out = []
    for chain in source.chains:
        with torch.no_grad():
            weights = read_candidates(source, chain)
        orders, left_out = removals(source, weights, config, train_data)
        curves = Curves(source, chain, weights, orders, network, labels, judge, config, train_data)
        out.append((_table(curves, config), left_out))
    return out


def _table(curves: Curves, config: PruneConfig) -> xr.Dataset:
    weights, criteria = curves.weights, list(curves.orders)
    coords: dict[str, Sequence[Any]] = {
        "procedure": [name for name in PROCEDURES if name in curves.procedures],
        "ranking": list(config.rankings),
        "criterion": criteria,
        "other": criteria,
        "network": list(NETWORKS[: 2 if config.num_samples else 1]),
        "layer": weights.layer_names,
        "sparsity": list(config.sparsities),
    }
    table = filled(curves.everything(), coords)
    table["evidence_sparsity"] = ((), curves.evidence_sparsity())
    counts = [int(weights.of_layer(layer).sum()) for layer in weights.layer_names]
    sizes = {layer: 0 for layer in weights.layer_names}
    for site, shape in weights.shapes.items():
        if weights.layers[site] in sizes:
            sizes[weights.layers[site]] += shape.numel()
    table["num_candidates"] = ("layer", np.array(counts))
    table["num_left_out"] = ("layer", np.array(list(sizes.values())) - np.array(counts))
    return table


def _attrs(sources: Sequence[Source], config: PruneConfig) -> dict[str, Any]:
    held = posterior_attrs(sources[0], labels={})
    attrs = {name: held[name] for name in CARRIED if name in held}
    verdicts = [posterior_attrs(source, labels={}).get("converged", "not assessed") for source in sources]
    worst = next((word for word in ("no", "not assessed") if word in verdicts), "yes")
    return attrs | {
        "converged": worst,
        "seed": [-1 if source.fit is None else source.fit.seed for source in sources],
        "sd": config.sd,
        "margin": config.margin,
        "level": config.level,
        "num_samples": config.num_samples,
        "fine_tune_epochs": config.fine_tune_epochs,
        "predictive": getattr(sources[0].guide, "default_predictive", "sampled") if config.num_samples else "none",
        "factorised": int(all(chain.closed is not None and chain.closed.factorised for chain in sources[0].chains)),
        "moments": "exact" if all(chain.closed is not None for chain in sources[0].chains) else "estimated",
    }
