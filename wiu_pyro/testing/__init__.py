"""Exact toy problems and contract checks, for this project's tests and for those of your own guides."""

from wiu_pyro.testing.contract import check_guide
from wiu_pyro.testing.toys import LinearGaussian, linear_gaussian, rescale_relu, small_classifier

__all__ = ["LinearGaussian", "check_guide", "linear_gaussian", "rescale_relu", "small_classifier"]
