"""`to_inference_data` and `export_posterior`: any posterior over the weights of a network, in memory or on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.export import predictions
from wiu_pyro.export.container import build
from wiu_pyro.export.draws import SiteMoments
from wiu_pyro.export.ensemble import all_points, joined_groups, mixture_groups, with_unknown_sds, without_posterior
from wiu_pyro.export.files import storable
from wiu_pyro.export.sources import Source, read_source
from wiu_pyro.export.stores import read_groups, writing
from wiu_pyro.export.training import training_group
from wiu_pyro.export.weight_groups import WeightGroups
from wiu_pyro.infer import Fit
from wiu_pyro.infer.checks import check_new_data
from wiu_pyro.infer.link import LINKS
from wiu_pyro.schema import dataset, groups, validate

__all__ = ["ExportConfig", "export_posterior", "to_inference_data"]

PREDICTIVES = ("auto", "linearised", "sampled", "both")
SPLITS = ("test", "train")


@dataclass(frozen=True)
class ExportConfig:
    """What an export holds beyond the draws, and the names it gives.

    Attributes
    ----------
    max_weights_per_layer : int or None
        A weight or bias with more entries is exported as a random subset of this many, the same in every run; None
        exports all. Moments are always those of all weights.
    predictive : {"auto", "linearised", "sampled", "both"} or None
        Which predictives of `data` are computed: ``"auto"`` is linearised for Laplace posteriors, sampled for others.
    link : {"mc", "probit", "bridge", "bridge_norm"}
        How a linearised predictive comes to class probabilities, as `wiu_pyro.infer.predict` takes it.
    split : {"test", "train"}
        What `data` are.
    model : callable, optional
        The Pyro model, for a guide or MCMC result that does not hold it.
    train_data : DataLoader, Dataset or tuple of tensors, optional
        Training data; one batch of it shows the layers of a guide or MCMC result exported without `data`.
    class_names : sequence of str
    model_name, data_name, input_scaling : str
        Written into the file.
    subset_seed : int
        Chooses the subset of weights, independently of the fit.
    """

    max_weights_per_layer: int | None = 2_000
    predictive: str | None = "auto"
    link: str = "mc"
    split: str = "test"
    model: Callable[..., Any] | None = None
    train_data: Any = None
    class_names: Sequence[str] = ()
    model_name: str = ""
    data_name: str = ""
    input_scaling: str = ""
    subset_seed: int = 0

    def __post_init__(self) -> None:
        if self.predictive is not None and self.predictive not in PREDICTIVES:
            raise GuideError(f"Unknown predictive '{self.predictive}'. {near_matches(self.predictive, PREDICTIVES)}")
        if self.link not in LINKS:
            raise GuideError(f"Unknown link '{self.link}'. {near_matches(self.link, LINKS)}")
        if self.split not in SPLITS:
            raise GuideError(f"Unknown split '{self.split}'. {near_matches(self.split, SPLITS)}")
        if self.max_weights_per_layer is not None and self.max_weights_per_layer < 1:
            raise GuideError(
                f"max_weights_per_layer must be at least 1, but is {self.max_weights_per_layer}. Pass None for all."
            )


def to_inference_data(fit: Any, data: Any = None, *, num_samples: int = 200, seed: int = 0, **options: Any) -> Any:
    """Turn a posterior into an InferenceData with one group per layer.

    Draws are gone through one at a time: memory holds the exported subset, never all draws of all weights. Moments and
    KL are exact where the posterior has a closed form; else they come by draws and are marked ``"estimated"``.

    Parameters
    ----------
    fit : Fit, AutoGuide, MCMC or SampledPosterior
        What `wiu_pyro.fit` returned; a guide of the toolkit's or of Pyro's, trained with Pyro's `SVI`; a
        `pyro.infer.MCMC` result, whose chains become chains; or draws from elsewhere.
    data : DataLoader, Dataset, or tuple of tensors (inputs, labels), optional
        Data to predict; none are predicted without it.
    num_samples : int
        Draws; an MCMC result brings its own, all of which are kept.
    seed : int
        Seed of the draws, not of the fit.
    **options
        The fields of `ExportConfig`: ``max_weights_per_layer``, ``predictive``, ``link``, ``split``, ``model``,
        ``train_data``, ``class_names``, ``model_name``, ``data_name``, ``input_scaling``, ``subset_seed``.

    Returns
    -------
    InferenceData or DataTree
        The container of the installed ArviZ line. `az.summary` shows one row per layer; one fit is one chain of
        independent draws, so its r_hat is NaN (``az.summary(idata, kind="stats")`` leaves it out).

    Raises
    ------
    GuideError
        If `fit` is no posterior or not trained, an option is unknown, or there are fewer than 2 draws.
    DataError
        If the data hold NaN or infinity, or labels the network has no output for.
    ModelError
        If the model or a batch to look at it with is missing, or the network cannot take the inputs.
    PriorError
        If a prior has no finite mean and sd, or one that depends on another site.

    Examples
    --------
    >>> import torch
    >>> import wiu_pyro as wiu
    >>> model = wiu.nn.BayesianNetwork(torch.nn.Sequential(torch.nn.Linear(4, 3)), num_data=8)
    >>> x, y = torch.ones(8, 4), torch.zeros(8).long()
    >>> fit = wiu.fit(model, wiu.guides.AutoKFACLaplace(model), (x, y), epochs=0)
    >>> idata = to_inference_data(fit, (x, y), num_samples=10)
    >>> wiu.schema.layer_names(idata)
    ['0']
    """
    config = _config(options)
    if isinstance(fit, Fit) and fit.members:
        return _ensemble(fit, data, config, num_samples=num_samples, seed=seed)
    look = data if config.train_data is None else config.train_data
    source = read_source(fit, model=config.model, data=look, num_samples=num_samples, seed=seed)
    return _validated(dict(_groups(source, fit, data, config)))


def export_posterior(
    fit: Any, path: str | os.PathLike[str], data: Any = None, *, num_samples: int = 200, seed: int = 0, **options: Any
) -> Path:
    """Write a posterior to disk, layer by layer: what `save` writes of `to_inference_data`, in less memory.

    Memory holds the posterior's moments, the groups of one layer, and draws of one block or of one network; draws that
    are kept lie on the disk where they would take more than 256 MB, as all draws of all weights do
    (``max_weights_per_layer=None``).

    Parameters
    ----------
    fit : Fit, AutoGuide, MCMC or SampledPosterior
        As `to_inference_data` takes it. The members of an ensemble are held in memory.
    path : path-like
        The file, for example ``"kfac.nc"``; one that ends in ``.zarr`` becomes a zarr folder. What is there is
        replaced once all is written.
    data : DataLoader, Dataset, or tuple of tensors (inputs, labels), optional
        Data to predict; none are predicted without it.
    num_samples, seed : int
        Number of draws, and their seed.
    **options
        The fields of `ExportConfig`.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    GuideError, DataError, ModelError, PriorError
        As `to_inference_data`.
    OutputError
        If the folder is missing or cannot be written to, the disk is full, or zarr is asked for and not installed.

    See Also
    --------
    load : Read it again; ``lazy=True`` leaves it on the disk.

    Examples
    --------
    ``wiu.export_posterior(fit, "vgg.zarr", num_samples=200)``
    """
    config, target = _config(options), Path(path)
    with writing(target, check=_check_written) as store:
        if isinstance(fit, Fit) and fit.members:
            idata = _ensemble(fit, data, config, num_samples=num_samples, seed=seed)
            found: Iterable[tuple[str, xr.Dataset]] = ((name, dataset(idata, name)) for name in groups(idata))
        else:
            look = data if config.train_data is None else config.train_data
            source = read_source(fit, model=config.model, data=look, num_samples=num_samples, seed=seed)
            found = _groups(source, fit, data, config, scratch=target.parent)
        for name, content in found:
            if len(content.variables):
                store.write(name, storable(content))
    return target


def _check_written(path: Path) -> None:
    validate(build(read_groups(path, lazy=True)))


def _groups(
    source: Source, fit: Any, data: Any, config: ExportConfig, *, scratch: Path | None = None
) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the groups of a file, those of the layers one after the other."""
    weights = WeightGroups.of(
        source,
        labels={name: getattr(config, name) for name in ("model_name", "data_name", "input_scaling")},
        max_weights=config.max_weights_per_layer,
        subset_seed=config.subset_seed,
        scratch=scratch,
    )
    head = weights.head()
    if isinstance(fit, Fit) and len(fit.losses):
        head["training"] = _training(source, fit)
    if data is not None:
        centres = _centres(source, weights.moments, head["posterior"])
        observed = predictions.observations(data)
        check_new_data(source.model, source.structure, centres[0], parts=observed.parts)
        head |= _data_groups(source, observed, centres, config=config)
        head["sample_stats"] = predictions.with_log_joint(source.structure.num_data, head)
    points = all_points(head["layers"])
    for name, content in chain(head.items(), weights.by_layer()):
        yield name, with_unknown_sds(name, content) if points else content


def _validated(groups: dict[str, xr.Dataset]) -> Any:
    idata = build(groups)
    validate(idata)
    return idata


def _ensemble(fit: Fit, data: Any, config: ExportConfig, *, num_samples: int, seed: int) -> Any:
    """Return the file of an ensemble: each member exported alone, along `chain`, and the predictions of all."""
    export = partial(to_inference_data, **{**vars(config), "predictive": None})
    groups = joined_groups(fit, export, num_samples=num_samples, seed=seed)
    if data is not None:
        observed = predictions.observations(data)
        check_new_data(fit.model, fit.structure, fit.point_estimate, parts=observed.parts)
        groups |= predictions.observed_groups(observed, config)
        groups |= mixture_groups(fit, observed, config, num_samples=num_samples, seed=seed)
        groups["sample_stats"] = predictions.with_log_joint(fit.structure.num_data, groups)
    return _validated(without_posterior(groups))


def _config(options: dict[str, Any]) -> ExportConfig:
    known = [item.name for item in fields(ExportConfig)]
    for name in options:
        if name not in known:
            raise GuideError(f"to_inference_data has no option '{name}'. {near_matches(name, known)}")
    return ExportConfig(**options)


def _training(source: Source, fit: Fit) -> xr.Dataset:
    closed = source.chains[0].closed
    kinds = {} if closed is None else closed.layer_structure
    points = [name for name, kind in kinds.items() if kind == "point"]
    if kinds and len(points) == len(kinds):
        fit = replace(fit, track=None)
    return training_group(fit, point_layers=points)


def _centres(
    source: Source, moments: list[dict[str, SiteMoments]], posterior: xr.Dataset
) -> list[dict[str, torch.Tensor]]:
    """Return the mean of each chain as values of all sites, in the model's own dtype."""
    found = []
    for number, own in enumerate(moments):
        centre = {site: part.mean.to(source.structure.priors[site].mean.dtype) for site, part in own.items()}
        for site in source.structure.other_sites:
            value = float(posterior[site].isel(chain=number).mean())
            centre[site] = torch.tensor(value, device=next(iter(centre.values())).device)
        found.append(centre)
    return found


def _data_groups(
    source: Source,
    observed: predictions.Observations,
    centres: list[dict[str, torch.Tensor]],
    *,
    config: ExportConfig,
) -> dict[str, xr.Dataset]:
    groups: dict[str, xr.Dataset | None] = dict(predictions.observed_groups(observed, config))
    default = getattr(source.guide, "default_predictive", "sampled")
    kinds = predictions.predictive_kinds(config.predictive, default)
    for kind in kinds:
        # of both, only the linearised one has a link
        link = "mc" if config.predictive == "both" and kind == "sampled" else config.link
        found = predictions.predict_chains(source, observed, kind, centres=centres, link=link)
        groups[f"predictive_{kind}"] = predictions.predictive_group(found)
        if kind == default or len(kinds) == 1:
            groups["log_likelihood"] = predictions.log_likelihood_group(found)
    return {name: group for name, group in groups.items() if group is not None}
