"""From torch to xarray: make, save, load and join the InferenceData of a posterior over the weights of a network."""

from wiu_pyro.export.chains import concat
from wiu_pyro.export.files import load, save

__all__ = ["concat", "load", "save"]
