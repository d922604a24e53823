"""Which columns of the GGN can be left out: of a trained classifier few (datum, column) pairs carry almost all of it.

What is left out of a layer's gradient factor is a sum of products g g', so its trace is the error in trace norm. The
columns kept are those above a norm at the output; which norm that is, batches that are taken whole tell: the first,
and one in `AUDIT_EVERY` after it. They also tell what the norm chosen before would have lost of them.
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
        By layer, what was left out as a part of the trace: measured on batches that had no part in the choice, where
        there are any, else on the one it was made with.
    num_columns, num_kept : int
        Columns of all data gone through, and of those how many went backwards.
    """

    tolerance: float
    num_columns: int = 0
    num_kept: int = 0
    threshold: float | None = None  # least squared norm at the output of what is kept
    _batches: int = 0
    _audits: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = field(default_factory=list)
    _sums: dict[str, tuple[float, float]] = field(default_factory=dict)  # by layer: lost, and all, of later audits
    _chosen: dict[str, float] = field(default_factory=dict)

    @property
    def lost(self) -> dict[str, float]:
        """What was left out of each layer's trace, relative to it."""
        if not self._sums:
            return dict(self._chosen)
        return {layer: lost / whole if whole > 0 else 0.0 for layer, (lost, whole) in self._sums.items()}

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
        if self.threshold is not None:
            dropped = norms < self.threshold
            for layer, each in weights.items():
                lost, whole = self._sums.get(layer, (0.0, 0.0))
                self._sums[layer] = (lost + each[dropped].sum().item(), whole + each.sum().item())
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
        needed, order = (norms >= (self.threshold or 0.0)).sum(0).sort(descending=True)
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
