"""Find the same photograph again after it was resized, recompressed, turned, mirrored or cropped a little.

A perceptual hash stores a small grey image as cosine coefficients. A tree search over a few numbers that do not change
under rotation and mirroring finds candidates. Then the whole hashes are aligned: rotating or mirroring the image
permutes the coefficients or changes their signs, and cropping is a product with one small matrix per axis, so the image
itself is not needed. At last the details must agree region by region (see `details`). That two photographs agree is a
reason to look at them, not a proof that they are the same photograph.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image

from bldml.dataset.duplicates.alignment import (
    POINTS,
    SIDE,
    Alignment,
    Coefficients,
    align,
    better_alignment,
    cosines,
    crops,
)
from bldml.dataset.duplicates.details import (
    DETAIL_BYTES,
    Confirmation,
    measure_details,
    without_padding,
)
from bldml.io.system import processors

PHash = npt.NDArray[np.uint8]  # perceptual hash of one photograph, (PHASH_BYTES,); zeros if it has none
PHashes = npt.NDArray[np.uint8]  # perceptual hashes of n photographs, (n, PHASH_BYTES)

COEFFICIENT_BYTES = SIDE * SIDE
"""Bytes of the coefficients, which come first; version 1 of the perceptual hash has nothing else."""
PHASH_BYTES = COEFFICIENT_BYTES + DETAIL_BYTES
PHASH_VERSION = 2
"""Increases when the same photograph would get a different perceptual hash: part of the key of every cache of them."""
NO_PHASH: PHash = np.zeros(PHASH_BYTES, np.uint8)
NO_PHASH.flags.writeable = False
NEAR_SIMILARITY = 0.94
"""Least similarity of two photographs that count as near duplicates.

Among 500 coffee leaves on paper, the two most similar reach 0.89, or 0.94 where one of them was cropped. Copies that
were reduced, recompressed, rotated, mirrored or cropped by up to 5 % per side nearly always reach 0.95 or more."""

_GREY_SIDE = 176  # pixels a side of the grey image that padding is looked for in
_FLAT = 0.5  # standard deviation of its grey levels below which it counts as blank
_LOW = 6  # coefficients per axis that the search key is made of
_RADIUS = 0.17  # largest distance of search keys whose hashes are compared
_NEIGHBOURS = 5  # candidates per hash and crop
# Boxes of the tree that begin beyond _RADIUS / (1 + _SLACK) are skipped. This misses 1 % of the neighbours within the
# radius, near its rim, where copies are rare; it takes a twelfth of the time, and grows less with their number.
_SLACK = 1.0
_LEAF = 32  # keys in a leaf of the tree
_CHUNK = 1024  # hashes or pairs processed at once


@dataclass(frozen=True)
class NearDuplicate:
    """Two photographs whose details agree: candidates for the same photograph, or two of one scene."""

    a: int  # index of a photograph
    b: int  # index of the other; within one collection, a < b
    similarity: float  # correlation of details after rotation and cropping, in [NEAR_SIMILARITY, 1]


def perceptual_hash(image: Image.Image) -> PHash:
    """Return the perceptual hash of an upright RGB image of any size.

    An image decoded at a reduced scale has nearly the same hash, and so has one with constant padding around it. A
    blank image has none: all zeros.
    """
    size = (_GREY_SIDE, _GREY_SIDE)
    whole = image.convert("L").resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
    photograph = without_padding(whole)
    grey = np.asarray(photograph.resize((POINTS, POINTS), Image.Resampling.BILINEAR), np.float32)
    if grey.std() < _FLAT:
        return NO_PHASH.copy()
    waves = cosines(SIDE, POINTS)
    # Details are faint: without a higher weight and a square root, they would be lost in eight bits.
    details = (waves @ grey @ waves.T) * _frequencies()
    scaled = details / np.abs(details).max()
    coefficients = np.uint8(np.rint(np.sign(scaled) * np.sqrt(np.abs(scaled)) * 127) + 128).ravel()
    return np.concatenate([coefficients, measure_details(photograph)])


@cache
def _frequencies() -> Coefficients:
    return np.asarray(np.hypot.outer(np.arange(SIDE), np.arange(SIDE)), np.float32)


def _coefficients(phashes: PHashes, rows: npt.NDArray[np.intp]) -> Coefficients:
    """Return the coefficients of some hashes up to a factor, the mean 0, (rows, SIDE, SIDE)."""
    scaled = (phashes[:, :COEFFICIENT_BYTES][rows].reshape(-1, SIDE, SIDE).astype(np.float32) - 128) / 127
    return np.asarray(np.sign(scaled) * scaled**2 / np.maximum(_frequencies(), 1))


def find_near_duplicates(phashes: PHashes, threshold: float = NEAR_SIMILARITY) -> list[NearDuplicate]:
    """Find near duplicates within one collection, sorted by a, then b; a photograph without a hash matches nothing.

    Not every pair is listed, but the pairs connect the same groups as all pairs would: equal hashes are each paired
    with the first of them, many similar ones each with its nearest, so that a burst of thousands stays cheap.
    """
    rows, pairs = _distinct(phashes)
    group = np.arange(len(phashes))
    refused = np.empty(0, np.intp)  # pairs, as numbers, that only a frame or an interface makes alike
    confirmation: Confirmation | None = None
    details = phashes[:, COEFFICIENT_BYTES:]
    for cut, candidates in _neighbours(phashes, phashes, rows):
        confirmation = confirmation or Confirmation(details, details, candidates)
        candidates = candidates[group[candidates[:, 0]] != group[candidates[:, 1]]]
        candidates = candidates[~np.isin(_numbered(candidates, len(phashes)), refused)]
        near, scores, others = _nearest(phashes, phashes, candidates, cut, threshold, confirmation)
        refused = np.concatenate([refused, _numbered(others, len(phashes))])
        group = _join(group, near)
        for (a, b), value in zip(np.sort(near, 1).tolist(), scores, strict=True):
            pairs[a, b] = max(value, pairs.get((a, b), 0.0))
    return [NearDuplicate(a, b, value) for (a, b), value in sorted(pairs.items())]


def find_near_duplicates_between(known: PHashes, new: PHashes) -> list[NearDuplicate]:
    """Find photographs of one collection in another, sorted by their index in `known` (a), then in `new` (b).

    Each photograph of `new` that has a near duplicate in `known` is in at least one pair; not every pair is listed.
    """
    pairs: dict[tuple[int, int], float] = {}
    for whole, part, swapped in ((known, new, False), (new, known, True)):
        confirmation: Confirmation | None = None
        for cut, candidates in _neighbours(whole, part):
            details = whole[:, COEFFICIENT_BYTES:], part[:, COEFFICIENT_BYTES:]
            confirmation = confirmation or Confirmation(details[0], details[1], candidates)
            near, scores, _ = _nearest(whole, part, candidates, cut, NEAR_SIMILARITY, confirmation)
            for (i, j), value in zip(near.tolist(), scores, strict=True):
                key = (j, i) if swapped else (i, j)
                pairs[key] = max(value, pairs.get(key, 0.0))
    return [NearDuplicate(a, b, value) for (a, b), value in sorted(pairs.items())]


def _numbered(pairs: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.intp]:
    """Return a number for each pair, whatever its order."""
    return np.asarray(pairs.min(1, initial=n) * n + pairs.max(1, initial=0), np.intp)


def _distinct(phashes: PHashes) -> tuple[npt.NDArray[np.intp], dict[tuple[int, int], float]]:
    """Return the first row of each distinct hash, and its pairs with its equals (similarity 1)."""
    first: dict[bytes, int] = {}
    pairs: dict[tuple[int, int], float] = {}
    for index, row in enumerate(phashes):
        if row.any():
            # Keyed by a digest, because keys of the hashes themselves would hold them in memory twice.
            equal = first.setdefault(hashlib.blake2b(row, digest_size=16).digest(), index)
            if equal != index:
                pairs[equal, index] = 1.0
    return np.fromiter(first.values(), np.intp), pairs


def _join(group: npt.NDArray[np.intp], pairs: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the group numbers after joining the groups of each pair."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(group)
    ends = group[pairs]
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1][group], np.intp)


@cache
def _cuts() -> tuple[npt.NDArray[np.intp], ...]:
    """Return the crops in which candidates are searched: none, 2.5 % of all sides, 5 % of any sides."""
    corners = sorted(product((0, 8), repeat=4), key=sum)
    return tuple(np.array(cut, np.intp) for cut in (corners[0], (4, 4, 4, 4), *corners[1:]))


def _neighbours(
    whole: PHashes, part: PHashes, rows: npt.NDArray[np.intp] | None = None
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Yield each crop of `_cuts` with its candidate pairs, (m, 2): index into `whole`, which is cropped, and `part`.

    If `rows` is set, only these rows of both are searched; a copy of them would double the memory.
    """
    from scipy.spatial import cKDTree

    def chunks(
        phashes: PHashes, rows: npt.NDArray[np.intp], cut: npt.NDArray[np.intp]
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            yield chunk, _keys(_coefficients(phashes, chunk), cut)

    def tree_of(phashes: PHashes, rows: npt.NDArray[np.intp]) -> cKDTree:
        return cKDTree(np.concatenate([keys for _, keys in chunks(phashes, rows, _cuts()[0])]), _LEAF)

    def ordered(phashes: PHashes) -> npt.NDArray[np.intp]:
        """Rows with a hash, similar ones next to each other, so that a search stays in the processor's cache."""
        used = np.flatnonzero(phashes.any(1)) if rows is None else rows
        return used[tree_of(phashes, used).indices] if used.size else used

    itself = whole is part
    parts = ordered(part)
    wholes = parts if itself else ordered(whole)
    if not (wholes.size and parts.size):
        return
    tree = tree_of(part, parts)
    count = min(_NEIGHBOURS + itself, len(parts))
    for cut in _cuts():
        found = []
        for chunk, keys in chunks(whole, wholes, cut):
            _, index = tree.query(
                keys, [*range(1, count + 1)], _SLACK, distance_upper_bound=_RADIUS, workers=processors()
            )
            row, column = np.nonzero(index < len(parts))
            found.append(np.stack([chunk[row], parts[index[row, column]]], 1))
        pairs = np.concatenate(found)
        yield cut, pairs[pairs[:, 0] != pairs[:, 1]] if itself else pairs


def _keys(coefficients: Coefficients, cut: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Return search keys of the lowest frequencies after cropping, invariant to rotation and mirroring, (n, 20)."""
    rows, columns = crops()[cut[0], cut[1]][:_LOW], crops()[cut[2], cut[3]][:_LOW]
    low = (rows @ coefficients @ columns.T) * np.sqrt(_frequencies()[:_LOW, :_LOW])
    numbers = []
    for i in range(_LOW):
        for j in range(i, _LOW - i):
            a, b = low[:, i, j], low[:, j, i]
            if i == j:
                numbers.append(np.abs(a) if i % 2 else a)
            elif i % 2 == j % 2 == 0:  # mirroring keeps the signs of even waves
                numbers += [(a + b) / np.sqrt(2), np.abs(a - b) / np.sqrt(2)]
            else:
                numbers += [np.maximum(np.abs(a), np.abs(b)), np.minimum(np.abs(a), np.abs(b))]
    table = np.stack(numbers[1:], 1)  # without the brightness
    norm = np.sqrt((table**2).sum(1, keepdims=True))
    return np.asarray(table / np.where(norm > 0, norm, 1), np.float32)


def _nearest(
    whole: PHashes,
    part: PHashes,
    pairs: npt.NDArray[np.intp],
    cut: npt.NDArray[np.intp],
    threshold: float,
    confirmation: Confirmation,
) -> tuple[npt.NDArray[np.intp], list[float], npt.NDArray[np.intp]]:
    """Return the pairs that are near duplicates, and their similarity, searched from one crop of their first image.

    The third result are the pairs that are similar without a crop, but whose details do not agree.
    """
    found, scores, refused = [pairs[:0]], [np.empty(0, np.float32)], [pairs[:0]]
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        aligned = _aligned(whole, part, chunk, cut)
        near = np.flatnonzero(aligned.similarity >= threshold)
        if not near.size:
            continue
        chunk = chunk[near]
        aligned = Alignment(aligned.similarity[near], aligned.orientation[near], aligned.cut[near])
        if cut.any():  # equal frames agree better without a crop, and then details must agree better too
            aligned = better_alignment(aligned, _aligned(whole, part, chunk, np.zeros_like(cut)))
        agree = confirmation.agree(chunk, aligned)
        refused.append(chunk[~agree & (aligned.cut.max(1) <= 1)])
        found.append(chunk[agree])
        scores.append(aligned.similarity[agree])
    return np.concatenate(found), np.concatenate(scores).clip(max=1).tolist(), np.concatenate(refused)


def _aligned(whole: PHashes, part: PHashes, pairs: npt.NDArray[np.intp], cut: npt.NDArray[np.intp]) -> Alignment:
    cuts = np.tile(cut, (len(pairs), 1))
    return align(_coefficients(whole, pairs[:, 0]), _coefficients(part, pairs[:, 1]), cuts)
