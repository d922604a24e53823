"""Which columns of the GGN can be left out: of a trained classifier few (datum, column) pairs carry almost all of it.

What is left out of a layer's gradient factor is a sum of products g g', so its trace is the error in trace norm. The
columns kept are those above a norm at the output; which norm that is, batches that are taken whole tell: the first,
and one in `AUDIT_EVERY` after it. The later ones also tell what the norm chosen before them has lost. Of batches that
are not taken whole only the norms at the output are known: how much of these was left out, against the whole batches,
says whether they were alike. The error is thus measured on a part of the data and held against the rest, not bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

__all__ = ["ColumnTruncation", "Group"]

AUDIT_EVERY = 16  # batches
AUDITS_KEPT = 16  # the last, from which the norm is chosen
SAFETY = 0.5  # part of the tolerance that is used up where it was measured
SMALLEST_GROUP = 48  # data that go backwards together
MAX_ELEMENTS = 2**24  # of the columns looked at together


@dataclass(frozen=True)
class Group:
    """Data of a batch that need about as many columns.

    Attributes
    ----------
    rows : Tensor of int64, shape (size,)
        Their places in the batch.
    columns : Tensor, shape (columns, size, outputs)
        Their largest columns.
    """

    rows: torch.Tensor
    columns: torch.Tensor


@dataclass
class ColumnTruncation:
    """The choice of columns for one pass over the data.

    Attributes
    ----------
    tolerance : float
        Of the relative error of each layer's gradient factor, in trace norm; above 0. A layer that is differentiated
        directly shows no gradients of its own: there it is that of the columns at the output.
    lost : dict of str to float
        By layer, what was left out as a part of the trace: measured on whole batches that had no part in the choice,
        where there are any, else on those it was made with. Multiplied by how much more of the squared norms at the
        output was left out of the batches that were not taken whole, where that is more.
    num_columns, num_kept : int
        Columns of all data gone through, and of those how many went backwards.
    """

    tolerance: float
    num_columns: int = 0
    num_kept: int = 0
    threshold: float | None = None  # least squared norm at the output of what is kept
    _batches: int = 0
    _audits: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = field(default_factory=list)
    _in_force: float | None = None  # the threshold by which columns were left out last
    # lost, and all, of later audits by layer; and squared norms at the output: of these audits, and of other batches
    _sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    _seen: tuple[float, float] = (0.0, 0.0)
    _unseen: tuple[float, float] = (0.0, 0.0)
    _chosen: dict[str, float] = field(default_factory=dict)
    _chosen_output: float = 0.0

    @property
    def lost(self) -> dict[str, float]:
        """What was left out of each layer's trace, relative to it."""
        if self._sums:
            found = {layer: _share(*parts) for layer, parts in self._sums.items()}
            there = _share(*self._seen)
        else:
            found, there = dict(self._chosen), self._chosen_output
        elsewhere = _share(*self._unseen)
        if elsewhere <= there:
            return found
        return {layer: min(1.0, lost * elsewhere / there if there > 0 else elsewhere) for layer, lost in found.items()}

    def next_is_whole(self) -> bool:
        """Return whether the next batch is to be taken whole, and count it."""
        whole = self.threshold is None or self._batches % AUDIT_EVERY == 0
        self._batches += 1
        return whole

    def audit(self, norms: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> None:
        """Learn from a batch that was taken whole.

        Parameters
        ----------
        norms : Tensor, shape (columns, batch)
            Squared norms of the columns at the output.
        weights : mapping of str to Tensor, shape (columns, batch)
            By layer, squared norms of the gradients they became.
        """
        weights = {layer: each.double() for layer, each in weights.items()}
        if self._in_force is not None:
            dropped = norms < self._in_force
            for layer, each in weights.items():
                self._sums[layer] = _added(self._sums.get(layer, (0.0, 0.0)), each, dropped)
            self._seen = _added(self._seen, norms, dropped)
        self.num_columns += norms.numel()
        self.num_kept += norms.numel()
        self._audits = [*self._audits, (norms, weights)][-AUDITS_KEPT:]
        self._choose()

    def _choose(self) -> None:
        norms = torch.cat([norms.flatten() for norms, _ in self._audits])
        order = norms.argsort()
        worst = torch.zeros(len(norms), dtype=torch.float64, device=norms.device)
        parts = {}
        for layer in self._audits[0][1]:
            each = torch.cat([weights[layer].flatten() for _, weights in self._audits])[order]
            parts[layer] = each.cumsum(0) / each.sum().clamp_min(torch.finfo(torch.float64).tiny)
            worst = torch.maximum(worst, parts[layer])
        dropped = int((worst <= SAFETY * self.tolerance).sum())
        dropped = min(dropped, len(norms) - 1)
        self.threshold = norms[order[dropped]].item()
        self._chosen = {layer: part[dropped - 1].item() if dropped else 0.0 for layer, part in parts.items()}
        ordered = norms[order].double()
        self._chosen_output = _share(ordered[:dropped].sum().item(), ordered.sum().item())

    @property
    def most_rows(self) -> int:
        """The most data whose columns are looked at together."""
        num_columns = max((norms.shape[0] for norms, _ in self._audits), default=1)
        return max(1, MAX_ELEMENTS // num_columns**2)

    def groups(self, columns: torch.Tensor, *, most: int) -> Iterator[Group]:
        """Yield the data of a batch that need columns at all, by how many.

        Parameters
        ----------
        columns : Tensor, shape (columns, batch, outputs)
        most : int
            Data of a group.

        Yields
        ------
        Group
        """
        norms, by_norm = columns.square().sum(-1).sort(0, descending=True)
        self._in_force = self.threshold or 0.0
        self._unseen = _added(self._unseen, norms, norms < self._in_force)
        needed, order = (norms >= self._in_force).sum(0).sort(descending=True)
        counts = needed.tolist()
        self.num_columns += norms.numel()
        stop, num = 0, sum(count > 0 for count in counts)
        while stop < num:
            start, count = stop, counts[stop]
            end = min(num, start + most)
            stop = min(start + SMALLEST_GROUP, end)
            while stop < end and counts[stop] == count:
                stop += 1
            if num - stop < SMALLEST_GROUP // 2:
                stop = num
            rows = order[start:stop]
            places = by_norm[:count, rows]
            picked = columns[:, rows].gather(0, places[..., None].expand(-1, -1, columns.shape[-1]))
            self.num_kept += picked.shape[0] * picked.shape[1]
            yield Group(rows, picked)


def _added(sums: tuple[float, float], values: torch.Tensor, dropped: torch.Tensor) -> tuple[float, float]:
    """Return the sums of what was left out and of all, with further values."""
    return sums[0] + values[dropped].double().sum().item(), sums[1] + values.double().sum().item()


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
