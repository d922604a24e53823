"""Last-layer Laplace: a posterior over the weights of the last layer, all others at their point estimate.

Kristiadi et al. (2020), Being Bayesian, Even Just a Bit, Fixes Overconfidence in ReLU Networks. The network below the
last layer is only run forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from typing_extensions import override

from wiu_pyro.curvature import MatrixRule, rule_for
from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.laplace_layers import POINT, AutoLaplace
from wiu_pyro.nn import weight_module

__all__ = ["AutoLastLayerLaplace"]

MOST_FULL = 6_000  # weights; above, a full matrix takes more than a gigabyte and more time than the training
STRUCTURES = ("auto", "full", "kfac", "ekfac", "diagonal")


class AutoLastLayerLaplace(AutoLaplace):
    """Laplace approximation of the last layer alone.

    The last layer is the one that the forward pass calls last, of those that multiply by a matrix: a normalisation
    behind it is not meant. Other parameters and errors are those of `LaplaceGuide`.

    Parameters
    ----------
    model : callable
        A Pyro model whose last layer has Normal priors; other layers may have any.
    structure : {"auto", "full", "kfac", "ekfac", "diagonal"}
        ``"auto"`` is full for a layer of up to 6,000 weights, else KFAC.
    **options
        As for `LaplaceGuide`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), num_data=8).eval()
    >>> posterior = AutoLastLayerLaplace(model).laplace_approximation(torch.ones(8, 4), torch.zeros(8).long())
    >>> [(block.layers, block.structure) for block in posterior.blocks]
    [(('2',), 'full')]
    """

    cli_name = "laplace-last"

    def __init__(self, model: Callable[..., Any], *, structure: str = "auto", **options: Any) -> None:
        if structure not in STRUCTURES:
            raise GuideError(f"Unknown structure '{structure}'. {near_matches(structure, STRUCTURES)}")
        super().__init__(model, structure=structure, **options)
        self._called: list[str] = []

    @override
    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        root = weight_module(self.model)
        with _recorded_calls(root, self._called):
            super()._setup_prototype(*args, **kwargs)

    @property
    def last_layer(self) -> str:
        """The name of the last layer, after one look at the model."""
        layers = {layer.name: layer for layer in self.structure.layers}
        called = [name for name in self._called if name in layers] or list(layers)
        matrices = [
            name for name in called if isinstance(rule_for(layers[name].module, layers[name].shapes), MatrixRule)
        ]
        return (matrices or called)[-1]

    @override
    def chosen_structures(self) -> dict[str, str]:
        last, wanted = self.last_layer, str(self.asked_structure)
        if wanted == "auto":
            (size,) = (layer.num_weights for layer in self.structure.layers if layer.name == last)
            wanted = "full" if size <= MOST_FULL else "kfac"
        return {layer.name: wanted if layer.name == last else POINT for layer in self.structure.layers}


@contextmanager
def _recorded_calls(root: nn.Module | None, called: list[str]) -> Iterator[None]:
    """Note the name of each module inside `root` when it is called."""
    called.clear()
    modules = {} if root is None else dict(root.named_modules())
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.append(name)) for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
