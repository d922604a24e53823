"""Which figures stand beside those of a posterior that factorises: conditional ones, of one that has both kinds."""

from __future__ import annotations

import xarray as xr

from wiu_pyro import diagnostics

__all__ = ["between_metric", "said_between", "said_within", "within_quantity"]

CONDITIONAL = "conditional_contraction"
CONDITIONAL_SD = "log_conditional_sd_to_prior"


def between_metric(table: xr.Dataset) -> str:
    """Return the metric of `between_layers` that is compared between posteriors."""
    return CONDITIONAL if CONDITIONAL in table["metric"].values else "contraction"


def within_quantity(table: xr.Dataset) -> str:
    """Return the quantity of `within_layer` that is compared between posteriors."""
    return CONDITIONAL_SD if CONDITIONAL_SD in table["quantity"].values else "log_sd_to_prior"


def said_between(table: xr.Dataset) -> str:
    """Return `between_statement` of that metric."""
    return diagnostics.between_statement(table, between_metric(table))


def said_within(table: xr.Dataset) -> str:
    """Return `within_statement` of that quantity."""
    return diagnostics.within_statement(table, within_quantity(table))
