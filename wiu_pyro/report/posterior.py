"""One posterior of a run as the page needs it: its attributes, its layer table, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics, schema
from wiu_pyro.report.numbers import percent

__all__ = ["Posterior", "convergence_sentence"]


@dataclass(frozen=True)
class Posterior:
    """What is known of one posterior.

    Parameters
    ----------
    name : str
        Its command-line name, for example "laplace-kfac".
    idata : InferenceData or DataTree
    attrs : dict
        The canonical attributes (those of group ``posterior``).
    table : Dataset, dims (layer) or (chain, layer)
        The layer table, as `diagnostics.layer_uncertainty` gives it.
    """

    name: str
    idata: Any
    attrs: dict[str, Any]
    table: xr.Dataset

    @classmethod
    def read(cls, name: str, idata: Any) -> Posterior:
        """Return the posterior of a loaded file, with its layer table computed."""
        return cls(name, idata, schema.attrs(idata), diagnostics.layer_uncertainty(idata))

    @property
    def layers(self) -> list[str]:
        """The layers, in the order data flows through them."""
        return [str(layer) for layer in self.table["layer"].values]

    @property
    def covered(self) -> list[str]:
        """The layers that have a posterior, not a point estimate alone."""
        without_prior = "reason" in self.table["contraction"].attrs
        known = np.isfinite(self.column("sd_q50" if without_prior else "contraction"))
        return [layer for layer, own in zip(self.layers, known, strict=True) if own]

    @property
    def converged(self) -> str:
        """Whether the fit had converged: "yes", "no" or "not assessed"."""
        return str(self.attrs.get("converged", "not assessed"))

    @property
    def mark(self) -> str:
        """What must stand beside the posterior's name; empty where its fit had converged."""
        return {"yes": "", "no": " (not converged)"}.get(self.converged, " (convergence not assessed)")

    def column(self, name: str) -> np.ndarray:
        """Return one column of the layer table, averaged over chains (layer,)."""
        values = self.table[name]
        return (values.mean("chain") if "chain" in values.dims else values).values

    @property
    def like_with_like(self) -> np.ndarray:
        """Contraction by the conditional sd (layer,): what a factorised posterior's contraction may stand beside."""
        contraction = self.column("contraction")
        if "conditional_contraction" not in self.table:
            return contraction
        conditional = self.column("conditional_contraction")
        return np.where(np.isfinite(conditional), conditional, contraction)

    def asked(self, name: str) -> xr.Dataset:
        """Return what a diagnostic answers, asked once for table, figure and caption together.

        By the conditional sd where there are two, as all posteriors are held side by side.

        Parameters
        ----------
        name : str
            Of a function in `wiu_pyro.diagnostics` that takes one posterior.

        Returns
        -------
        Dataset
        """
        if name not in self._answers:
            question = getattr(diagnostics, name)
            both = "conditional_contraction" in self.table and "sd" in signature(question).parameters
            self._answers[name] = question(self.idata, **({"sd": "conditional"} if both else {}))
        return self._answers[name]

    @cached_property
    def _answers(self) -> dict[str, xr.Dataset]:
        return {}

    @property
    def predictive_groups(self) -> list[str]:
        """The predictives in the file, that which the posterior uses by default first."""
        found = [name for name in schema.groups(self.idata) if name.startswith("predictive_")]
        default = f"predictive_{self.attrs.get('prediction_default', '')}"
        return sorted(found, key=lambda name: (name != default, name))


def convergence_sentence(attrs: dict[str, Any]) -> str:
    """Say whether a fit had converged and on which figure that rests.

    Parameters
    ----------
    attrs : dict
        The canonical attributes of the posterior.

    Returns
    -------
    str
    """
    converged = str(attrs.get("converged", "not assessed"))
    detail = str(attrs.get("convergence_detail", "")).rstrip(".")
    change, threshold = attrs.get("convergence_change"), attrs.get("convergence_threshold")
    if not detail and isinstance(change, float) and np.isfinite(change):
        limit = f" (limit {percent(threshold, 2)})" if threshold is not None else ""
        detail = f"the loss changed by {percent(change, 2)} over the last tenth of the epochs{limit}"
    if converged not in ("yes", "no") and "not assessed" in detail:
        return f"{detail}."
    opening = {"yes": "Converged", "no": "Not converged"}.get(converged, "Convergence not assessed")
    return f"{opening}: {detail}." if detail else f"{opening}."
