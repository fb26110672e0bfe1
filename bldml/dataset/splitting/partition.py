"""Divide groups of photographs into parts of requested sizes with similar class proportions.

This module knows nothing of photographs: a group is a name and a count per class, a part is a split or a fold.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
MOST_MOVES = 1000


def divide_groups(
    counts: Counts, names: Sequence[str], fractions: Sequence[float], seed: int = 0, fixed: Sequence[int] | None = None
) -> list[int]:
    """Assign each group to a part, so that every part gets about its fraction of every class.

    The largest groups are assigned first, each to the part that still lacks the largest proportion of the group's
    classes, so that every part gets both small and large groups. Then groups are moved as long as that reduces the
    squared deviation from the fractions, and no part loses a class that it has. If every group has one class, and no
    part's fraction of the class is smaller than the largest of these groups, every part deviates from its fraction by
    at most that largest group.

    Args:
        counts: Photographs by group and class, (n groups, n classes).
        names: Unique name of each group; ties are resolved by names and seed, not by the order of groups.
        fractions: Fraction of each part, at least 0, sum 1; a part of fraction 0 gets no group.
        seed: Random seed for ties.
        fixed: Part of each group that is already assigned and stays there, -1 for the others.

    >>> divide_groups(np.array([[2], [2], [2], [2], [2]]), list("abcde"), [0.6, 0.2, 0.2])
    [1, 0, 2, 0, 0]
    """
    keys = [hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest() for name in names]
    sizes = counts.sum(axis=1).tolist()
    order = sorted(range(len(names)), key=lambda i: (-sizes[i], keys[i]))
    initial = np.array([-1 if fixed is None else fixed[i] for i in order], dtype=np.int64)
    parts = _Parts(counts[order], np.array(fractions, dtype=np.float64), initial)
    parts.assign()
    parts.fill_empty()
    parts.improve()
    result = np.empty_like(parts.part)
    result[order] = parts.part
    return [int(part) for part in result]


def missing_classes(counts: Counts, parts: Sequence[int], n_parts: int) -> list[tuple[int, int]]:
    """Return (part, class) wherever a part has no photograph of a class that exists."""
    filled = np.zeros((n_parts, counts.shape[1]), dtype=np.int64)
    np.add.at(filled, np.asarray(parts, dtype=np.int64), counts)
    exists = counts.sum(axis=0) > 0
    return [(int(part), int(kind)) for part, kind in np.argwhere((filled == 0) & exists)]


class _Parts:
    """An assignment of groups, in this order, to parts; `part` is that of each group, -1 if it has none yet."""

    def __init__(self, counts: Counts, fractions: Floats, part: Counts) -> None:
        self.counts, self.part = counts, part
        self.is_free = part < 0
        self.is_used = fractions > 0
        totals = counts.sum(axis=0)
        self.target = fractions[:, None] * totals
        self.weight = 1 / np.maximum(totals, 1)
        self.filled = np.zeros(self.target.shape, dtype=np.int64)
        np.add.at(self.filled, part[~self.is_free], counts[~self.is_free])

    def assign(self) -> None:
        """Assign every group that has no part."""
        # Plain lists, because arrays of three numbers would be ten times slower for 50,000 groups.
        target, filled, weight = self.target.tolist(), self.filled.tolist(), self.weight.tolist()
        used_parts = np.flatnonzero(self.is_used).tolist()
        for i in np.flatnonzero(self.is_free):
            group = [(kind, count) for kind, count in enumerate(self.counts[i].tolist()) if count]

            def missing(part: int, group: list[tuple[int, int]] = group) -> tuple[float, float]:
                rest = [(count * weight[kind], target[part][kind] - filled[part][kind], kind) for kind, count in group]
                relative = sum(weighted * lack / target[part][kind] for weighted, lack, kind in rest)
                return round(relative, 12), sum(weighted * lack for weighted, lack, _ in rest)

            best = max(used_parts, key=missing)
            self.part[i] = best
            for kind, count in group:
                filled[best][kind] += count
        self.filled = np.array(filled, dtype=np.int64).reshape(self.target.shape)

    def fill_empty(self) -> None:
        """Move groups to parts that lack one of their classes, from parts that have another group of it."""
        while True:
            empty = (self.filled == 0) & self.is_used[:, None] & (self.counts.sum(axis=0) > 0)
            change = self._changes()
            # Number of missing classes that each move would bring to a part; other moves are excluded.
            brings = (self.counts > 0).astype(np.int64) @ empty.T.astype(np.int64)
            change[brings == 0] = np.inf
            if not np.isfinite(change).any():
                return
            self._make_best_move(change)

    def improve(self) -> None:
        """Move groups as long as that brings the parts closer to their fractions."""
        for _ in range(MOST_MOVES):
            change = self._changes()
            if not change.size or change.min() > -1e-9:
                return
            self._make_best_move(change)

    def _changes(self) -> Floats:
        """Return the change of the sum of squares for each move of a group to a part; infinite if not allowed."""
        excess = self.filled - self.target
        weighted = self.counts * self.weight
        own = (weighted * (self.counts - excess[self.part])).sum(axis=1)
        change: Floats = 2 * (own[:, None] + weighted @ excess.T)
        empties = ((self.counts > 0) & (self.filled[self.part] == self.counts)).any(axis=1)
        change[empties | ~self.is_free, :] = np.inf
        change[:, ~self.is_used] = np.inf
        change[np.arange(len(self.counts)), self.part] = np.inf
        return change

    def _make_best_move(self, change: Floats) -> None:
        group, part = np.unravel_index(int(np.argmin(change)), change.shape)
        self.filled[self.part[group]] -= self.counts[group]
        self.filled[part] += self.counts[group]
        self.part[group] = part
