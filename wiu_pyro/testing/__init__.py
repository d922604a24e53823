"""Exact toy problems and contract checks, for this project's tests and for those of your own guides; and references.

`exact_posterior`, `grid_posterior` and `nuts_posterior` give a posterior that approximations are held to; what they
return goes through `wiu_pyro.to_inference_data` as any other, and into `wiu_pyro.diagnostics.agreement`.
"""

from wiu_pyro.testing.contract import check_guide
from wiu_pyro.testing.exact import exact_posterior, grid_posterior
from wiu_pyro.testing.nuts import NutsConfig, nuts_posterior
from wiu_pyro.testing.toys import LinearGaussian, linear_gaussian, rescale_relu, small_classifier

__all__ = [
    "LinearGaussian",
    "NutsConfig",
    "check_guide",
    "exact_posterior",
    "grid_posterior",
    "linear_gaussian",
    "nuts_posterior",
    "rescale_relu",
    "small_classifier",
]
