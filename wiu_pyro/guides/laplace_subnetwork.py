"""Subnetwork Laplace: a posterior over chosen single weights, all others at their point estimate.

Daxberger et al. (2021), Bayesian Deep Learning via Subnetwork Inference: the weights of largest marginal variance under
a diagonal Laplace approximation, with a full covariance between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from typing_extensions import override

from wiu_pyro.curvature import DiagonalCurvature, FullCurvature, LayerRule
from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.block_normal import AutoBlockNormal, CurvatureRecord
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.captured import fill_parts
from wiu_pyro.guides.cost import LayerCost, full_cost
from wiu_pyro.guides.data_pass import DataPass
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.linalg import DensePrecision, DiagonalPrecision

__all__ = ["AutoSubnetworkLaplace"]

CRITERIA = ("largest-variance", "largest-magnitude")
STRUCTURES = ("full", "diagonal")
DEFAULT_FRACTION = 0.01


class AutoSubnetworkLaplace(LaplaceGuide):
    """Laplace approximation over chosen single weights of a network.

    The variance by which weights are chosen is in units of the weight: under priors of different scales it prefers
    the wide ones (under `FanInNormal` the biases). Weights that never shape the output, such as those of pixels that
    are always black, have the variance of the prior; they are chosen last. Other parameters and errors are those of
    `LaplaceGuide`.

    Parameters
    ----------
    model : callable
        A Pyro model whose weights have Normal priors.
    num_weights : int, optional
        How many weights get a posterior.
    fraction : float, optional
        The same as a share of all weights; 0.01 where neither is given.
    select : {"largest-variance", "largest-magnitude"} or mapping of str to Tensor of bool
        By the marginal variance of a diagonal Laplace approximation, which takes a pass over the data of its own; by
        the size of the point estimate; or a mask for each site that has weights to choose, of the site's shape.
    structure : {"full", "diagonal"}
        Of the posterior over the chosen weights.
    **options
        As for `LaplaceGuide`; `max_bytes` bounds the float64 matrices of a full structure.

    Raises
    ------
    GuideError
        If `select` or `structure` is unknown, the number of weights is given twice, beside a mask, or is not positive.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), num_data=8).eval()
    >>> guide = AutoSubnetworkLaplace(model, num_weights=6, select="largest-magnitude")
    >>> posterior = guide.laplace_approximation(torch.ones(8, 4), torch.zeros(8).long())
    >>> int((posterior.get_posterior().variance > 0).sum())
    6
    """

    cli_name = "laplace-subnetwork"
    structure_name = ""

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        num_weights: int | None = None,
        fraction: float | None = None,
        select: str | Mapping[str, torch.Tensor] = CRITERIA[0],
        structure: str = "full",
        **options: Any,
    ) -> None:
        if structure not in STRUCTURES:
            raise GuideError(f"Unknown structure '{structure}'. {near_matches(structure, STRUCTURES)}")
        _check_choice(num_weights, fraction, select)
        super().__init__(model, **options)
        self.num_weights, self.fraction = num_weights, fraction
        self.select, self.asked_structure = select, structure

    def count(self) -> int:
        """Return how many weights get a posterior, after one look at the model.

        Returns
        -------
        int

        Raises
        ------
        GuideError
            If the network has fewer.
        """
        if not isinstance(self.select, str):
            return sum(int(mask.sum()) for mask in self._masks().values())
        total = sum(layer.num_weights for layer in self.structure.layers)
        if self.num_weights is None:
            return max(1, round((self.fraction or DEFAULT_FRACTION) * total))
        if self.num_weights > total:
            raise GuideError(
                f"A subnetwork of {self.num_weights:,} weights was asked for, but the network has {total:,}. "
                "Pass a smaller num_weights."
            )
        return self.num_weights

    @override
    def refuse_model(self) -> None:
        super().refuse_model()
        self.count()

    @override
    def planned_blocks(self) -> tuple[LayerCost, ...]:
        if self.asked_structure == "full":
            return (full_cost("chosen weights", self.count()),)
        size = self.loc.element_size()
        return (LayerCost("chosen weights", "diagonal", self.count(), 2 * size * self.latent_dim),)

    @override
    def what_fits(self, block: str) -> str:
        if self.asked_structure == "diagonal":
            return "Use AutoLastLayerLaplace, or raise max_bytes."
        one = full_cost(block, 1)
        fits = int((self.max_bytes() / (one.memory_bytes + one.scratch_bytes)) ** 0.5)
        return f"Use num_weights={fits}, structure='diagonal', or raise max_bytes."

    def _blocks(self, posterior: AutoBlockNormal, data: DataPass) -> tuple[tuple[Block, ...], CurvatureRecord]:
        self.refuse_cost()
        rules, index = self.layer_rules(), self._index(posterior)
        prior = posterior.flat_prior().scale.square().reciprocal()
        diagonals: dict[str, DiagonalCurvature] = {}
        if self.select == "largest-variance":
            diagonals, record = self._diagonals(rules, data)
            variance = torch.zeros_like(posterior.loc)
            for name, one in diagonals.items():
                found = (one.diagonal * record.scale + prior[index[name]]).reciprocal()
                variance[index[name]] = torch.where(one.diagonal > 0, found, -found)  # without a say: last
            chosen = _largest(variance, self.count())
        elif self.select == "largest-magnitude":
            chosen = _largest(posterior.loc.abs(), self.count())
        else:
            chosen = torch.cat([self._masks()[name].reshape(-1) for name, *_ in posterior.sites()])
        entries = {name: chosen.to(places.device)[places].nonzero()[:, 0] for name, places in index.items()}
        entries = {name: found for name, found in entries.items() if len(found)}
        rules = {name: rules[name] for name in entries}
        if self.asked_structure == "full":
            return self._full(posterior, data, rules=rules, entries=entries)
        if not diagonals:
            diagonals, record = self._diagonals(rules, data)
        blocks = []
        for name, found in entries.items():
            places = index[name][found]
            precision = DiagonalPrecision(diagonals[name].diagonal[found] * record.scale, prior[places])
            blocks.append(Block((name,), "diagonal", precision, places, {name: rules[name]}, found))
        return tuple(blocks), record

    def _full(
        self,
        posterior: AutoBlockNormal,
        data: DataPass,
        *,
        rules: dict[str, LayerRule],
        entries: dict[str, torch.Tensor],
    ) -> tuple[tuple[Block, ...], CurvatureRecord]:
        """Return one block over the chosen entries of all layers together."""
        full, index = FullCurvature(rules, entries), self._index(posterior)
        record = fill_parts(self, {"chosen weights": full}, rules=rules, data=data)
        places = torch.cat([index[name][found] for name, found in entries.items()])
        prior = posterior.flat_prior().scale[places].double().square().reciprocal()
        precision = DensePrecision(full.matrix * record.scale, prior, dtype=posterior.loc.dtype)
        starts = itertools.accumulate((rule.numel for rule in rules.values()), initial=0)
        joined = torch.cat([entries[name] + start for name, start in zip(rules, starts, strict=False)])
        return (Block(tuple(rules), "full", precision, places, rules, joined),), record

    def _diagonals(
        self, rules: dict[str, LayerRule], data: DataPass
    ) -> tuple[dict[str, DiagonalCurvature], CurvatureRecord]:
        """Go through the data for the exact diagonal of the curvature of each layer."""
        diagonals = {name: DiagonalCurvature(rule) for name, rule in rules.items()}
        return diagonals, fill_parts(self, diagonals, rules=rules, data=data)

    def _index(self, posterior: AutoBlockNormal) -> dict[str, torch.Tensor]:
        sites = self.structure.layer_sites
        return {name: posterior.layer_index(rule, sites[name]) for name, rule in self.layer_rules().items()}

    def _masks(self) -> dict[str, torch.Tensor]:
        """Return the mask of each site, none of whose weights are chosen where the user gave none."""
        given = dict(self.select) if isinstance(self.select, Mapping) else {}
        shapes = {site: layer.shapes[name] for layer in self.structure.layers for name, site in layer.sites.items()}
        for site, mask in given.items():
            if site not in shapes:
                raise GuideError(f"select has a mask for '{site}', which is no site. {near_matches(site, shapes)}")
            if tuple(mask.shape) != tuple(shapes[site]) or mask.dtype != torch.bool:
                raise GuideError(
                    f"The mask of site '{site}' must be of bool and of shape {tuple(shapes[site])}, but is of "
                    f"{str(mask.dtype).removeprefix('torch.')} and of shape {tuple(mask.shape)}. Begin with "
                    "torch.zeros_like(weight, dtype=torch.bool)."
                )
        if not any(bool(mask.any()) for mask in given.values()):
            raise GuideError(
                "At least one weight must be chosen, but the masks of select= choose none. Set some entries to True."
            )
        return {site: given.get(site, torch.zeros(shape, dtype=torch.bool)) for site, shape in shapes.items()}


def _largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return where the largest values are, as a mask."""
    mask = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    mask[values.topk(count).indices] = True
    return mask


def _check_choice(num_weights: int | None, fraction: float | None, select: str | Mapping[str, torch.Tensor]) -> None:
    if isinstance(select, str) and select not in CRITERIA:
        raise GuideError(f"Unknown select '{select}'. {near_matches(select, CRITERIA)}")
    given = [name for name, value in (("num_weights", num_weights), ("fraction", fraction)) if value is not None]
    if len(given) > 1 or (given and not isinstance(select, str)):
        raise GuideError(
            "The number of weights is needed once: as num_weights, as fraction, or by the masks of select=; got "
            f"{' and '.join(given)}{'' if isinstance(select, str) else ' beside masks'}. Leave the others out."
        )
    if (num_weights is not None and num_weights < 1) or (fraction is not None and not 0 < fraction <= 1):
        raise GuideError(
            f"num_weights must be at least 1 and fraction within (0, 1], got {given[0]}="
            f"{num_weights if fraction is None else fraction}. Pass for example fraction=0.01."
        )
