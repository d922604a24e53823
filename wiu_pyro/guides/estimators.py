"""Estimators of −ELBO as Pyro effect handlers: with `SVI` and any guide of independent Normals, on any network.

Inside of a handler the Normals of a guide give draws that are made only where something needs them
(`wiu_pyro.guides.weight_draw`): a Linear layer samples its output instead. The KL of a weight from a Normal prior is
taken in closed form, under `Trace_ELBO` too, and no log-probability of a draw is computed where it is.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch.distributions import kl_divergence, register_kl

from wiu_pyro.guides.normal_kl import site_kl
from wiu_pyro.guides.output_noise import RULES, OutputNoise
from wiu_pyro.guides.weight_draw import DrawSource, WeightDraw

__all__ = ["flipout", "local_reparameterization", "reparameterization"]

ONE_DRAW = torch.Size()


def local_reparameterization(*, antithetic: bool = False) -> Messenger:
    """Return a handler under which Linear layers sample their outputs for each datum, in place of their weights.

    Put it around the steps of Pyro's `SVI`, or around a guide; model and guide stay as they are. The first dim of a
    layer's input must be the data, and no weights may be used twice in a pass. It works with guides whose weights are
    Normals of their own or parts of one diagonal Normal: `AutoMeanField`, Pyro's `AutoNormal` and `AutoDiagonalNormal`,
    and guides written by hand. Other sites, other guides and vectorised particles are left alone.

    Parameters
    ----------
    antithetic : bool
        Draw convolutions' weights twice, with opposite noise, for the halves of the batch: less noise, more time.

    Returns
    -------
    Messenger
        A context manager, and a decorator.

    References
    ----------
    .. [1] Kingma, Salimans and Welling (2015), Variational Dropout and the Local Reparameterization Trick.

    Examples
    --------
    >>> import pyro
    >>> from pyro.infer import SVI, TraceMeanField_ELBO
    >>> from pyro.infer.autoguide import AutoNormal
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(torch.nn.Linear(4, 3), num_data=8)
    >>> svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 1e-3}), TraceMeanField_ELBO())
    >>> with local_reparameterization():
    ...     loss = svi.step(torch.ones(8, 4), torch.zeros(8))
    """
    return OutputSampling(RULES["local_antithetic" if antithetic else "local"])


def flipout() -> Messenger:
    """Return a handler under which one draw of a layer's weights gets random signs for each datum.

    As `local_reparameterization` in all else.

    Returns
    -------
    Messenger
        A context manager, and a decorator.

    References
    ----------
    .. [1] Wen et al. (2018), Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches.
    """
    return OutputSampling(RULES["flipout"])


def reparameterization() -> Messenger:
    """Return a handler that leaves the draws as Pyro makes them, and takes the KL in closed form.

    As `local_reparameterization` in all else.

    Returns
    -------
    Messenger
        A context manager, and a decorator.
    """
    return OutputSampling(RULES["reparam"])


class OutputSampling(Messenger):
    """Gives draws not made yet at Normal sites, and their KL in closed form.

    Parameters
    ----------
    rule : OutputNoise
    """

    def __init__(self, rule: OutputNoise) -> None:
        super().__init__()
        self.rule = rule

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if msg["done"] or msg["is_observed"] or msg["value"] is not None or getattr(fn, "batch_shape", True):
            return
        if isinstance(fn, dist.Delta) and isinstance(fn.v, WeightDraw):
            draw = fn.v
        elif _is_normal(fn) and fn.event_dim > 0:
            base = _base(fn)
            draw = DrawSource(base.loc, base.scale, self.rule).draw()
        else:
            return
        msg["value"], msg["done"] = draw, True
        msg["fn"] = LatentWeights(draw, fn)

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        fn, draw = msg["fn"], msg["value"]
        if isinstance(fn, LatentWeights):
            draw.source.site_scale = msg["scale"] if msg["mask"] is None else None
            return
        if not isinstance(draw, WeightDraw) or msg["mask"] is not None or not _is_normal(fn):
            return
        scale = draw.source.site_scale
        if msg["is_observed"] or fn.batch_shape or fn.event_shape != draw.shape or not _same(scale, msg["scale"]):
            return
        base = _base(fn)
        divergence = site_kl(draw.loc, draw.scale, base.loc, base.scale)
        draw.source.closed[draw.span] = divergence
        msg["unscaled_log_prob"] = -divergence  # then Pyro computes none
        msg["log_prob"] = msg["log_prob_sum"] = -divergence * msg["scale"]


class LatentWeights(TorchDistribution):
    """The posterior of a site whose draw is not made yet: of a guide's Normal, or of a Delta at a part of one.

    Parameters
    ----------
    draw : WeightDraw
    fn : Distribution
        What the guide has at the site.
    """

    has_rsample = True
    arg_constraints: dict[str, Any] = {}

    def __init__(self, draw: WeightDraw, fn: TorchDistribution) -> None:
        self.draw, self.fn = draw, fn
        super().__init__(fn.batch_shape, fn.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the guide's own distribution."""
        return self.fn.support

    @property
    def is_part(self) -> bool:
        """Whether another site of the guide has the density of this one."""
        return isinstance(self.fn, dist.Delta)

    def rsample(self, sample_shape: torch.Size = ONE_DRAW) -> torch.Tensor:
        """Return draws of their own."""
        return self.fn.rsample(sample_shape)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return log q at a value; at the site's own draw, of what has no KL in closed form."""
        if value is not self.draw:
            return self.fn.log_prob(value)
        if self.is_part:
            return self.draw.loc.new_zeros(())
        return self.draw.source.log_prob()


@register_kl(LatentWeights, torch.distributions.Distribution)
def _kl_latent_weights(posterior: LatentWeights, prior: torch.distributions.Distribution) -> torch.Tensor:
    source, span = posterior.draw.source, posterior.draw.span
    if span in source.closed:
        return source.closed[span]
    if posterior.is_part:
        raise NotImplementedError  # `TraceMeanField_ELBO` then takes the log-probabilities at the draw
    return kl_divergence(posterior.fn, prior)


def _is_normal(fn: Any) -> bool:
    return type(_base(fn)) is dist.Normal or type(_base(fn)) is torch.distributions.Normal


def _base(fn: Any) -> Any:
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return fn


def _same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, float | int) and isinstance(other, float | int) and one == other)
