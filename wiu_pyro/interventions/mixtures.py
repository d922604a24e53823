"""Mixtures of two draws of a network, layer by layer: what the variance's origin is computed from.

Independent layers are exchanged one by one. Where layers are correlated, those of a set are drawn anew given the
others: with draws a and b of a joint Gaussian of precision Λ, b_S − Λ_SS⁻¹ Λ_S,−S (a_−S − b_−S) has that conditional
distribution. A linearised network has Gaussian outputs and needs no weights: its layers' parts of them are exchanged,
or split into what the others explain and the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from wiu_pyro.errors import CostError
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.gaussian import Gaussian, read_gaussian
from wiu_pyro.infer import Fit, draw_weights
from wiu_pyro.interventions.cut_blocks import are_independent, conditional_guide, layer_of
from wiu_pyro.interventions.linearised_sets import covariance_trace, draws_of, linearised_covariances, symmetric_root
from wiu_pyro.interventions.set_predictions import centred, held, outputs_at, responses
from wiu_pyro.linalg import DensePrecision
from wiu_pyro.metrics import Effects, path_effects, pick_freeze_costs, subset_effects
from wiu_pyro.nn import Batches

__all__ = ["MOST_CORRELATED", "linearised_effects", "sampled_effects"]

MOST_CORRELATED = 6_000  # weights of one block, whose precision is inverted for every set
Weights = dict[str, torch.Tensor]
Costs = dict[int, np.ndarray]  # by set: of the response and of the output


def sampled_effects(
    fit: Fit, batches: Batches, layers: Sequence[str], *, num_draws: int, most_exact: int, seed: int
) -> Iterator[tuple[Effects, Effects]]:
    """Yield the effects of layers on the variance of sampled networks' responses and outputs, a pair of draws each.

    Parameters
    ----------
    fit : Fit
        With a Gaussian guide.
    batches : Batches
        Images, over which variances are summed.
    layers : sequence of str
        Those with a posterior.
    num_draws : int
        Pairs of draws.
    most_exact : int
        Layers up to which all sets are gone through; with more, one random order of the layers for each pair.
    seed : int

    Yields
    ------
    tuple of Effects
        Of the responses (class probabilities), and of the outputs.

    Raises
    ------
    CostError
        If correlated layers have too many weights.
    """
    gaussian = read_gaussian(fit.guide, fit.structure)
    mix = _exchange(fit, layers) if are_independent(gaussian) else _Redrawn(fit, gaussian, layers)
    rng, parts = np.random.default_rng(seed), list(batches)
    draws = draw_weights(fit.guide, num_samples=2 * num_draws, seed=seed, batch=parts[0])
    with held(fit):
        for one in draws:
            other = next(draws)
            order = rng.permutation(len(layers)).tolist()
            exact = len(layers) <= most_exact
            numbers = range(2 ** len(layers)) if exact else _path_sets(order)
            found = [_outputs(fit, mix(one, other, number), parts) for number in numbers]
            tables = [np.stack([outputs[place] for outputs in found]) for place in (0, 1)]
            if exact and not isinstance(mix, _Redrawn):
                yield tuple(subset_effects(pick_freeze_costs(table)) for table in tables)
            else:
                costs = [_to_first(list(numbers), table) for table in tables]
                yield tuple(
                    subset_effects([one[number] for number in numbers]) if exact else path_effects(one, order)
                    for one in costs
                )


def _path_sets(order: Sequence[int]) -> list[int]:
    """Return the sets that one order of many layers needs: none, all, each start, each layer alone and left out."""
    every = (1 << len(order)) - 1
    starts = [sum(1 << one for one in order[:size]) for size in range(1, len(order))]
    alone = [1 << one for one in order]
    return list(dict.fromkeys([0, *starts, *alone, *(every ^ one for one in alone), every]))


def _to_first(numbers: Sequence[int], outputs: np.ndarray) -> dict[int, float]:
    """Return half the squared distance of each output from the first."""
    return {
        number: 0.5 * float(np.square(one - outputs[0]).sum()) for number, one in zip(numbers, outputs, strict=True)
    }


def _outputs(fit: Fit, weights: Weights, parts: Sequence[tuple[torch.Tensor, ...]]) -> tuple[np.ndarray, np.ndarray]:
    found = [outputs_at(fit, weights, part) for part in parts]
    outputs, kind = torch.cat([one.output for one in found]), found[0].kind
    return tuple(values.double().cpu().numpy() for values in (responses(kind, outputs), centred(kind, outputs)))


def _exchange(fit: Fit, layers: Sequence[str]) -> Callable[[Weights, Weights, int], Weights]:
    number = {layer: place for place, layer in enumerate(layers)}
    owner = {site: number.get(layer) for site, (layer, _) in fit.structure.parameter_sites.items()}

    def mix(one: Weights, other: Weights, chosen: int) -> Weights:
        found = {}
        for site, value in one.items():
            place = owner.get(site)
            if place is None:  # no weight, or one without a posterior
                found[site] = fit.point_estimate[site]
            else:
                found[site] = other[site] if chosen >> place & 1 else value
        return found

    return mix


class _Redrawn:
    """Draws anew the layers of a set given the others, by the joint Gaussian's precision."""

    def __init__(self, fit: Fit, gaussian: Gaussian, layers: Sequence[str]) -> None:
        self.fit, self.gaussian, self.layers = fit, gaussian, tuple(layers)
        names = [layer.name for layer in fit.structure.layers]
        owner = layer_of(gaussian, fit.structure)
        self.place = torch.full_like(owner, -1)
        for place, layer in enumerate(layers):
            self.place[owner == names.index(layer)] = place
        self.precisions = [_dense(block) for block in gaussian.blocks]

    def __call__(self, one: Weights, other: Weights, chosen: int) -> Weights:
        """Return `one` with the layers of a set drawn anew, `other` giving the noise."""
        a, b = self._deviation(one), self._deviation(other)
        mixed = a.clone()
        bits = torch.tensor([chosen >> place & 1 for place in range(len(self.layers))], device=a.device)
        for block, precision in zip(self.gaussian.blocks, self.precisions, strict=True):
            place = self.place[block.index]
            new = (place >= 0) & (bits[place.clamp(min=0)] == 1)
            if not new.any():
                continue
            kept, index = ~new, block.index
            drawn = b[index[new]]
            if kept.any():
                pull = precision[new][:, kept] @ (a - b)[index[kept]]
                drawn = drawn - torch.linalg.solve(precision[new][:, new], pull)
            mixed[index[new]] = drawn
        flat = self.gaussian.loc + mixed.to(self.gaussian.loc.dtype)
        moved = {site: flat[place].view(shape) for site, (place, shape) in self.gaussian.places.items()}
        owned = self.fit.structure.parameter_sites
        return self.fit.point_estimate | {site: value for site, value in moved.items() if site in owned}

    def _deviation(self, draw: Weights) -> torch.Tensor:
        flat = torch.empty_like(self.gaussian.loc)
        for site, (place, _) in self.gaussian.places.items():
            flat[place] = draw[site].reshape(-1)
        return (flat - self.gaussian.loc).detach().double()


def _dense(block: Block) -> torch.Tensor:
    numel = block.precision.numel
    if len(block.layers) > 1 and numel > MOST_CORRELATED:
        raise CostError(
            f"Effects of correlated layers need a precision of up to {MOST_CORRELATED:,} weights, but this has "
            f"{numel:,}. Use a posterior of independent layers, such as KFAC."
        )
    if isinstance(block.precision, DensePrecision):
        return (block.precision.factor @ block.precision.factor.mT).detach()
    every = torch.arange(numel, device=block.index.device)
    return torch.linalg.inv(block.precision.covariance_between(every, every).detach().double())


def linearised_effects(
    fit: Fit, batches: Batches, layers: Sequence[str], *, num_draws: int, most_exact: int, seed: int
) -> tuple[list[Effects], Effects]:
    """Return the effects of layers on the variance of a linearised network's responses and outputs.

    Parameters
    ----------
    fit : Fit
        With the guide of a Laplace approximation.
    batches : Batches
    layers : sequence of str
    num_draws, most_exact, seed : int
        As for `sampled_effects`.

    Returns
    -------
    response : list of Effects
        By draws, one of each pair.
    output : Effects
        In closed form; of independent layers first-order, total and Shapley effect are one number.

    Raises
    ------
    CostError
        If there are more correlated layers than sets can be gone through.
    """
    num = len(layers)
    independent = are_independent(read_gaussian(fit.guide, fit.structure))
    if not independent and num > most_exact:
        raise CostError(
            f"Effects of correlated layers go through all sets of up to {most_exact} layers, but there are {num}. "
            "Raise most_exact, or use a posterior of independent layers, such as KFAC."
        )
    numbers = [1 << place for place in range(num)] if independent else range(1, 2**num)
    sets = {str(number): _members(layers, number) for number in numbers}
    parts, found = linearised_covariances(fit, batches, sets, cut=conditional_guide)
    kind, mean = parts[0][0].kind, torch.cat([part[1] for part in parts])
    covariances = {number: found[str(number)] for number in numbers}
    traces = {number: float(covariance_trace(kind, one).double().sum()) for number, one in covariances.items()}
    if independent:
        own = np.array([traces[1 << place] for place in range(num)])
        output = Effects(own.sum(), own, own, own)
        drawn = _exchanged_outputs(kind, mean, [covariances[1 << place] for place in range(num)], most_exact)
    else:
        output = subset_effects([0.0, *(traces[number] for number in numbers)])
        drawn = _split_outputs(kind, mean, covariances, num)
    generator = torch.Generator().manual_seed(seed)
    return [drawn(generator) for _ in range(num_draws)], output


def _members(layers: Sequence[str], number: int) -> tuple[str, ...]:
    return tuple(layer for place, layer in enumerate(layers) if number >> place & 1)


def _exchanged_outputs(
    kind: str, mean: torch.Tensor, covariances: Sequence[torch.Tensor], most_exact: int
) -> Callable[[torch.Generator], Effects]:
    num, roots = len(covariances), [symmetric_root(one) for one in covariances]

    def drawn(generator: torch.Generator) -> Effects:
        parts = [next(draws_of(0 * mean, one, 2, generator)) for one in roots]  # (2, N, outputs) each
        order = torch.randperm(num, generator=generator).tolist()
        exact = num <= most_exact
        numbers = range(2**num) if exact else _path_sets(order)
        said = []
        for number in numbers:
            outputs = mean + sum(part[number >> place & 1] for place, part in enumerate(parts))
            said.append(responses(kind, outputs).double().cpu().numpy())
        table = np.stack(said)
        return subset_effects(pick_freeze_costs(table)) if exact else path_effects(_to_first(numbers, table), order)

    return drawn


def _split_outputs(
    kind: str, mean: torch.Tensor, left: dict[int, torch.Tensor], num: int
) -> Callable[[torch.Generator], Effects]:
    """Return draws of effects; `left` has the covariance of the outputs given all layers outside each set."""
    whole = left[2**num - 1]
    roots = [(symmetric_root(whole - one), symmetric_root(one)) for one in left.values()]

    def drawn(generator: torch.Generator) -> Effects:
        state, costs = generator.get_state(), [0.0]
        for explained, unknown in roots:
            generator.set_state(state)  # the same noise for every set
            known = next(draws_of(mean, explained, 1, generator))
            rest = next(draws_of(0 * mean, unknown, 2, generator))
            said = responses(kind, known + rest).double()
            costs.append(0.5 * float((said[0] - said[1]).square().sum()))
        return subset_effects(costs)

    return drawn
