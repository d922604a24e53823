"""Which differences between layers every posterior finds, and on which the posteriors contradict each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from wiu_pyro.errors import DataError

__all__ = ["agreed_pairs_statement"]

CONDITIONAL = "conditional_contraction"


def agreed_pairs_statement(tables: Mapping[str, xr.Dataset]) -> str:
    """Return for which pairs of layers all posteriors find the same difference in contraction, in words.

    Like stands beside like: of a posterior that does not factorise the conditional contraction is taken. A pair counts
    where the interval of the difference leaves out zero.

    Parameters
    ----------
    tables : mapping of str to Dataset
        What `between_layers` returned of each posterior. Those without a difference to speak of, as of one layer, are
        left out.

    Returns
    -------
    str
        One to three sentences.

    Raises
    ------
    DataError
        If fewer than two posteriors have one.
    """
    signs = {name: found for name, table in tables.items() if (found := _signs(table)).notnull().any()}
    if len(signs) < 2:
        raise DataError(
            f"Two posteriors with intervals between layers are needed, got {len(signs)}. Pass what between_layers "
            "returned of posteriors over five seeds or more."
        )
    beside = xr.concat(signs.values(), dim="posterior", join="outer").transpose("posterior", "pair")
    values, pairs = beside.values, [str(pair) for pair in beside["pair"].values]
    several = np.isfinite(values).sum(axis=0) > 1
    up, down = ((np.isnan(values) | (values == way)).all(axis=0) & several for way in (1, -1))
    against = (values == 1).any(axis=0) & (values == -1).any(axis=0)
    same = [_said(pair, 1 if above else -1) for pair, above, below in zip(pairs, up, down) if above or below]
    names = ", ".join(signs)
    number, verb = len(same) or "none", "differs" if len(same) == 1 else "differ"
    of = f"{several.sum()} pair{'' if several.sum() == 1 else 's'} of layers"
    text = f"Of {of} {number} {verb} in conditional contraction the same way by all of {names}"
    text += f"{': ' + '; '.join(same) if same else ''}."
    if against.any():
        which = "; ".join(pair for pair, odd in zip(pairs, against) if odd)
        text += f" The posteriors contradict each other, beyond what seeds differ by, on {against.sum()}: {which}."
    rest = several.sum() - len(same) - against.sum()
    return text + (f" Of {rest} some posteriors cannot tell." if rest else "")


def _signs(table: xr.Dataset) -> xr.DataArray:
    """Return for each pair 1 where the first layer's is above, -1 below, 0 where open, NaN where unknown."""
    metric = CONDITIONAL if CONDITIONAL in table["metric"].values else "contraction"
    row = table.sel(metric=metric)
    low, high = row["seeds_low"], row["seeds_high"]
    found = xr.where(low > 0, 1.0, xr.where(high < 0, -1.0, 0.0)).where(low.notnull())
    return found.drop_vars("metric", errors="ignore")


def _said(pair: str, sign: int) -> str:
    first, second = pair.split(" − ")
    return f"'{first}' above '{second}'" if sign > 0 else f"'{second}' above '{first}'"
