"""Divide groups of photographs into parts of given shares that are alike in their classes.

Nothing here knows what a photograph is: a group is a name and how many of each class it holds.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
MOST_MOVES = 1000


def divide_groups(
    counts: Counts, names: Sequence[str], shares: Sequence[float], seed: int = 0, placed: Sequence[int] | None = None
) -> list[int]:
    """Give each group a part, so that every part has about its share of every class.

    The largest groups are placed first, each where the largest proportion is still missing of what its classes are to
    have there, so that every part gets small and large groups alike. Then groups move as long as that brings the parts
    nearer to their shares (in the sum of squares), and no part is left without a class that it has. Where each group is
    of one class, and no part's share of the class is smaller than the largest of these groups, every part ends within
    that largest group of its share.

    Args:
        counts: Photographs by group and class, (n groups, n classes).
        names: Name of each group, no two alike; together with the seed they decide between equals, the order does not.
        shares: Share of each part, at least 0, sum 1; no group is placed where it is 0.
        seed: Any number.
        placed: The part of each group that has one already and keeps it, -1 for the others.

    Returns:
        The part of each group.

    >>> divide_groups(np.array([[2], [2], [2], [2], [2]]), list("abcde"), [0.6, 0.2, 0.2])
    [1, 0, 2, 0, 0]
    """
    keys = [hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest() for name in names]
    sizes = counts.sum(axis=1)
    order = sorted(range(len(names)), key=lambda i: (-int(sizes[i]), keys[i]))
    sorted_counts = counts[order]
    given = np.array([-1 if placed is None else placed[i] for i in order], dtype=np.int64)
    parts = _Parts(sorted_counts, np.array(shares, dtype=np.float64), given)
    parts.place()
    parts.fill_empty()
    parts.improve()
    result = [0] * len(names)
    for position, i in enumerate(order):
        result[i] = int(parts.part[position])
    return result


def lacking(counts: Counts, parts: Sequence[int], n_parts: int) -> list[tuple[int, int]]:
    """Part and class of which it has no photograph, for every class that there is.

    >>> lacking(np.array([[2, 0], [0, 2], [1, 0]]), [0, 0, 1], 2)
    [(1, 1)]
    """
    filled = np.zeros((n_parts, counts.shape[1]), dtype=np.int64)
    np.add.at(filled, np.asarray(parts, dtype=np.int64), counts)
    some = counts.sum(axis=0) > 0
    return [(int(part), int(kind)) for part, kind in np.argwhere((filled == 0) & some)]


class _Parts:
    """Groups on their way to parts.

    Args:
        counts: (n groups, n classes), in the order in which they are placed.
        shares: (n parts,).
        part: Part of each group, -1 where it has none yet; those that have one stay.
    """

    def __init__(self, counts: Counts, shares: Floats, part: Counts) -> None:
        self.counts, self.part = counts, part.copy()
        self.is_free = part < 0
        self.is_open = shares > 0
        totals = counts.sum(axis=0)
        self.target = shares[:, None] * totals
        self.weight = 1 / np.maximum(totals, 1)
        self.filled = np.zeros(self.target.shape, dtype=np.int64)
        np.add.at(self.filled, part[~self.is_free], counts[~self.is_free])

    def place(self) -> None:
        """Place every group that has no part."""
        # Plain lists: arrays of three numbers would be ten times slower for 50,000 groups.
        target, filled = self.target.tolist(), self.filled.tolist()
        weight = self.weight.tolist()
        open_parts = [int(part) for part in np.flatnonzero(self.is_open)]
        for i in np.flatnonzero(self.is_free):
            group = [(kind, count) for kind, count in enumerate(self.counts[i].tolist()) if count]

            def missing(part: int, group: list[tuple[int, int]] = group) -> tuple[float, float]:
                rest = [(count * weight[kind], target[part][kind] - filled[part][kind], kind) for kind, count in group]
                relative = sum(share * lack / target[part][kind] for share, lack, kind in rest)
                return round(relative, 12), sum(share * lack for share, lack, _ in rest)

            best = max(open_parts, key=missing)
            self.part[i] = best
            for kind, count in group:
                filled[best][kind] += count
        self.filled = np.array(filled, dtype=np.int64).reshape(self.target.shape)

    def fill_empty(self) -> None:
        """Give a part that lacks a class a group with it, from one that has another."""
        while True:
            empty = (self.filled == 0) & self.is_open[:, None] & (self.counts.sum(axis=0) > 0)
            change = self._changes()
            # How many of what a part lacks a move would bring it; only such moves.
            brings = (self.counts > 0).astype(np.int64) @ empty.T.astype(np.int64)
            change[brings == 0] = np.inf
            if not np.isfinite(change).any():
                return
            self._move(*np.unravel_index(int(np.argmin(change)), change.shape))

    def improve(self) -> None:
        """Move groups as long as it brings the parts nearer to their shares."""
        for _ in range(MOST_MOVES):
            change = self._changes()
            if not change.size or change.min() > -1e-9:
                return
            self._move(*np.unravel_index(int(np.argmin(change)), change.shape))

    def _changes(self) -> Floats:
        """What each move of a group to a part would add to the sum of squares; infinite where it may not be."""
        groups = np.arange(len(self.counts))
        excess = self.filled - self.target
        weighted = self.counts * self.weight
        own = (weighted * (self.counts - excess[self.part])).sum(axis=1)
        change: Floats = 2 * (own[:, None] + weighted @ excess.T)
        empties = ((self.counts > 0) & (self.filled[self.part] == self.counts)).any(axis=1)
        change[empties | ~self.is_free, :] = np.inf
        change[:, ~self.is_open] = np.inf
        change[groups, self.part] = np.inf
        return change

    def _move(self, group: np.intp, part: np.intp) -> None:
        self.filled[self.part[group]] -= self.counts[group]
        self.filled[part] += self.counts[group]
        self.part[group] = part
