"""What a table carries along about the fit it speaks of, above all whether that fit had converged."""

from __future__ import annotations

from typing import Any

import numpy as np

from wiu_pyro import schema

__all__ = ["carried_attrs", "convergence_note"]

CARRIED = (
    "guide",
    "approximation",
    "curvature",
    "structure",
    "prior",
    "likelihood",
    "num_data",
    "seed",
    "temperature",
    "converged",
    "convergence_change",
    "convergence_threshold",
    "convergence_detail",
    "prediction_default",
    "not_covered",
    "sd_of",
    "sd_learned",
    "model_name",
    "data_name",
)


def carried_attrs(idata: Any) -> dict[str, Any]:
    """Return the attributes of a posterior that its tables and figures carry along.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    dict
        Those of guide, prior, data and convergence that the file has.
    """
    held = schema.attrs(idata)
    return {name: held[name] for name in CARRIED if name in held}


def convergence_note(attrs: dict[str, Any]) -> str:
    """Return what must stand beside figures of a fit that had not converged; empty where it had.

    Parameters
    ----------
    attrs : dict
        Of a posterior, or of a table made from it.

    Returns
    -------
    str
        "", "not converged ..." or "convergence not assessed ...", with the figure it rests on in brackets: of several
        runs that differ in it, the first's.
    """
    said = str(attrs.get("converged", "not assessed"))
    detail = str(attrs.get("convergence_detail", "")).strip().rstrip(".")
    runs = np.size(attrs.get("seed", 0))
    if runs > 1 and ".; " in detail:  # joined by wiu_pyro.concat
        detail = f"the first of {runs} runs: {detail.split('.; ')[0]}"
    reason = f" ({detail})" if detail else ""
    return {"yes": "", "no": f"not converged{reason}"}.get(said, f"convergence not assessed{reason}")
