"""How a layer's parameters are laid out: names of their dims, and which weights of a large layer are exported."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from wiu_pyro.nn import Layer

__all__ = ["Parameter", "layer_parameters"]

# Ends of the dim names of a weight, by its number of axes; axis 0 is the output, as in Linear and Conv.
ENDS = {
    1: ("out",),
    2: ("out", "in"),
    3: ("out", "in", "kw"),
    4: ("out", "in", "kh", "kw"),
    5: ("out", "in", "kd", "kh", "kw"),
}
INPUT_FIRST = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Embedding", "EmbeddingBag")


@dataclass(frozen=True)
class Parameter:
    """One sampled parameter of a layer and where its values stand in the file.

    Attributes
    ----------
    layer, name, site : str
        For example ``"fc1"``, ``"weight"``, ``"fc1.weight"``.
    shape : tuple of int
    dims : tuple of str
        Names of the axes of the whole parameter.
    subset : ndarray of int or None
        Sorted flat indices of the exported draws; None where all are exported.
    """

    layer: str
    name: str
    site: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    subset: np.ndarray | None

    @property
    def prefix(self) -> str:
        """What stands before the names of its moments: nothing for the weight, ``"bias_"`` for the bias."""
        return "" if self.name == "weight" else f"{self.name}_"

    @property
    def draw_dims(self) -> tuple[str, ...]:
        """Names of the axes of one exported draw."""
        return self.dims if self.subset is None else (f"{self.layer}_{self.name}",)

    @property
    def draw_shape(self) -> tuple[int, ...]:
        """Shape of one exported draw."""
        return self.shape if self.subset is None else self.subset.shape


def layer_parameters(layer: Layer, *, max_weights: int | None, subset_seed: int = 0) -> list[Parameter]:
    """Return the parameters of a layer with their dims and subsets.

    Parameters
    ----------
    layer : Layer
    max_weights : int or None
        A parameter with more entries is exported as a random subset of this many; None exports all.
    subset_seed : int
        Chooses the subset together with the parameter's name and size, and with nothing else: runs of several seeds
        export the same weights.

    Returns
    -------
    list of Parameter
    """
    sizes: dict[str, int] = {}
    found = []
    for name, site in layer.sites.items():
        shape = tuple(layer.shapes[name])
        dims = _dims(layer, name, shape)
        if any(sizes.get(dim, size) != size for dim, size in zip(dims, shape, strict=True)):
            dims = tuple(f"{layer.name}_{name}_dim{axis}" for axis in range(len(shape)))
        sizes |= dict(zip(dims, shape, strict=True))
        subset = _subset(f"{layer.name}.{name}", int(np.prod(shape)), max_weights, subset_seed)
        found.append(Parameter(layer.name, name, site, shape, dims, subset))
    return found


def _dims(layer: Layer, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    ends = tuple(f"{name}_dim{axis}" for axis in range(len(shape)))
    if name == "bias" and len(shape) == 1:
        ends = ("out",)
    elif name == "weight" and len(shape) in ENDS:
        ends = ENDS[len(shape)]
        if layer.module_type in INPUT_FIRST:
            ends = ("in", "out", *ends[2:])
    return tuple(f"{layer.name}_{end}" for end in ends)


def _subset(name: str, size: int, max_weights: int | None, seed: int) -> np.ndarray | None:
    if max_weights is None or size <= max_weights:
        return None
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), size])
    return np.sort(rng.choice(size, max_weights, replace=False, shuffle=False))
