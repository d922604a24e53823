"""Laplace with one independent block per layer, each layer in the structure asked for; the rest at a point estimate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from typing_extensions import override

from wiu_pyro.curvature import STRUCTURES, KroneckerFactors, LayerCurvature, LayerRule, MatrixRule, bytes_in_words
from wiu_pyro.errors import CostError, GuideError, near_matches
from wiu_pyro.guides.block_normal import AutoBlockNormal, CurvatureRecord
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.captured import fill_parts
from wiu_pyro.guides.cost import LayerCost, layer_cost
from wiu_pyro.guides.data_pass import DataPass
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.nn import ModelStructure

__all__ = ["POINT", "AutoLaplace", "choose_structures", "matching_layers"]

POINT = "point"  # a layer that stays at its point estimate
FALLBACK = "diagonal"  # for a layer that the structure asked for does not cover


def choose_structures(asked: str | Mapping[str, str], structure: ModelStructure) -> dict[str, str]:
    """Return the structure of each layer.

    Parameters
    ----------
    asked : str or mapping of pattern to str
        One structure for all layers; or by layer name with ``*`` and ``?``, the first match wins, and a layer that none
        matches stays at its point estimate.
    structure : ModelStructure

    Returns
    -------
    dict of str to str

    Raises
    ------
    GuideError
        If a structure is unknown, a pattern matches no layer, or every layer is left at its point estimate.
    """
    patterns = {"*": asked} if isinstance(asked, str) else dict(asked)
    known = [*STRUCTURES, POINT]
    for pattern, wanted in patterns.items():
        if wanted not in known:
            raise GuideError(f"Unknown structure '{wanted}' for '{pattern}'. {near_matches(wanted, known)}")
    matching_layers(patterns, structure)
    chosen = {
        layer.name: next((wanted for pattern, wanted in patterns.items() if fnmatchcase(layer.name, pattern)), POINT)
        for layer in structure.layers
    }
    if all(wanted == POINT for wanted in chosen.values()):
        raise GuideError('At least one layer needs a posterior, but all are left at "point". Give one a structure.')
    return chosen


def matching_layers(patterns: Iterable[str], structure: ModelStructure) -> tuple[str, ...]:
    """Return the names of the layers that any of the patterns matches, in the model's order.

    Parameters
    ----------
    patterns : iterable of str
        Layer names, with ``*`` and ``?``.
    structure : ModelStructure

    Returns
    -------
    tuple of str

    Raises
    ------
    GuideError
        If there is no pattern, or one matches no layer.
    """
    patterns, names = list(patterns), [layer.name for layer in structure.layers]
    if not patterns:
        raise GuideError(f"At least one layer is needed, but none was named. The network has {', '.join(names)}.")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise GuideError(
                f"A name or pattern must match a layer, but '{pattern}' matches none. {near_matches(pattern, names)}"
            )
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


class AutoLaplace(LaplaceGuide):
    """Laplace approximation with one block per layer, each in its own structure.

    Parameters
    ----------
    model : callable
        A Pyro model whose weights have Normal priors.
    structure : str or mapping of pattern to str
        ``"kfac"``, ``"ekfac"``, ``"diagonal"``, ``"full"`` or ``"point"`` for all layers or by layer name, as
        ``{"features*": "kfac", "classifier.6": "full"}``: the first match wins, and layers that none matches stay at
        their point estimate. A layer that Kronecker factors do not cover gets a diagonal.
    **options
        As for `LaplaceGuide`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), num_data=8).eval()
    >>> guide = AutoLaplace(model, structure={"2": "full"})
    >>> posterior = guide.laplace_approximation(torch.ones(8, 4), torch.zeros(8).long())
    >>> [(block.layers, block.structure) for block in posterior.blocks]
    [(('2',), 'full')]
    """

    cli_name = ""
    structure_name = ""  # that of its blocks, or "mixed"

    def __init__(
        self, model: Callable[..., Any], *, structure: str | Mapping[str, str] = "kfac", **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.asked_structure = structure

    def chosen_structures(self) -> dict[str, str]:
        """Return the structure of each layer, after one look at the model."""
        return choose_structures(self.asked_structure, self.structure)

    @override
    def covered_layers(self) -> tuple[str, ...]:
        return tuple(name for name, wanted in self.chosen_structures().items() if wanted != POINT)

    def _curvatures(self) -> dict[str, LayerCurvature]:
        """Return an empty curvature for each layer with a posterior."""
        chosen = self.chosen_structures()
        return {name: self._curvature(rule, chosen[name]) for name, rule in self.layer_rules().items()}

    def _curvature(self, rule: LayerRule, asked: str) -> LayerCurvature:
        kind = STRUCTURES[asked] if STRUCTURES[asked].covers(rule) else STRUCTURES[FALLBACK]
        if issubclass(kind, KroneckerFactors) and self.config.wide == "diagonal" and self._is_wide(rule):
            kind = STRUCTURES[FALLBACK]
        if issubclass(kind, KroneckerFactors):
            return kind(rule, weight_sharing=self.config.weight_sharing)
        return kind(rule)

    def _is_wide(self, rule: LayerRule) -> bool:
        return isinstance(rule, MatrixRule) and max(rule.in_features, rule.out_features) > self.config.max_factor_side

    def _wide_layers(self, curvatures: Mapping[str, LayerCurvature]) -> list[str]:
        """Return the layers whose Kronecker factors would be larger than allowed."""
        chosen = self.chosen_structures()
        return [
            name
            for name, one in curvatures.items()
            if issubclass(STRUCTURES[chosen[name]], KroneckerFactors) and self._is_wide(one.rule)
        ]

    def _name_wide(self, curvatures: Mapping[str, LayerCurvature]) -> None:
        """Say which layers are too wide for Kronecker factors, as a warning or an error."""
        for name in self._wide_layers(curvatures):
            rule = curvatures[name].rule
            side = max(rule.in_features, rule.out_features)
            asked = self.chosen_structures()[name]
            scratch = KroneckerFactors.scratch_bytes(rule)
            message = (
                f"Kronecker factors of up to {self.config.max_factor_side:,} rows are taken, but layer '{name}' needs "
                f"{side:,}: {bytes_in_words(scratch)} and a long time to decompose"
            )
            if self.config.wide == "error":
                raise CostError(
                    f'{message}. Use wide="diagonal", or structure={{"{name}": "diagonal", "*": "{asked}"}} of '
                    f"AutoLaplace; or raise max_factor_side."
                )
            if self.config.wide == "diagonal":
                warnings.warn(
                    f"{message}. It gets its exact diagonal instead; max_factor_side={side} gives it its factors.",
                    stacklevel=2,
                )

    @override
    def planned_blocks(self) -> tuple[LayerCost, ...]:
        curvatures = self._curvatures()
        wide, itemsize = self._wide_layers(curvatures), self.loc.element_size()
        notes = {name: f"wide: not {self.chosen_structures()[name]}" for name in wide if self.config.wide == "diagonal"}
        return tuple(
            layer_cost(name, one, itemsize=itemsize, note=notes.get(name, "")) for name, one in curvatures.items()
        )

    @override
    def what_fits(self, block: str) -> str:
        curvatures, most = self._curvatures(), self.max_bytes()
        size, chosen = self.loc.element_size(), self.chosen_structures()
        asked = next((wanted for name, wanted in chosen.items() if name != block), chosen[block])
        rest = sum(one.num_elements(one.rule) * size for name, one in curvatures.items() if name != block)
        rule = curvatures[block].rule
        for structure in ("kfac", FALLBACK):
            kind = STRUCTURES[structure]
            needed = kind.num_elements(rule) * size + kind.scratch_bytes(rule) if kind.covers(rule) else most
            if curvatures[block].structure != structure and rest + needed <= most:
                return (
                    f'"{structure}" fits there, with {bytes_in_words(needed)}: AutoLaplace(model, structure='
                    f'{{"{block}": "{structure}", "*": "{asked}"}}). Or raise max_bytes.'
                )
        return "Keep layers at their point estimate (AutoLastLayerLaplace), or raise max_bytes."

    @override
    def new_parts(self) -> dict[str, LayerCurvature]:
        return self._curvatures()

    def _name_uncovered(self, curvatures: Mapping[str, LayerCurvature]) -> None:
        """Warn of layers that the structure asked for does not cover."""
        chosen = self.chosen_structures()
        types = {layer.name: layer.module_type for layer in self.structure.layers}
        found: dict[str, dict[str, list[str]]] = {}
        for name, curvature in curvatures.items():
            if not STRUCTURES[chosen[name]].covers(curvature.rule):
                found.setdefault(chosen[name], {}).setdefault(types[name], []).append(name)
        for asked, by_type in found.items():
            named = "; ".join(f"{kind} {', '.join(names)}" for kind, names in by_type.items())
            warnings.warn(
                f"{asked} covers Linear and convolutions that are called on data along the first dim. These layers get "
                f"their exact diagonal: {named}. To have no such warning, ask for it: "
                f'AutoLaplace(model, structure={{"NAME": "{FALLBACK}", "*": "{asked}"}}).',
                stacklevel=2,
            )

    def _blocks(self, posterior: AutoBlockNormal, data: DataPass) -> tuple[tuple[Block, ...], CurvatureRecord]:
        curvatures = self._curvatures()
        sites = self.structure.layer_sites
        index = {name: posterior.layer_index(one.rule, sites[name]) for name, one in curvatures.items()}
        prior_precision = posterior.flat_prior().scale.square().reciprocal()
        for name, curvature in curvatures.items():
            curvature.check_prior(name, prior_precision[index[name]])
        self._name_uncovered(curvatures)
        self._name_wide(curvatures)
        self.refuse_cost()
        rules = {name: curvature.rule for name, curvature in curvatures.items()}
        record = fill_parts(self, curvatures, rules=rules, data=data)
        blocks = []
        for name, curvature in curvatures.items():
            precision = curvature.precision(prior_precision[index[name]], scale=record.scale)
            blocks.append(Block((name,), curvature.structure, precision, index[name], {name: curvature.rule}))
        return tuple(blocks), record
