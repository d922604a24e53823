"""From torch to xarray: make, save, load and join the InferenceData of a posterior over the weights of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wiu_pyro.export.chains import concat
from wiu_pyro.export.files import load, save

if TYPE_CHECKING:
    from wiu_pyro.export.convert import ExportConfig, export_posterior, to_inference_data

__all__ = ["ExportConfig", "concat", "export_posterior", "load", "save", "to_inference_data"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: saved files are read without it."""
    if name in ("ExportConfig", "export_posterior", "to_inference_data"):
        from wiu_pyro.export import convert

        return getattr(convert, name)
    raise AttributeError(f"module 'wiu_pyro.export' has no attribute '{name}'. Known: {', '.join(__all__)}.")
