"""Find the same photograph again after it was resized, recompressed, turned, mirrored or cropped a little.

A print is a small grey picture, kept as cosine coefficients. Few numbers that turning and mirroring do not change lead
to candidates in a tree; `alignment` then compares whole prints.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image

from bldml.dataset.duplicates.alignment import SIDE, Coefficients, align, cosines, crops

Print = npt.NDArray[np.uint8]
"""Of one photograph, (PRINT_BYTES,); zeros where there is none."""
Prints = npt.NDArray[np.uint8]
"""Of n photographs, (n, PRINT_BYTES)."""

PRINT_BYTES = SIDE * SIDE
PRINT_VERSION = 1
"""Rises when the same photograph would get another print: part of the key of whatever keeps prints."""
NO_PRINT: Print = np.zeros(PRINT_BYTES, np.uint8)
NO_PRINT.flags.writeable = False
NEAR = 0.94
"""Similarity from which two photographs count as one.

Of 500 coffee leaves on paper the two most similar reach 0.89, 0.94 where one of them was cropped; copies reduced,
recompressed, turned, mirrored or cropped by up to 5 % a side nearly always 0.95 and more."""

_POINTS = 44  # side of the small picture
_FLAT = 0.5  # standard deviation of its grey levels below which nothing is to be seen
_LOW = 6  # coefficients of an axis that make the key
_RADIUS = 0.17  # distance of keys up to which prints are compared
_NEIGHBOURS = 5  # compared with one print in one crop
# Boxes of the tree that begin beyond the radius over 1 + this are not opened: of all within the radius a hundredth is
# missed, near its rim, where hardly a copy is; in a twelfth of the time, and growing less with their number.
_SLACK = 1.0
_LEAF = 32  # keys in the tree's smallest boxes
_PORTION = 1024  # prints or pairs worked on at once


@dataclass(frozen=True)
class Near:
    """Two photographs that are the same.

    Attributes:
        a: Index of the one.
        b: Index of the other; of one collection, a < b.
        similarity: Correlation of details after turning and cropping, in [NEAR, 1].
    """

    a: int
    b: int
    similarity: float


def perceptual_hash(image: Image.Image) -> Print:
    """Return the print of an upright RGB picture of any size.

    A picture decoded at a reduced scale has nearly the same print. One without anything to see in it has none.

    >>> bool((perceptual_hash(Image.new("RGB", (640, 480), "green")) == NO_PRINT).all())
    True
    """
    little = image.resize((_POINTS, _POINTS), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    grey = np.asarray(little, np.float32)
    if grey.std() < _FLAT:
        return NO_PRINT.copy()
    waves = cosines(SIDE, _POINTS)
    # Details are faint: without more weight on them and a root, eight bits would not hold them.
    details = (waves @ grey @ waves.T) * _frequencies()
    share = details / np.abs(details).max()
    return np.uint8(np.rint(np.sign(share) * np.sqrt(np.abs(share)) * 127) + 128).ravel()


@cache
def _frequencies() -> Coefficients:
    return np.asarray(np.hypot.outer(np.arange(SIDE), np.arange(SIDE)), np.float32)


def _coefficients(prints: Prints) -> Coefficients:
    """Coefficients up to a factor, the mean 0, (n, SIDE, SIDE)."""
    share = (prints.reshape(-1, SIDE, SIDE).astype(np.float32) - 128) / 127
    return np.asarray(np.sign(share) * share**2 / np.maximum(_frequencies(), 1))


def similarity(a: Print, b: Print) -> float:
    """How alike two photographs are, -1 to 1: see `NEAR`; 0 where one has no print."""
    if not (a.any() and b.any()):
        return 0.0
    pair = np.stack([a, b])
    return min(
        max(float(_compare(pair, pair, np.array([[i, 1 - i]]), cut).max()) for i in (0, 1) for cut in _cuts()), 1.0
    )


def near_pairs(prints: Prints, threshold: float = NEAR) -> list[Near]:
    """Find the photographs that are the same.

    Joining the pairs gives the groups that all pairs would give, but not every pair is listed: of equal prints each is
    paired with the first one, of many similar ones each with its nearest, so that a burst of thousands stays cheap.

    Args:
        prints: Of all photographs; those without a print match nothing.
        threshold: Least similarity.

    Returns:
        Pairs by a, then b.
    """
    kept, pairs = _collapse(prints)
    group = np.arange(len(prints))
    for cut, neighbours in _neighbours(prints, prints, kept):
        known = group[neighbours[:, 0]] == group[neighbours[:, 1]]
        found = neighbours[~known]
        score = _compare(prints, prints, found, cut)
        near = score >= threshold
        group = _join(group, found[near])
        for (a, b), value in zip(np.sort(found[near], 1).tolist(), score[near].tolist(), strict=True):
            pairs[a, b] = max(min(float(value), 1.0), pairs.get((a, b), 0.0))
    return [Near(a, b, value) for (a, b), value in sorted(pairs.items())]


def near_pairs_between(known: Prints, new: Prints, threshold: float = NEAR) -> list[Near]:
    """Find photographs of one collection in another; each that is there is in a pair, if not in all of its pairs.

    Args:
        known: Prints of the one collection; `Near.a` is an index into it.
        new: Prints of the other; `Near.b` is an index into it.
        threshold: Least similarity.

    Returns:
        Pairs by a, then b.
    """
    pairs: dict[tuple[int, int], float] = {}
    for one, other, swapped in ((known, new, False), (new, known, True)):
        for cut, found in _neighbours(one, other):
            score = _compare(one, other, found, cut)
            for (i, j), value in zip(found[score >= threshold].tolist(), score[score >= threshold], strict=True):
                key = (j, i) if swapped else (i, j)
                pairs[key] = max(min(float(value), 1.0), pairs.get(key, 0.0))
    return [Near(a, b, value) for (a, b), value in sorted(pairs.items())]


def _collapse(prints: Prints) -> tuple[npt.NDArray[np.intp], dict[tuple[int, int], float]]:
    """Indexes of the first of equal prints, and pairs of the others with it."""
    first: dict[bytes, int] = {}
    pairs: dict[tuple[int, int], float] = {}
    for index, row in enumerate(prints):
        if row.any():
            # The print itself would be held a second time.
            same = first.setdefault(hashlib.blake2b(row, digest_size=16).digest(), index)
            if same != index:
                pairs[same, index] = 1.0
    return np.fromiter(first.values(), np.intp), pairs


def _join(group: npt.NDArray[np.intp], pairs: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Numbers of the groups after joining those of each pair."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(group)
    ends = group[pairs]
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1][group], np.intp)


@cache
def _cuts() -> tuple[npt.NDArray[np.intp], ...]:
    """Crops that candidates are looked for in: nothing, 2.5 % all round, 5 % of any sides."""
    corners = sorted(product((0, 8), repeat=4), key=sum)
    return tuple(np.array(cut, np.intp) for cut in (corners[0], (4, 4, 4, 4), *corners[1:]))


def _neighbours(
    whole: Prints, part: Prints, rows: npt.NDArray[np.intp] | None = None
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """For each crop of `_cuts` the pairs worth comparing, (m, 2): index into `whole`, which is cropped, and `part`.

    Only these rows are looked at where they are given; to copy them would double them.
    """
    from scipy.spatial import cKDTree

    def portions(
        prints: Prints, rows: npt.NDArray[np.intp], cut: npt.NDArray[np.intp]
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
        for start in range(0, len(rows), _PORTION):
            some = rows[start : start + _PORTION]
            yield some, _keys(_coefficients(prints[some]), cut)

    def tree_of(prints: Prints, rows: npt.NDArray[np.intp]) -> cKDTree:
        return cKDTree(np.concatenate([keys for _, keys in portions(prints, rows, _cuts()[0])]), _LEAF)

    def ordered(prints: Prints) -> npt.NDArray[np.intp]:
        """Those with something to see; what is alike beside each other, so that a search stays in fast memory."""
        some = np.flatnonzero(prints.any(1)) if rows is None else rows
        return some[tree_of(prints, some).indices] if some.size else some

    itself = whole is part
    parts = ordered(part)
    wholes = parts if itself else ordered(whole)
    if not (wholes.size and parts.size):
        return
    tree = tree_of(part, parts)
    count = min(_NEIGHBOURS + itself, len(parts))
    for cut in _cuts():
        found = []
        for some, keys in portions(whole, wholes, cut):
            _, index = tree.query(
                keys, [*range(1, count + 1)], _SLACK, distance_upper_bound=_RADIUS, workers=_threads()
            )
            row, column = np.nonzero(index < len(parts))
            found.append(np.stack([some[row], parts[index[row, column]]], 1))
        pairs = np.concatenate(found)
        yield cut, pairs[pairs[:, 0] != pairs[:, 1]] if itself else pairs


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keys(coefficients: Coefficients, cut: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Numbers of the long waves after cropping, the same however a picture is turned or mirrored, (n, 20)."""
    rows, columns = crops()[cut[0], cut[1]][:_LOW], crops()[cut[2], cut[3]][:_LOW]
    low = (rows @ coefficients @ columns.T) * np.sqrt(_frequencies()[:_LOW, :_LOW])
    numbers = []
    for i in range(_LOW):
        for j in range(i, _LOW - i):
            a, b = low[:, i, j], low[:, j, i]
            if i == j:
                numbers.append(np.abs(a) if i % 2 else a)
            elif i % 2 == j % 2 == 0:  # mirroring leaves the signs of even waves
                numbers += [(a + b) / np.sqrt(2), np.abs(a - b) / np.sqrt(2)]
            else:
                numbers += [np.maximum(np.abs(a), np.abs(b)), np.minimum(np.abs(a), np.abs(b))]
    table = np.stack(numbers[1:], 1)  # without the brightness
    norm = np.sqrt((table**2).sum(1, keepdims=True))
    return np.asarray(table / np.where(norm > 0, norm, 1), np.float32)


def _compare(
    whole: Prints, part: Prints, pairs: npt.NDArray[np.intp], cut: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Similarity of each pair, (m,), beginning from one crop of the first."""
    scores = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), _PORTION):
        some = pairs[start : start + _PORTION]
        cuts = np.tile(cut, (len(some), 1))
        scores.append(align(_coefficients(whole[some[:, 0]]), _coefficients(part[some[:, 1]]), cuts))
    return np.concatenate(scores)
