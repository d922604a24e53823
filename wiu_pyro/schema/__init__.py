"""The data contract: names of groups, dims and attributes, access on both ArviZ lines, and the check against it."""

from wiu_pyro.schema.checks import validate
from wiu_pyro.schema.names import (
    LAYER_PREFIX,
    MOMENTS_PREFIX,
    REQUIRED_ATTRS,
    SCHEMA_VERSION,
    attrs,
    dataset,
    groups,
    layer_group,
    layer_names,
    moment_parameters,
    moments_group,
)

__all__ = [
    "LAYER_PREFIX",
    "MOMENTS_PREFIX",
    "REQUIRED_ATTRS",
    "SCHEMA_VERSION",
    "attrs",
    "dataset",
    "groups",
    "layer_group",
    "layer_names",
    "moment_parameters",
    "moments_group",
    "validate",
]
