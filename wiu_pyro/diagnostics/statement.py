"""The answer in a sentence: which layer data determine most and least, computed from the layer table."""

from __future__ import annotations

import numpy as np
import xarray as xr

from wiu_pyro.diagnostics.provenance import convergence_note
from wiu_pyro.errors import SchemaError

__all__ = ["layer_statement"]


def layer_statement(table: xr.Dataset) -> str:
    """Return which layer data determine most and which least, in words, with the figures and their caveats.

    Parameters
    ----------
    table : Dataset
        What `layer_uncertainty` returned. Several chains are averaged, and it is said in how many the order holds.

    Returns
    -------
    str
        Two to five sentences.

    Raises
    ------
    SchemaError
        If the table has no contraction by layer.
    """
    if "contraction" not in table or "layer" not in table.dims:
        raise SchemaError(
            f"A table with 'contraction' over 'layer' is needed, but this has {', '.join(map(str, table.data_vars))}. "
            "Pass what wiu_pyro.diagnostics.layer_uncertainty returned."
        )
    mean = table.mean("chain") if "chain" in table.dims else table
    silent = _silent_sentence(table)
    if silent:
        return " ".join(sentence for sentence in (silent, _held_sentence(mean), *_caveats(table)) if sentence)
    known = mean.isel(layer=np.flatnonzero(mean["contraction"].notnull().values))
    sentences = [
        _contraction_sentence(known, opening=f"The one layer{' with a posterior' if mean.sizes['layer'] > 1 else ''}"),
        _seeds_sentence(table, known),
        _kl_sentence(known),
        _held_sentence(mean),
        *_caveats(table),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _silent_sentence(table: xr.Dataset) -> str:
    """Say why a posterior cannot tell what the data determine; empty where it can."""
    if not table.attrs.get("sd_learned", 1):
        return f"Its sds do not say what the data determine: they are those of {table.attrs['sd_of']}."
    reason = table["contraction"].attrs.get("reason", "")
    note = table["kl"].attrs.get("kl_note", "") if "kl" in table else ""
    parts = [f"Its sds do not say what the data determine: {reason}." if reason else "", f"KL {note}." if note else ""]
    return " ".join(part for part in parts if part)


def _contraction_sentence(table: xr.Dataset, *, opening: str) -> str:
    if table.sizes["layer"] == 0:
        return "No layer of this posterior has weights with an uncertainty."
    order = np.argsort(table["contraction"].values, kind="stable")
    most, least = table.isel(layer=int(order[-1])), table.isel(layer=int(order[0]))
    if table.sizes["layer"] == 1:
        return (
            f"{opening}, {_name(most)}, has lost {_percent(most)} of its prior variance to the data, "
            f"averaged over its weights ({_effective(most)})."
        )
    return (
        f"Data determine layer {_name(most)} most and layer {_name(least)} least: averaged over a layer's weights, "
        f"{_percent(most)} of the prior variance is gone in {_name(most)} ({_effective(most)}), "
        f"{_percent(least)} in {_name(least)} ({_effective(least)})."
    )


def _seeds_sentence(table: xr.Dataset, known: xr.Dataset) -> str:
    if "chain" not in table.dims or known.sizes["layer"] < 2:
        return ""
    each = table["contraction"].sel(layer=known["layer"]).transpose("chain", "layer").values
    overall = known["contraction"].values
    same = (each.argmax(axis=1) == overall.argmax()) & (each.argmin(axis=1) == overall.argmin())
    return (
        f"These are means over {len(each)} chains; the same two layers stand at the ends in {int(same.sum())} of them."
    )


def _kl_sentence(table: xr.Dataset) -> str:
    if "kl_per_weight" not in table or bool(table["kl_per_weight"].isnull().any()) or table.sizes["layer"] < 2:
        return ""
    top = table.isel(layer=int(table["kl_per_weight"].values.argmax()))
    text = f"The KL from the prior is largest a weight in {_name(top)}, {float(top['kl_per_weight']):.3g} nats"
    share = float(top["kl_share"])
    return f"{text} ({share:.0%} of the network's)." if np.isfinite(share) else f"{text}."


def _held_sentence(table: xr.Dataset) -> str:
    """Say what is held at its point estimate, of which no uncertainty is known."""
    if "num_uncertain" not in table:
        return ""
    rows = [table.isel(layer=place) for place in range(table.sizes["layer"])]
    held = [_name(row) for row in rows if not float(row["num_uncertain"])]
    partly = [
        f"all but {float(row['num_uncertain']):,.0f} of the {int(row['num_weights']):,} weights of {_name(row)}"
        for row in rows
        if 0 < float(row["num_uncertain"]) < int(row["num_weights"])
    ]
    return f"Held at the point estimate, so without an uncertainty: {', '.join([*held, *partly])}."


def _caveats(table: xr.Dataset) -> list[str]:
    caveats = []
    if "contraction_sum" in table and bool(table["contraction_sum"].notnull().any()):
        caveats.append(
            "The posterior factorises over weights, so its sd is about the conditional one and the contraction is an "
            "upper figure: compare it with conditional figures of other posteriors only."
        )
    if table.attrs.get("moments") == "estimated":
        caveats.append("Its moments are estimated from draws.")
    note = convergence_note(table.attrs)
    if note.startswith("not converged"):
        detail = note.removeprefix("not converged")
        caveats.append(f"The fit had not converged{detail}: these figures describe a stage of its training.")
    elif note:
        caveats.append("Whether the fit had converged was not assessed.")
    return caveats


def _name(row: xr.Dataset) -> str:
    return f"'{row['layer'].item()}'"


def _percent(row: xr.Dataset) -> str:
    return f"{float(row['contraction']):.1%}"


def _effective(row: xr.Dataset) -> str:
    """Return the effective parameters in words; of a factorised posterior the sum of contractions, by its name."""
    num = round(float(row["num_uncertain" if "num_uncertain" in row else "num_weights"]))
    if "effective_parameters" in row and bool(row["effective_parameters"].notnull()):
        return f"{float(row['effective_parameters']):,.0f} effective of {num:,} parameters"
    return f"contractions add up to {float(row['contraction_sum']):,.0f} over {num:,} parameters"
