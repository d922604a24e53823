"""Where a guide is put before it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation
from torch.distributions import biject_to

from wiu_pyro.errors import GuideError, a_name
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.infer.result import Fit

__all__ = ["put_at", "read_start"]


def read_start(start: Any) -> Mapping[str, torch.Tensor] | None:
    """Return the weights that a fit is to start from, by site, with what else an earlier fit's network held.

    Parameters
    ----------
    start : Fit, mapping of site to Tensor, or None

    Returns
    -------
    mapping of site to Tensor, or None

    Raises
    ------
    GuideError
        If it is of another kind.
    """
    if isinstance(start, Fit):
        return {**start.point_estimate, **start.unsampled}
    if start is None or (isinstance(start, Mapping) and all(torch.is_tensor(value) for value in start.values())):
        return start
    raise GuideError(
        f"start must be an earlier Fit, or a tensor for each site, but is {a_name(start)}. Pass for example "
        "start=point, or start=net.state_dict()."
    )


def put_at(guide: AutoGuide, values: Mapping[str, torch.Tensor]) -> None:
    """Move a guide's centre to given weights.

    Parameters
    ----------
    guide : AutoGuide
        One of the toolkit's, or Pyro's AutoLaplaceApproximation; set up.
    values : mapping of site to Tensor

    Raises
    ------
    GuideError
        If it is another guide of Pyro's, or a site has no value of its shape.
    """
    if isinstance(guide, NetworkGuide):
        guide.start_at(dict(values))
    elif isinstance(guide, AutoLaplaceApproximation):
        with torch.no_grad():
            guide.loc.copy_(_flat(guide, values))
    else:
        raise GuideError(
            f"start= is for the toolkit's guides and AutoLaplaceApproximation; {type(guide).__name__} starts "
            "where its init_loc_fn says: wiu_pyro.guides.init_to_network(model), or init_to_value."
        )


def _flat(guide: AutoLaplaceApproximation, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Put values into the flat, unconstrained vector of one of Pyro's guides."""
    parts = []
    for name, site in guide.prototype_trace.iter_stochastic_nodes():
        shape = tuple(site["fn"].shape())
        if name not in values or tuple(values[name].shape) != shape:
            got = tuple(values[name].shape) if name in values else "none"
            raise GuideError(
                f"Site '{name}' needs a start of shape {shape}, but has {got}. Give a value for each site."
            )
        parts.append(biject_to(site["fn"].support).inv(values[name].to(guide.loc.device)).reshape(-1))
    return torch.cat(parts)
