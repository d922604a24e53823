"""Is the last layer enough: what a network predicts when only some layers are uncertain, and whose the variance is.

Restricting is not refitting. *Restricted*: the posterior at hand, all layers outside a set put at their mean; the set
keeps its marginal. *Refitted*: a network that is Bayesian in that set from the start.

References
----------
Kristiadi, Hein and Hennig (2020), Being Bayesian, Even Just a Bit, Fixes Overconfidence in ReLU Networks.
Sharma et al. (2023), Do Bayesian Neural Networks Need To Be Fully Stochastic?
Owen (2014), Sobol' indices and Shapley value. Song, Nelson and Staum (2016), Shapley effects for global sensitivity
analysis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr

from wiu_pyro.errors import CostError, DataError, GuideError, a_name
from wiu_pyro.guides import AutoBlockNormal
from wiu_pyro.guides.gaussian import read_gaussian
from wiu_pyro.infer import Fit
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.interventions.cut_blocks import are_independent, is_tuned, marginal_guide, uncertain_layers
from wiu_pyro.interventions.layer_sets import LayerSet, layer_sets
from wiu_pyro.interventions.linearised_sets import linearised_predictions
from wiu_pyro.interventions.mixtures import linearised_effects, sampled_effects
from wiu_pyro.interventions.refit import Refit, refitted, why_not
from wiu_pyro.interventions.set_predictions import SetPrediction, Sets, sampled_predictions
from wiu_pyro.interventions.stochastic_config import StochasticLayersConfig, read_stochastic_config
from wiu_pyro.interventions.stochastic_table import Network, stochastic_table
from wiu_pyro.metrics import Effects
from wiu_pyro.nn import Batches, as_batches

__all__ = ["stochastic_layers"]

BATCH_SIZE = 500


def stochastic_layers(
    fit: Fit | Sequence[Fit], data: Any, *, ood: Any = None, train_data: Any = None, seed: int = 0, **options: Any
) -> xr.Dataset:
    r"""Compare the predictions of a network with only some layers uncertain, and say whose the variance is.

    The sets are each layer alone, the last k, the first k, all but one, all, and none (the point estimate), each with
    the same draws and as many of them. *Restricted* and *refitted* answer two questions, and differ: of a
    Laplace posterior of correlated layers the first is the marginal and the second the conditional distribution; where
    its layers are independent (KFAC, diagonal) and its prior is not tuned they are one, and nothing is computed twice.
    A mean-field posterior is trained anew for each set, from the same weights, with the others at a point estimate.

    The effects of the layers are shares of the variance of the class probabilities, summed over classes and images, and
    of the outputs: *first order*, what knowing a layer alone would remove; *total*, what would be left knowing all
    others; *Shapley*, which adds up to 1 and lies between them where layers are independent. Where a network is
    linearised and its layers are independent the three are one number for the outputs, known without draws.

    Parameters
    ----------
    fit : Fit, or sequence of Fit
        Several, and the members of an ensemble, are the same model trained from different seeds, one after the other
        along `chain`; each is looked at alone.
    data : DataLoader, Dataset or tuple of tensors (inputs, labels)
        To judge on; not what was trained on.
    ood : like `data`, or a tensor of inputs, optional
        Data out of distribution, for the AUROC of entropy and of mutual information.
    train_data : like `data`, optional
        For refits that are trained; without it a mean-field posterior is only restricted.
    seed : int
        Of draws and resampling.
    **options
        The fields of `StochasticLayersConfig`.

    Returns
    -------
    Dataset, dims (chain, kind, layer_set, metric), (kind, layer_set, metric), (effect, response, layer)
        ``value`` (chain, kind, layer_set, metric). Metrics of a classifier: ``nll`` (nats an image), ``brier``,
        ``error``, ``ece``, with `ood` ``auroc_entropy`` and ``auroc_mutual_information``, ``output_variance`` (the
        functional variance: of the logits relative to their mean, summed over classes) and ``probability_variance``; of
        a regression ``nll``, ``squared_error``, ``output_variance``. ``difference`` (kind, layer_set, metric) from the
        whole posterior, mean over chains, with ``difference_low`` and ``difference_high``, paired and simultaneous over
        kinds and sets of a metric; the draws are taken as given. ``variance_share`` (response, kind, layer_set) of the
        whole posterior's variance, with ``_low`` and ``_high``, which have the noise of the draws in them. ``member``
        (layer_set, layer), ``also`` (layer_set), other names of the set. ``refit_converged`` (chain, layer_set): 1 yes,
        0 no, −1 not assessed or not trained. ``effect_share`` (effect, response, layer), with ``effect_se`` (its Monte
        Carlo error, 0 in closed form), ``effect_low``, ``effect_high`` (simultaneous over the layers), and
        ``effect_by_chain``. Attributes: ``interval`` says what intervals are over:
        seeds from five networks on, else images (and, of effects, draws), which says nothing of another training;
        ``refitted_reason`` and ``effects_reason`` why there is none.

    Raises
    ------
    GuideError
        If `fit` is no Fit, an option is wrong, networks differ in their layers, or the posterior is not Gaussian and no
        set can be told apart from it.
    DataError
        If the data have no labels, or a number is out of range.
    LikelihoodError
        If the likelihood is none of categorical, Normal, Bernoulli with one output.

    See Also
    --------
    wiu_pyro.diagnostics.stochastic_layers_statement : What was found, in words.
    """
    config = read_stochastic_config(options)
    fits = list(fit) if isinstance(fit, list | tuple) else [fit]
    fits = [network for one in fits for network in getattr(one, "networks", (one,))]
    layers = _layers(fits)
    sets = layer_sets(layers, config.families)
    device = next(iter(fits[0].point_estimate.values())).device
    batches = as_batches(data, batch_size=BATCH_SIZE, device=device)
    labels = _labels(batches)
    away = None if ood is None else as_batches(ood, batch_size=BATCH_SIZE, device=device)
    how = Refit(train_data, config.refit_epochs, config.refit)
    with seeded(seed, device):
        networks = [_network(one, batches, away, _Question(sets, layers, config, how, seed)) for one in fits]
    return stochastic_table(networks, fits, labels, sets=sets, layers=layers, config=config, seed=seed)


@dataclass(frozen=True)
class _Question:
    sets: list[LayerSet]
    layers: tuple[str, ...]
    config: StochasticLayersConfig
    how: Refit
    seed: int


def _layers(fits: Sequence[Any]) -> tuple[str, ...]:
    """Return the layers with a posterior, the same in all fits."""
    found = []
    for one in fits:
        if not isinstance(one, Fit):
            raise GuideError(f"What wiu_pyro.fit returned is needed, but this is {a_name(one)}. Fit the guide with it.")
        gaussian = read_gaussian(one.guide, one.structure)
        every = tuple(layer.name for layer in one.structure.layers)
        found.append(every if gaussian is None else uncertain_layers(gaussian, one.structure))
    if not found or len(set(found)) > 1:
        raise GuideError(
            f"Fits of one network are needed, whose posteriors are over the same layers, got {len(fits)} over "
            f"{'; '.join(', '.join(names) for names in dict.fromkeys(found)) or 'none'}. Compare them one by one."
        )
    return found[0]


def _labels(batches: Batches) -> np.ndarray:
    parts = [batch[1] for batch in batches if len(batch) > 1]
    if not parts:
        raise DataError(
            "Labelled data are needed to judge predictions, but these have no labels. Pass (inputs, labels)."
        )
    return torch.cat(parts).cpu().numpy()


def _network(one: Fit, batches: Batches, away: Batches | None, question: _Question) -> Network:
    config = question.config
    kind = config.predictive or getattr(one.guide, "default_predictive", "sampled")
    if kind == "linearised" and not isinstance(one.guide, AutoBlockNormal):
        raise GuideError(
            f"A linearised predictive needs the guide of a Laplace approximation, but this is a "
            f'{type(one.guide).__name__}. Use predictive="sampled".'
        )
    named = {found.name: found.layers for found in question.sets}
    found = _Predictor(kind, batches, away, config.num_samples, question.seed)
    whole = found(one, named)
    network = Network(kind, {}, {})
    network.keep("restricted", whole, list(named))
    if "refitted" in config.kinds:
        network.reason = why_not(one, question.how)
        if not network.reason:
            network.keep("refitted", whole, ["none", "all"])
            _add_refits(network, one, whole, named, found, question.how)
    if "restricted" not in config.kinds:
        network.leave("restricted", keep=("none", "all"))
    if config.effect_draws:
        _add_effects(network, one, batches, question)
    return network


Predictions = tuple[dict[str, SetPrediction], dict[str, SetPrediction]]  # of the data, of those out of distribution


@dataclass(frozen=True)
class _Predictor:
    kind: str
    batches: Batches
    away: Batches | None
    num_samples: int
    seed: int

    def __call__(self, one: Fit, sets: Sets) -> Predictions:
        options: dict[str, Any] = {"num_samples": self.num_samples, "seed": self.seed}
        predict: Any = sampled_predictions
        if self.kind == "linearised":
            predict, options["cut"] = linearised_predictions, cache(marginal_guide)  # both data go by the same guides
        ood = {} if self.away is None else predict(one, self.away, sets, **options)
        return predict(one, self.batches, sets, **options), ood


def _add_refits(network: Network, one: Fit, whole: Predictions, sets: Sets, predictor: _Predictor, how: Refit) -> None:
    guide = one.guide
    by_curvature = how.make is None and isinstance(guide, AutoBlockNormal)
    same = by_curvature and not is_tuned(guide) and are_independent(read_gaussian(guide, one.structure))
    proper = [name for name in sets if name not in ("none", "all")]
    if same:
        network.keep("refitted", whole, proper)
        return
    for name in proper:
        again = refitted(one, sets[name], how)
        network.keep("refitted", predictor(again, {name: sets[name]}), [name])
        if not by_curvature:
            network.converged[name] = {True: 1, False: 0}.get(again.convergence.converged, -1)


def _add_effects(network: Network, one: Fit, batches: Batches, question: _Question) -> None:
    config = question.config
    if read_gaussian(one.guide, one.structure) is None:
        network.effects_reason = (
            f"whether the layers of a {type(one.guide).__name__} are independent is not known, and its layers cannot "
            "be drawn given the others"
        )
        return
    images = _first_images(batches, config.effect_images)
    options: dict[str, Any] = {
        "num_draws": config.effect_draws,
        "most_exact": config.most_exact,
        "seed": question.seed + 1,
    }
    try:
        if network.predictive == "linearised":
            response, output = linearised_effects(one, images, question.layers, **options)
            found: dict[str, list[Effects]] = {"probability": response, "output": [output]}
        else:
            pairs = list(sampled_effects(one, images, question.layers, **options))
            found = {"probability": [pair[0] for pair in pairs], "output": [pair[1] for pair in pairs]}
    except CostError as error:
        network.effects_reason = str(error)
        return
    if one.structure.likelihood == "normal":
        del found["probability"]
    network.effects = found


def _first_images(batches: Batches, num: int) -> Batches:
    kept: list[tuple[torch.Tensor, ...]] = []
    for batch in batches:
        kept.append(batch)
        if sum(len(part[0]) for part in kept) >= num:
            break
    whole = tuple(torch.cat(columns)[:num] for columns in zip(*kept, strict=True))
    return as_batches(whole, batch_size=BATCH_SIZE)
