"""Guides by their short names, for the command line: the toolkit's from ``__all__``, and some of Pyro's own.

``ensemble-`` before a name asks for an ensemble of such posteriors.
"""

from __future__ import annotations

import functools
from typing import Any

from pyro.infer import autoguide

from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.ensemble import PREFIX, ensemble_class

__all__ = ["by_name", "known_guides"]

PYRO_GUIDES = {
    "auto-normal": autoguide.AutoNormal,
    "auto-low-rank": autoguide.AutoLowRankMultivariateNormal,
    "auto-laplace": autoguide.AutoLaplaceApproximation,
}


def known_guides() -> dict[str, type]:
    """Return all guides that can be asked for by name: their class by short name."""
    from wiu_pyro import guides

    own = (getattr(guides, name) for name in guides.__all__)
    named = {
        guide.__dict__["cli_name"]: guide for guide in own if isinstance(guide, type) and guide.__dict__.get("cli_name")
    }
    return {**named, **PYRO_GUIDES}


def by_name(name: str) -> Any:
    """Return the guide class of a short name such as ``"laplace-kfac"``.

    Parameters
    ----------
    name : str
        Also ``"ensemble-laplace-kfac"`` and the like: an ensemble of what is named behind ``ensemble-``.

    Returns
    -------
    type
        An AutoGuide class.

    Raises
    ------
    GuideError
        If there is none of that name, with the near matches.
    """
    known = known_guides()
    if name in known:
        return known[name]
    member = name.removeprefix(f"{PREFIX}-")
    if member != name and member in known and member != PREFIX:
        return _ensembles(known[member], member)
    if member != name:
        raise GuideError(f"Unknown guide '{member}' of an ensemble. {near_matches(member, known)}")
    raise GuideError(f"Unknown guide '{name}'. {near_matches(name, known)}")


@functools.cache
def _ensembles(member: type, name: str) -> type:
    return ensemble_class(member, name)
