"""Where Is the Uncertainty: find out where the uncertainty sits in a neural network, on Pyro and PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

ROOMS = (
    "curvature",
    "datasets",
    "diagnostics",
    "errors",
    "export",
    "guides",
    "infer",
    "interventions",
    "linalg",
    "metrics",
    "nn",
    "plots",
    "report",
    "schema",
    "testing",
)
NAMES = {
    "Fit": "infer",
    "compare": "diagnostics",
    "concat": "export",
    "export_posterior": "export",
    "fit": "infer",
    "load": "export",
    "save": "export",
    "to_inference_data": "export",
    "validate": "schema",
}

__all__ = ["__version__", *ROOMS, *NAMES]


def __getattr__(name: str) -> Any:
    """Import a room, or a name from one, when it is first used: reading a saved file needs no torch."""
    if name in ROOMS:
        return importlib.import_module(f"wiu_pyro.{name}")
    if name in NAMES:
        return getattr(importlib.import_module(f"wiu_pyro.{NAMES[name]}"), name)
    raise AttributeError(f"module 'wiu_pyro' has no attribute '{name}'. Known: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted(__all__)
