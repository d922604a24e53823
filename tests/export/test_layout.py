"""Names of dims, and subsets of weights that stay the same over runs."""

from __future__ import annotations

import numpy as np
import pytest

from wiu_pyro.export.layout import layer_parameters
from wiu_pyro.nn import Layer


def layer(module_type: str, name: str = "fc1", **shapes: tuple[int, ...]) -> Layer:
    return Layer(name, module_type, {key: f"{name}.{key}" for key in shapes}, shapes, depth=0)


CASES = {
    "Linear": ({"weight": (3, 4), "bias": (3,)}, {"weight": "out in", "bias": "out"}),
    "Conv2d": ({"weight": (3, 4, 5, 5), "bias": (3,)}, {"weight": "out in kh kw", "bias": "out"}),
    "Conv1d": ({"weight": (3, 4, 5)}, {"weight": "out in kw"}),
    "BatchNorm2d": ({"weight": (3,), "bias": (3,)}, {"weight": "out", "bias": "out"}),
    "Embedding": ({"weight": (10, 4)}, {"weight": "in out"}),
    "ConvTranspose2d": ({"weight": (4, 3, 5, 5), "bias": (3,)}, {"weight": "in out kh kw", "bias": "out"}),
    "Bilinear": ({"weight": (3, 4, 5), "bias": (3,)}, {"weight": "out in kw", "bias": "out"}),
    "LSTM": ({"weight_ih_l0": (8, 4)}, {"weight_ih_l0": "weight_ih_l0_dim0 weight_ih_l0_dim1"}),
    "scalar": ({"weight": ()}, {"weight": ""}),
}


@pytest.mark.parametrize("module_type", CASES)
def test_dims_say_what_an_axis_is(module_type: str) -> None:
    shapes, expected = CASES[module_type]
    found = {p.name: p.dims for p in layer_parameters(layer(module_type, **shapes), max_weights=None)}
    assert found == {name: tuple(f"fc1_{end}" for end in ends.split()) for name, ends in expected.items()}


def test_axes_of_other_sizes_do_not_share_a_dim() -> None:
    weight, bias = layer_parameters(layer("ConvTranspose2d", weight=(4, 2, 3, 3), bias=(6,)), max_weights=None)
    assert weight.dims[1] == "fc1_out"
    assert bias.dims == ("fc1_bias_dim0",)


def test_a_large_weight_is_exported_as_sorted_unique_indices() -> None:
    weight, bias = layer_parameters(layer("Linear", weight=(30, 40), bias=(30,)), max_weights=100)
    assert weight.draw_dims == ("fc1_weight",)
    assert weight.draw_shape == (100,)
    assert np.all(np.diff(weight.subset) > 0)
    assert 0 <= weight.subset[0] <= weight.subset[-1] < 1200
    assert bias.subset is None


def test_a_large_bias_is_subset_on_its_own() -> None:
    weight, bias = layer_parameters(layer("Linear", weight=(30, 2), bias=(30,)), max_weights=20)
    assert (weight.draw_dims, bias.draw_dims) == (("fc1_weight",), ("fc1_bias",))


def test_the_subset_depends_on_the_layer_and_the_subset_seed_alone() -> None:
    def subset(name: str, seed: int) -> list[int]:
        (weight,) = layer_parameters(layer("Linear", name, weight=(30, 40)), max_weights=100, subset_seed=seed)
        return weight.subset.tolist()

    assert subset("fc1", 0) == subset("fc1", 0)
    assert subset("fc1", 0) != subset("fc1", 1)
    assert subset("fc1", 0) != subset("fc2", 0)


def test_the_subset_is_spread_evenly() -> None:
    (weight,) = layer_parameters(layer("Linear", weight=(1000, 100)), max_weights=10_000)
    counts = np.histogram(weight.subset, bins=10, range=(0, 100_000))[0]
    assert np.all(np.abs(counts - 1000) < 4 * np.sqrt(1000))
