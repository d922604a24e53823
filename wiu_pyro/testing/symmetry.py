"""Hidden units may change places, and with an odd activation their sign, and the network stays the same function.

A Markov chain may wander between such copies of one mode; a Gaussian around a point estimate sits in one of them. To
set both side by side, each draw is moved to the copy nearest to the mode: for each hidden layer an assignment of units
(Kuhn 1955), repeated over the layers until nothing changes (Ainsworth et al. 2023, section 3.2). Which symmetries a
network has is tried out on its own outputs.

References
----------
Kuhn (1955), The Hungarian method for the assignment problem.
Ainsworth, Hayase and Srinivasa (2023), Git Re-Basin: merging models modulo permutation symmetries.
Chen, Lu and Hecht-Nielsen (1993), On the geometry of feedforward neural network error surfaces (tanh: signs as well).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment

from wiu_pyro.testing.log_joint import LogJoint

__all__ = ["Alignment", "HiddenUnits", "align", "hidden_units"]

TOLERANCE = 1e-4  # relative, of outputs that count as the same
ROUNDS = 20


@dataclass(frozen=True)
class HiddenUnits:
    """The interchangeable units between two dense layers.

    Attributes
    ----------
    layer : str
        The layer whose outputs they are.
    incoming : tuple of str
        Sites with a row for each unit: weight and, where there is one, bias.
    outgoing : str
        Site with a column for each unit.
    size : int
    signs : bool
        Whether a unit may change its sign: an odd activation.
    """

    layer: str
    incoming: tuple[str, ...]
    outgoing: str
    size: int
    signs: bool

    def moved(
        self, values: Mapping[str, torch.Tensor], order: torch.Tensor, sign: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return draws with their units rearranged.

        Parameters
        ----------
        values : mapping of site to Tensor, shape (draw, *shape)
        order : Tensor of int, shape (draw, size)
            Which unit comes to each place.
        sign : Tensor, shape (draw, size)
            What the unit at each place is multiplied by: 1 or -1.

        Returns
        -------
        dict of site to Tensor
        """
        found = dict(values)
        for site in self.incoming:
            value = values[site]
            shape = (*order.shape, *[1] * (value.dim() - 2))
            index = order.view(shape).expand(value.shape)
            found[site] = value.gather(1, index) * sign.view(shape).to(value)
        value = found[self.outgoing]  # (draw, out, size)
        index = order[:, None, :].expand(value.shape)
        found[self.outgoing] = value.gather(2, index) * sign[:, None, :].to(value)
        return found


@dataclass(frozen=True)
class Alignment:
    """How each draw was moved.

    Attributes
    ----------
    steps : tuple of (HiddenUnits, Tensor, Tensor)
        Units, order and sign, as `HiddenUnits.moved` takes them.
    num_draws : int
    """

    steps: tuple[tuple[HiddenUnits, torch.Tensor, torch.Tensor], ...]
    num_draws: int

    @property
    def moved(self) -> torch.Tensor:
        """Which draws were not in the mode's own copy, (draw,)."""
        found = torch.zeros(self.num_draws, dtype=torch.bool)
        for units, order, sign in self.steps:
            found |= ((order != torch.arange(units.size)) | (sign < 0)).any(1)
        return found

    def where(self, chosen: torch.Tensor, other: Alignment) -> Alignment:
        """Return this alignment for the draws chosen, (draw,), and the other one for the rest."""
        pick = chosen[:, None]
        steps = [
            (units, torch.where(pick, order, orders), torch.where(pick, sign, signs))
            for (units, order, sign), (_, orders, signs) in zip(self.steps, other.steps, strict=True)
        ]
        return Alignment(tuple(steps), self.num_draws)

    def apply(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return values by site, (draw, *shape), moved with the draws: weights, or gradients with respect to them."""
        found = dict(values)
        for units, order, sign in self.steps:
            found = units.moved(found, order, sign)
        return found


def hidden_units(log_joint: LogJoint, mode: torch.Tensor) -> list[HiddenUnits]:
    """Return the interchangeable units of a network, as its own outputs and priors show them.

    Parameters
    ----------
    log_joint : LogJoint
    mode : Tensor, shape (num_weights,)
        Where it is tried.

    Returns
    -------
    list of HiddenUnits
        Of pairs of dense layers in a row; empty where there are none.
    """
    found = []
    layers = log_joint.structure.layers
    for first, second in zip(layers, layers[1:]):
        shapes = first.shapes.get("weight", ()), second.shapes.get("weight", ())
        if not all(len(shape) == 2 for shape in shapes) or shapes[0][0] != shapes[1][1] or shapes[0][0] < 1:
            continue
        incoming, size = tuple(first.sites.values()), shapes[0][0]
        units = {
            signs: HiddenUnits(first.name, incoming, second.sites["weight"], size, signs) for signs in (False, True)
        }
        roll = torch.arange(size).roll(1)[None]
        if _is_symmetry(log_joint, mode, units[True], torch.arange(size)[None], -torch.ones(1, size)):
            found.append(units[True])
        elif _is_symmetry(log_joint, mode, units[False], roll, torch.ones(1, size)):
            found.append(units[False])
    return found


def _is_symmetry(
    log_joint: LogJoint, mode: torch.Tensor, units: HiddenUnits, order: torch.Tensor, sign: torch.Tensor
) -> bool:
    """Return whether the network, and the prior's density, stay as they are when units are rearranged so."""
    with torch.no_grad():
        scattered = mode + 0.1 * log_joint.prior_scale * torch.linspace(-1, 1, len(mode)).to(mode)
        other = log_joint.flat(units.moved(log_joint.by_site(scattered[None]), order, sign))[0]
        before, after = (log_joint.output(weights, log_joint.data[0][:8]) for weights in (scattered, other))
        normal = torch.distributions.Normal(log_joint.prior_loc, log_joint.prior_scale)
        densities = [normal.log_prob(weights).sum() for weights in (scattered, other)]
        same = torch.allclose(before, after, rtol=TOLERANCE, atol=TOLERANCE * float(before.abs().max()))
        return same and torch.allclose(*densities, rtol=TOLERANCE)


def align(
    samples: Mapping[str, torch.Tensor], mode: Mapping[str, torch.Tensor], *, units: list[HiddenUnits], scale: Mapping
) -> Alignment:
    """Return how to move each draw to the copy of it that is nearest to the mode.

    Parameters
    ----------
    samples : mapping of site to Tensor, shape (draw, *shape)
    mode : mapping of site to Tensor
    units : list of HiddenUnits
        None leaves the draws where they are.
    scale : mapping of site to Tensor
        Prior sds, in which distances are measured.

    Returns
    -------
    Alignment
    """
    relative = {site: value / scale[site] for site, value in samples.items()}
    target = {site: value / scale[site] for site, value in mode.items()}
    found = _descended(relative, target, units, forward=False)
    if len(units) > 1:
        # with several hidden layers a descent may end in a copy that is not the nearest: the nearer of two is taken
        other = _descended(relative, target, units, forward=True)
        distances = [_distance(one.apply(relative), target) for one in (found, other)]
        found = found.where(distances[0] <= distances[1], other)
    return found


def _distance(samples: Mapping[str, torch.Tensor], mode: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([(samples[site] - mode[site]).flatten(1).square().sum(1) for site in mode]).sum(0)


def _descended(
    samples: Mapping[str, torch.Tensor], mode: Mapping[str, torch.Tensor], units: list[HiddenUnits], *, forward: bool
) -> Alignment:
    """Return an alignment in which no layer alone can be moved nearer to the mode.

    Parameters
    ----------
    samples, mode : mapping of site to Tensor
    units : list of HiddenUnits
    forward : bool
        Begin at the copy that the weights into each layer alone would choose, from the inputs on.

    Returns
    -------
    Alignment
    """
    num_draws, current = len(next(iter(samples.values()))), dict(samples)
    moves = {
        one.layer: (torch.arange(one.size).expand(num_draws, -1), torch.ones(num_draws, one.size)) for one in units
    }
    rounds = [True] * forward + [False] * (ROUNDS if len(units) > 1 else len(units))
    for incoming_only in rounds:
        changed = False
        for one in units:
            order, sign = _assignment(one, current, mode, incoming_only=incoming_only)
            if bool(((order != torch.arange(one.size)) | (sign < 0)).any()):
                changed, current = True, one.moved(current, order, sign)
                before = moves[one.layer]
                moves[one.layer] = before[0].gather(1, order), before[1].gather(1, order) * sign
        if not changed and not incoming_only:
            break
    return Alignment(tuple((one, *moves[one.layer]) for one in units), num_draws)


def _assignment(
    units: HiddenUnits,
    samples: Mapping[str, torch.Tensor],
    mode: Mapping[str, torch.Tensor],
    *,
    incoming_only: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return order and sign of the units of each draw, (draw, size), that bring it nearest to the mode."""
    inner = torch.einsum("oi,doj->dij", mode[units.outgoing], samples[units.outgoing])
    if incoming_only:
        inner = torch.zeros_like(inner)
    for site in units.incoming:
        ours, theirs = mode[site].reshape(units.size, -1), samples[site].flatten(2) if samples[site].dim() > 2 else None
        theirs = samples[site][..., None] if theirs is None else theirs
        inner = inner + torch.einsum("ik,djk->dij", ours, theirs)  # (draw, mode's unit, draw's unit)
    gain = inner.abs() if units.signs else inner
    order = torch.stack([torch.as_tensor(linear_sum_assignment(one.numpy(), maximize=True)[1]) for one in gain.cpu()])
    chosen = inner.gather(2, order[..., None].to(inner.device))[..., 0]
    sign = torch.where(chosen < 0, -1.0, 1.0) if units.signs else torch.ones_like(chosen)
    return order, sign
