"""Exact toy problems and contract checks, for this project's tests and for those of your own guides.

`linear_gaussian` is a network whose posterior is known in closed form: one Linear layer, a Normal likelihood of known
noise, independent Normal priors (Bishop 2006, *Pattern Recognition and Machine Learning*, section 3.3). `rescale_relu`
computes the same function with other weights (Neyshabur et al. 2015, section 2), priors moved along, so that whatever
is said of uncertainty should not change. `check_guide` holds a guide to what every posterior of the toolkit keeps.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from wiu_pyro.errors import GuideError, ModelError, PriorError
from wiu_pyro.guides import closed_form
from wiu_pyro.infer import Fit, draw_weights, fit
from wiu_pyro.nn import BayesianNetwork, Normal

__all__ = ["LinearGaussian", "check_guide", "linear_gaussian", "rescale_relu", "small_classifier"]

Data = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LinearGaussian:
    """A linear network with data, and its exact posterior.

    Attributes
    ----------
    model : BayesianNetwork
        One Linear layer; sites ``"weight"`` and ``"bias"``.
    data : tuple of Tensor, shapes (num_data, in) and (num_data, out)
    mean : dict of site to Tensor
        Posterior mean, in the site's shape, float64.
    covariance : Tensor, shape (numel, numel)
        Posterior covariance, float64, over all weights row by row, then all biases: the order of a guide's flat vector.
    kl : float
        KL of the posterior from the prior, in nats.
    log_evidence : float
        Log density of the labels with the weights integrated out, in nats.
    """

    model: BayesianNetwork
    data: Data
    mean: dict[str, torch.Tensor]
    covariance: torch.Tensor
    kl: float
    log_evidence: float


def linear_gaussian(
    num_data: int = 30,
    in_features: int = 3,
    out_features: int = 2,
    *,
    noise_scale: float = 0.5,
    weight_scale: float = 0.7,
    bias_scale: float = 1.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> LinearGaussian:
    """Make a linear network whose posterior is known: any exact method must find it.

    Parameters
    ----------
    num_data, in_features, out_features : int
    noise_scale : float
        Known sd of the labels' noise.
    weight_scale, bias_scale : float
        Prior sds; prior means are zero.
    seed : int
        Of the data and of the network's own weights.
    dtype : dtype
        Of network and data; the posterior is computed in float64.

    Returns
    -------
    LinearGaussian

    Examples
    --------
    >>> problem = linear_gaussian(in_features=3, out_features=2)
    >>> problem.covariance.shape
    torch.Size([8, 8])
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = noise(num_data, in_features)
    y = x @ noise(in_features, out_features) + 0.3 + noise_scale * noise(num_data, out_features)
    net = nn.Linear(in_features, out_features, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(noise(out_features, in_features))
        net.bias.copy_(noise(out_features))
    prior = {"weight": Normal(weight_scale), "bias": Normal(bias_scale)}
    model = BayesianNetwork(net, prior, likelihood="normal", noise_scale=noise_scale, num_data=num_data)

    inputs = torch.cat([x, torch.ones(num_data, 1, dtype=torch.float64)], 1)  # (num_data, in + 1)
    q = torch.tensor([weight_scale**-2] * in_features + [bias_scale**-2], dtype=torch.float64)
    row = torch.linalg.inv(inputs.mT @ inputs / noise_scale**2 + torch.diag(q))  # covariance of one output's weights
    solution = (row @ inputs.mT @ y / noise_scale**2).mT  # (out, in + 1)
    joint = torch.block_diag(*[row] * out_features)  # output by output, weights then bias
    places = torch.arange(joint.shape[0]).view(out_features, in_features + 1)
    order = torch.cat([places[:, :-1].reshape(-1), places[:, -1]])
    labels = inputs @ torch.diag(1 / q) @ inputs.mT + noise_scale**2 * torch.eye(num_data, dtype=torch.float64)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(num_data, dtype=torch.float64), labels)
    prior_q = q.repeat(out_features)
    spread = (prior_q * (joint.diagonal() + solution.reshape(-1).square())).sum()
    kl = 0.5 * (spread - len(prior_q) - torch.logdet(joint) - prior_q.log().sum())
    return LinearGaussian(
        model=model,
        data=(x.to(dtype), y.to(dtype)),
        mean={"weight": solution[:, :-1].clone(), "bias": solution[:, -1].clone()},
        covariance=joint[order][:, order],
        kl=kl.item(),
        log_evidence=evidence.log_prob(y.mT).sum().item(),
    )


def rescale_relu(model: BayesianNetwork, first: str, second: str, *, factor: float) -> BayesianNetwork:
    """Scale one layer of a ReLU network up and the next one down, priors included: the same function and model.

    Contraction, signal-to-noise, KL and effective parameters of a posterior should be those of `model`; raw standard
    deviations are not.

    Parameters
    ----------
    model : BayesianNetwork
        With Normal priors, the same for all weights of a site, on the layers named.
    first, second : str
        Two layers with weight and bias and a ReLU (or max pooling) alone between them.
    factor : float
        Multiplies weight and bias of `first`; the weight of `second` is divided by it.

    Returns
    -------
    BayesianNetwork
        A new model; `model` is left unchanged.

    Raises
    ------
    ModelError
        If the factor is not positive: a ReLU is homogeneous in positive factors alone.
    PriorError
        If a prior is not Normal, or differs within a site.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise ModelError(f"A ReLU passes positive factors through, but factor is {factor}. Pass for example 10.0.")
    factors = {f"{first}.weight": factor, f"{first}.bias": factor, f"{second}.weight": 1 / factor}
    net = copy.deepcopy(model.net)
    tensors = {**dict(net.named_buffers()), **dict(net.named_parameters())}
    with torch.no_grad():
        for name, scale in factors.items():
            if name not in tensors:
                raise ModelError(f"The network has no weight '{name}'. Name two layers of it with weight and bias.")
            tensors[name].mul_(scale)
    prior = {name: _scaled(name, found, factors.get(name, 1.0)) for name, found in model.prior_distributions().items()}
    for name in model.site_priors:
        _as_parameter(net, name)
    return BayesianNetwork(
        net, prior, likelihood=model.likelihood, num_data=model.num_data, noise_scale=model.noise_scale
    )


def _scaled(name: str, prior: Any, factor: float) -> Normal:
    base = getattr(prior, "base_dist", prior)
    if type(base).__name__ != "Normal":
        raise PriorError(f"Rescaling needs Normal priors, but '{name}' has a {type(base).__name__}. Use Normal there.")
    loc, scale = base.loc.unique(), base.scale.unique()
    if len(loc) > 1 or len(scale) > 1:
        raise PriorError(
            f"Rescaling needs one prior for all weights of a site, but that of '{name}' differs. Use Normal."
        )
    return Normal(scale.item() * factor, loc.item() * factor)


def _as_parameter(net: nn.Module, name: str) -> None:
    path, _, parameter = name.rpartition(".")
    module = net.get_submodule(path)
    value = getattr(module, parameter)
    delattr(module, parameter)
    module.register_parameter(parameter, nn.Parameter(value))


def small_classifier(*, num_data: int = 24, seed: int = 0) -> tuple[BayesianNetwork, Data]:
    """Make a network of two layers, three classes, with data: small enough for any guide.

    Parameters
    ----------
    num_data : int
    seed : int

    Returns
    -------
    model : BayesianNetwork
    data : tuple of Tensor, shapes (num_data, 4) and (num_data,)
    """
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(num_data, 4, generator=generator)
    y = (x[:, :3] + 0.5 * torch.randn(num_data, 3, generator=generator)).argmax(1)
    return BayesianNetwork(net, num_data=num_data), (x, y)


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
        A Pyro model; that of `small_classifier` when None.
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
        model, data = small_classifier()

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
    if log_prob is not None:
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
        _require(shape in {wanted, (*wanted[:-1],) if wanted[-1] == 1 else wanted}, f"gives predictions of shape {shape} with parallel={parallel}, not {wanted}")


def _check_closed_form(fitted: Fit) -> None:
    closed = closed_form(fitted.guide, fitted.structure)
    if closed is None:
        return
    draws = _draws(fitted, 400)
    for site, mean in closed.mean.items():
        sd, conditional = closed.sd[site], closed.sd_conditional[site]
        _require(bool((sd > 0).all()), f"has a marginal sd of '{site}' that is not positive")
        _require(
            bool((conditional <= sd * (1 + 1e-4)).all()), f"has a conditional sd of '{site}' above its marginal sd"
        )
        standardised = torch.stack([(draw[site] - mean) / sd for draw in draws]).double()
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
