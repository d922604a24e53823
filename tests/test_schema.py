"""The data contract is checked: what follows it passes, each breach is named with a way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.synthetic import CONV_LAYERS, LayerSpec, synthetic
from wiu_pyro.errors import SchemaError
from wiu_pyro.export.container import build
from wiu_pyro.schema import dataset, groups, layer_names, validate

Groups = dict[str, xr.Dataset]
SMALL = (LayerSpec("fc1", (4, 6), 0.2), LayerSpec("out", (3, 4), 0.8))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"factorised": False, "num_chains": 2},
        {"layers": CONV_LAYERS, "max_weights_per_layer": 20},
        {"estimated": True},
        {"prior_varies": True},
        {"likelihood": "normal"},
        {"converged": "not assessed"},
    ],
    ids=str,
)
def test_a_posterior_that_follows_the_contract_passes(options: dict[str, Any]) -> None:
    validate(synthetic(**options).idata)


def small(**options: Any) -> Groups:
    idata = synthetic(layers=SMALL, num_draws=5, num_obs=7, dead_inputs=(), **options).idata
    return {name: dataset(idata, name).copy(deep=True) for name in groups(idata)}


def set_attr(group: str, name: str, value: Any) -> Callable[[Groups], None]:
    def change(content: Groups) -> None:
        content[group].attrs[name] = value

    return change


def drop_attr(name: str) -> Callable[[Groups], None]:
    return lambda content: content["posterior"].attrs.pop(name)


def replace(group: str, how: Callable[[xr.Dataset], xr.Dataset]) -> Callable[[Groups], None]:
    def change(content: Groups) -> None:
        content[group] = how(content[group])

    return change


def rename_group(old: str, new: str) -> Callable[[Groups], None]:
    def change(content: Groups) -> None:
        content[new] = content.pop(old)

    return change


def spoil(group: str, variable: str, value: float) -> Callable[[Groups], None]:
    def change(content: Groups) -> None:
        content[group][variable].values.flat[0] = value

    return change


def add_sample_stats(dtype: str, value: float) -> Callable[[Groups], None]:
    def change(content: Groups) -> None:
        like = content["posterior"].deviation_rms.isel(layer=0, drop=True)
        content["sample_stats"] = xr.Dataset(
            {name: xr.full_like(like, value, dtype) for name in ("log_prior", "log_q")}
        )

    return change


BREACHES = {
    "no posterior": (lambda c: c.pop("posterior"), "group 'posterior' is needed"),
    "no layers": (lambda c: c.pop("layers"), "group 'layers' is needed"),
    "foreign": (drop_attr("wiu_schema"), "attribute 'wiu_schema'.*not written by wiu_pyro.save"),
    "other version": (set_attr("posterior", "wiu_schema", "9"), "Schema version 1 is needed.*version 9"),
    "attribute missing": (drop_attr("num_data"), "needs the attribute 'num_data'"),
    "odd convergence": (set_attr("posterior", "converged", "perhaps"), "'converged' must be one of.*'perhaps'"),
    "text and numbers": (set_attr("layers", "note", ["a", 1]), "attribute 'note' of 'layers'"),
    "truth value": (set_attr("posterior", "exact", True), "attribute 'exact'.*as 0 or 1"),
    "word of ArviZ": (rename_group("training", "training_data"), "'data' in its name.*'training_data'"),
    "variable missing": (
        replace("posterior", lambda d: d.rename(deviation_rms="spread")),
        "needs the variable 'deviation_rms'",
    ),
    "dims swapped": (
        replace("training", lambda d: d.transpose("epoch", "chain", ...)),
        r"'loss' of group 'training' needs the dims",
    ),
    "loose coordinate": (
        replace("layer_fc1", lambda d: d.assign_coords(unit=("fc1_out", np.arange(4)))),
        "'unit' is one that indexes no dim",
    ),
    "layers renamed": (
        replace("posterior", lambda d: d.assign_coords(layer=["fc1", "last"])),
        "layers of group 'posterior' must be those of group 'layers'",
    ),
    "layer twice": (
        lambda c: c.update({g: c[g].assign_coords(layer=["fc1", "fc1"]) for g in ("layers", "posterior")}),
        "unique layer names",
    ),
    "draws missing": (lambda c: c.pop("layer_out"), "missing or extra: layer_out"),
    "moments extra": (lambda c: c.update(moments_more=c["moments_out"]), "missing or extra: moments_more"),
    "moments unmarked": (lambda c: c["moments_fc1"].attrs.pop("moments"), "moments='exact'|'estimated'"),
    "sd missing": (replace("moments_fc1", lambda d: d.drop_vars("sd")), "needs the variable 'sd' beside 'mean'"),
    "moments transposed": (
        replace("moments_fc1", lambda d: d.assign(sd=d.sd.transpose("fc1_in", "fc1_out", "chain"))),
        "'sd' of group 'moments_fc1' needs the dims",
    ),
    "count": (spoil("layers", "num_weights", 3), "moments of all 3 weights"),
    "moments in float64": (
        replace("moments_fc1", lambda d: d.assign(mean=d["mean"].astype("float64"))),
        "'mean' of group 'moments_fc1' needs float32",
    ),
    "not finite": (spoil("layer_out", "bias", np.nan), "'bias' of group 'layer_out' must be finite, but 1 of"),
    "negative sd": (spoil("moments_out", "bias_sd", -1), "'bias_sd'.*at least 0, but the smallest is -1"),
    "no prior sd": (spoil("moments_out", "prior_sd", 0), "'prior_sd'.*above 0"),
    "draws of another layer": (
        replace("layer_fc1", lambda d: d.rename(weight="kernel")),
        "needs draws of weight, bias",
    ),
    "texts over weights": (
        replace("layer_fc1", lambda d: d.assign_coords(fc1_in=[str(i) for i in range(6)])),
        "must be integers.*'fc1_in'",
    ),
    "no coordinate": (replace("layer_fc1", lambda d: d.drop_vars("fc1_in")), "'fc1_in'.*needs an integer coordinate"),
    "fewer draws": (replace("layer_fc1", lambda d: d.isel(draw=slice(3))), "same draws as group 'posterior'"),
    "deviation": (spoil("posterior", "deviation_rms", np.inf), "'deviation_rms'.*must be finite"),
    "float32 sums": (add_sample_stats("float32", 0), "needs float64"),
    "log prior": (add_sample_stats("float64", np.nan), "'log_prior'.*must not be NaN"),
}


@pytest.mark.parametrize(("change", "message"), BREACHES.values(), ids=BREACHES)
def test_a_breach_is_named(change: Callable[[Groups], Any], message: str) -> None:
    content = small()
    change(content)
    with pytest.raises(SchemaError, match=message):
        validate(build(content))


def test_a_subset_needs_the_shape_of_the_whole() -> None:
    content = small(max_weights_per_layer=10)
    content["layer_fc1"].weight.attrs["shape"] = [24]
    with pytest.raises(SchemaError, match=r"attribute shape=\[4, 6\].*has \[24\]"):
        validate(build(content))


def test_a_subset_needs_sorted_indices_into_the_weight() -> None:
    content = small(max_weights_per_layer=3)
    content["layer_fc1"] = content["layer_fc1"].assign_coords(fc1_weight=[5, 2, 90])
    with pytest.raises(SchemaError, match="sorted, unique flat indices into a weight of 24"):
        validate(build(content))


def test_a_slash_in_a_group_name_is_refused() -> None:
    content = small()
    content["layer_a/b"] = content["layer_fc1"]
    with pytest.raises(SchemaError, match="without '/' is needed.*'layer_a/b'"):
        build(content)


def test_something_else_is_no_posterior() -> None:
    with pytest.raises(SchemaError, match="this is a dict"):
        validate({"posterior": 1})


def test_layers_come_in_the_order_of_the_network() -> None:
    assert layer_names(synthetic(layers=CONV_LAYERS).idata) == ["features.0", "classifier"]
