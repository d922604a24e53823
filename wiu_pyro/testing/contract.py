"""What every posterior of the toolkit keeps, as one check: `check_guide`."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation
from pyro.optim import Adam
from torch import nn

from wiu_pyro import export, schema
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import closed_form
from wiu_pyro.infer import Fit, draw_weights, fit
from wiu_pyro.testing.toys import Data, small_classifier

__all__ = ["check_guide"]


def check_guide(
    guide_class: Callable[..., AutoGuide],
    *,
    model: Callable[..., Any] | None = None,
    data: Data | None = None,
    epochs: int = 2,
    **options: Any,
) -> Fit:
    """Hold a guide to the contract: what every part of the toolkit, and Pyro, may ask of it.

    It is fitted by `wiu_pyro.fit`, twice to the same result, and by Pyro's `SVI` (unless ``trained_by = "fit"``);
    sampled one draw at a time and through `Predictive`, vectorised and not; its closed form, where it has one, must
    agree with its draws; it is exported, and the file read back and validated.

    Parameters
    ----------
    guide_class : callable
        Makes a guide from a model: the class, or a function around it.
    model : callable, optional
        A Pyro model; that of `small_classifier` when None, with dropout where the guide says ``needs_dropout``.
    data : tuple of Tensor, optional
        Inputs and labels; those of `small_classifier` when None.
    epochs : int
    **options
        Passed to `guide_class`.

    Returns
    -------
    Fit
        For further checks of your own.

    Raises
    ------
    GuideError
        If the guide breaks the contract; says which part.

    Examples
    --------
    >>> from wiu_pyro.guides import AutoMeanField
    >>> fit = check_guide(AutoMeanField)
    """
    if model is None or data is None:
        model, data = small_classifier(dropout=0.25 if getattr(guide_class, "needs_dropout", False) else 0.0)

    def make() -> AutoGuide:
        guide = guide_class(copy.deepcopy(model), **options)
        _require(isinstance(guide, AutoGuide), "is not a Pyro AutoGuide: subclass one of pyro.infer.autoguide")
        return guide

    fits = []
    for guide in (make(), make()):
        fits.append(fit(guide.model, guide, data, epochs=epochs, seed=1))
    _check_fits(*fits, epochs=epochs)
    _check_draws(fits[0])
    _check_predictive(fits[0], data)
    _check_closed_form(fits[0])
    _check_svi(make(), data)
    _check_export(fits[0], data)
    return fits[0]


def _require(condition: bool, broken: str) -> None:
    if not condition:
        raise GuideError(f"The guide breaks the contract: it {broken}.")


def _check_fits(first: Fit, second: Fit, *, epochs: int) -> None:
    _require(first.losses.shape == (epochs,), f"has losses of shape {first.losses.shape}, not one for each epoch")
    _require(bool(np.isfinite(first.losses).all()), "has losses that are not finite")
    _require(np.array_equal(first.losses, second.losses), "gives other losses with the same seed")
    for one, other in zip(_draws(first, 3), _draws(second, 3), strict=True):
        _require(all(torch.equal(one[site], other[site]) for site in one), "gives other draws with the same seed")


def _draws(fitted: Fit, num_samples: int) -> list[dict[str, torch.Tensor]]:
    return list(draw_weights(fitted, num_samples=num_samples, seed=2))


def _check_draws(fitted: Fit) -> None:
    draws = _draws(fitted, 3)
    for layer in fitted.structure.layers:
        for name, site in layer.sites.items():
            _require(all(site in draw for draw in draws), f"draws no value for site '{site}'")
            shapes = {tuple(draw[site].shape) for draw in draws}
            wanted = layer.shapes[name]
            _require(shapes == {wanted}, f"draws site '{site}' in shapes {sorted(shapes)}, not {wanted}")
            _require(all(bool(draw[site].isfinite().all()) for draw in draws), f"draws '{site}' not finite")
    log_prob = getattr(fitted.guide, "log_prob", None)
    if log_prob is not None and not getattr(fitted.guide, "no_density", ""):
        with torch.no_grad():
            values = [float(log_prob(draw)) for draw in draws]
        _require(all(math.isfinite(value) for value in values), f"has log densities {values} of its own draws")


def _check_predictive(fitted: Fit, data: Data) -> None:
    for parallel in (False, True):
        with pyro.get_param_store().scope(), torch.no_grad():
            predictive = Predictive(fitted.model, guide=fitted.guide, num_samples=4, parallel=parallel)
            shape = tuple(predictive(data[0])[fitted.structure.observed].shape)
        wanted = (4, *data[1].shape)
        # one output for each datum may come without a dim of its own
        _require(
            shape in {wanted, (*wanted[:-1],) if wanted[-1] == 1 else wanted},
            f"gives predictions of shape {shape} with parallel={parallel}, not {wanted}",
        )


def _check_closed_form(fitted: Fit) -> None:
    closed = closed_form(fitted.guide, fitted.structure)
    if closed is None:
        return
    if set(closed.layer_structure.values()) == {"point"}:  # then that is what must be said of every weight
        held = all(bool((sd == 0).all()) for sd in closed.sd.values())
        _require(held, "calls all its layers points, but gives a weight a positive sd")
        return
    draws = _draws(fitted, 400)
    _require(any(bool((sd > 0).any()) for sd in closed.sd.values()), "has no weight with a positive marginal sd")
    for site, mean in closed.mean.items():
        sd = closed.sd[site]
        conditional = sd if closed.sd_conditional is None else closed.sd_conditional[site]
        _require(bool((sd >= 0).all()), f"has a marginal sd of '{site}' that is negative or NaN")
        _require(
            bool((conditional <= sd * (1 + 1e-4)).all()), f"has a conditional sd of '{site}' above its marginal sd"
        )
        values = torch.stack([draw[site] for draw in draws])
        held = sd == 0
        _require(bool((values[:, held] == mean[held]).all()), f"moves weights of '{site}' whose sd is 0")
        if held.all():
            continue
        standardised = ((values - mean) / sd)[:, ~held].double()
        # mean of 400 standard Normals: se 0.05; their variance: se 0.071; six of each over all weights
        off = max(standardised.mean(0).abs().max().item() / 0.05, (standardised.var(0) - 1).abs().max().item() / 0.071)
        _require(off < 6, f"draws '{site}' {off:.1f} standard errors off its closed form")


def _check_svi(guide: AutoGuide, data: Data) -> None:
    if getattr(guide, "trained_by", "svi") == "fit":
        return
    with pyro.get_param_store().scope():
        svi = SVI(guide.model, guide, Adam({"lr": 0.01}), Trace_ELBO())
        losses = [svi.step(*data) for _ in range(3)]
        _require(all(math.isfinite(loss) for loss in losses), f"has SVI losses {losses}")
        if isinstance(guide, AutoLaplaceApproximation) and hasattr(guide, "curvature_kind"):
            if isinstance(guide.model, nn.Module):
                guide.model.eval()
            guide.laplace_approximation(*data)


def _check_export(fitted: Fit, data: Data) -> None:
    idata = export.to_inference_data(fitted, data, num_samples=4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posterior.nc"
        export.save(idata, path)
        read = export.load(path)
    schema.validate(read)
    found: Mapping[str, Any] = schema.attrs(read)
    _require(found["num_data"] == fitted.structure.num_data, f"was exported for {found['num_data']} data")
