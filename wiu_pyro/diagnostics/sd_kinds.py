"""Which standard deviation a table reads: the marginal one, or the conditional one beside a factorised posterior."""

from __future__ import annotations

from typing import Any

from wiu_pyro import schema
from wiu_pyro.errors import DataError, SchemaError, near_matches

__all__ = ["SD_KINDS", "check_sd", "is_factorised"]

SD_KINDS = ("marginal", "conditional")


def check_sd(idata: Any, layers: list[str], sd: str) -> None:
    """Check that the moments of the layers hold this standard deviation.

    Parameters
    ----------
    idata : InferenceData or DataTree
    layers : list of str
    sd : str
        ``"marginal"`` or ``"conditional"``.

    Raises
    ------
    DataError
        If `sd` is neither.
    SchemaError
        If a parameter has no such sd, or no prior.
    """
    if sd not in SD_KINDS:
        raise DataError(f"Unknown kind of standard deviation '{sd}'. {near_matches(sd, SD_KINDS)}")
    name = {"marginal": "sd", "conditional": "sd_conditional"}[sd]
    for layer in layers:
        data = schema.dataset(idata, schema.moments_group(layer))
        prefixes = schema.moment_parameters(data).values()
        missing = [p + part for p in prefixes for part in (name, "prior_mean", "prior_sd") if p + part not in data]
        if missing:
            advice = "Use sd='marginal'" if sd == "conditional" else "Export the posterior again"
            raise SchemaError(
                f"Moments of layer '{layer}' with {', '.join(missing)} are needed, but they hold "
                f"{', '.join(map(str, data.data_vars))}. {advice}."
            )


def is_factorised(idata: Any, layers: list[str]) -> bool:
    """Return whether the posterior factorises over the weights of all layers: marginal and conditional sd are one."""
    return all(schema.dataset(idata, schema.moments_group(name)).attrs.get("factorised", 0) for name in layers)
