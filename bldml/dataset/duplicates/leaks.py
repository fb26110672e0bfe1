"""Find leaks: photographs of one split of which another has an equal file, near duplicate, part by name or burst."""

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bldml.dataset.duplicates.bursts import burst_groups
from bldml.dataset.duplicates.find import component_roots, exact_groups, groups_of_equal, pairs_with_first
from bldml.dataset.duplicates.names import find_sources
from bldml.dataset.duplicates.phash import NO_PHASH, NearDuplicate, PHash, find_near_duplicates
from bldml.dataset.files import show_path
from bldml.dataset.metadata import Metadata
from bldml.dataset.samples import SPLITS
from bldml.io.text import counted, first_few

Kind = Literal["exact", "near", "source", "burst"]
# Indexes of a photograph and of one in a later split, and their similarity.
_Pairs = Iterator[tuple[int, int, float]]

_PARTNERS = {
    "exact": "an identical file",
    "near": "a near duplicate",
    "source": "a file that is named as made from the same photograph",
    "burst": "a photograph of the same burst",
}
_KINDS = list(_PARTNERS)
_MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class KnownPhotograph:
    """Description of one photograph in which leaks are searched."""

    name: str  # path below the data folder
    split: str
    class_name: str = ""  # empty where unknown, as the digest
    digest: str = ""  # SHA-256 of the file
    phash: PHash | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class Leak:
    """A photograph that another split contains as well."""

    kind: Kind
    a: str  # name of the photograph in the split that comes first (train, val, test, then others by name)
    b: str  # name of the photograph in the other split
    split_a: str
    split_b: str
    # 1 for equal content; in [NEAR_SIMILARITY, 1] for near duplicates (that of the weakest link if the two are
    # connected through others); nan for names and bursts
    similarity: float


def find_leaks(
    photographs: Sequence[KnownPhotograph],
    near_duplicates: Sequence[NearDuplicate] | None = None,
    bursts: Sequence[str] | None = None,
) -> list[Leak]:
    """Find photographs that a preceding split contains as well (order: train, val, test, others).

    For each preceding split a photograph is in at most one leak: of the strongest kind, with its nearest partner. So
    the number of leaks between two splits is the number of photographs affected. Leaks are sorted by kind (as
    in `Kind`), then splits, then names. Near duplicates and bursts are searched unless they are known already.
    """
    if len({photograph.split for photograph in photographs}) < 2:
        return []
    if near_duplicates is None:
        phashes = [NO_PHASH if photograph.phash is None else photograph.phash for photograph in photographs]
        near_duplicates = find_near_duplicates(np.stack(phashes))
    if bursts is None:
        bursts = burst_groups([p.name for p in photographs], [p.metadata for p in photographs])
    exact = exact_groups([photograph.digest for photograph in photographs])
    kinds: dict[Kind, _Pairs] = {
        "exact": _exact(photographs, exact),
        "near": _near(photographs, near_duplicates, exact),
        "source": _source(photographs, find_sources([photograph.name for photograph in photographs]).groups),
        "burst": _burst(photographs, groups_of_equal(bursts)),
    }
    found: dict[tuple[str, str], Leak] = {}
    for kind, pairs in kinds.items():
        for a, b, similarity in pairs:
            first, second = photographs[a], photographs[b]
            leak = Leak(kind, first.name, second.name, first.split, second.split, similarity)
            found.setdefault((leak.b, leak.split_a), leak)
    return sorted(found.values(), key=lambda k: (_KINDS.index(k.kind), _rank(k.split_a), _rank(k.split_b), k.b, k.a))


def leak_counts(leaks: Iterable[Leak]) -> dict[tuple[str, str, str], int]:
    """Count leaks by kind and by their two splits."""
    return dict(Counter((leak.kind, leak.split_a, leak.split_b) for leak in leaks))


def leak_summary(leaks: Sequence[Leak], photographs: Sequence[KnownPhotograph] = ()) -> str:
    """Describe leaks in plain words, the largest first, with some names, and percentages of `photographs` if given.

    >>> print(leak_summary([Leak("near", "train/a.jpg", "val/b.jpg", "train", "val", 0.98)]))
    1 photograph of val has a near duplicate in train.
    For example: val/b.jpg and train/a.jpg.
    """
    if not leaks:
        return ""
    sizes = Counter(photograph.split for photograph in photographs)
    lines = []
    counts = leak_counts(leaks)
    for (kind, before, after), count in sorted(counts.items(), key=lambda item: -item[1]):
        of_all = f" ({100 * count / sizes[after]:.0f} %)" if sizes[after] else ""
        subject = f"{counted(count, 'photograph')}{of_all} of {show_path(after)}"
        have = "has" if count == 1 else "have"
        lines.append(f"{subject} {have} {_PARTNERS[kind]} in {show_path(before)}.")
    largest_first = sorted(leaks, key=lambda leak: -counts[leak.kind, leak.split_a, leak.split_b])
    examples = [f"{show_path(leak.b)} and {show_path(leak.a)}" for leak in largest_first]
    return "\n".join([*lines, f"For example: {first_few(examples, _MAX_EXAMPLES)}."])


def _rank(split: str) -> tuple[int, str]:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS), split


def _crossings(photographs: Sequence[KnownPhotograph], group: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the members of each split in a group and those of later splits, in the order of the group."""
    splits: dict[str, list[int]] = defaultdict(list)
    for i in group:
        splits[photographs[i].split].append(i)
    if len(splits) > 1:
        for split, members in splits.items():
            yield members, [i for i in group if _rank(photographs[i].split) > _rank(split)]


def _exact(photographs: Sequence[KnownPhotograph], groups: Sequence[Sequence[int]]) -> _Pairs:
    for group in groups:
        for members, later in _crossings(photographs, sorted(group, key=lambda i: photographs[i].name)):
            yield from ((members[0], i, 1.0) for i in later)


def _source(photographs: Sequence[KnownPhotograph], groups: Sequence[Sequence[int]]) -> _Pairs:
    return ((a, b, math.nan) for a, b, _ in _exact(photographs, groups))


def _near(
    photographs: Sequence[KnownPhotograph], near_duplicates: Sequence[NearDuplicate], exact: Sequence[Sequence[int]]
) -> _Pairs:
    partners: dict[int, list[tuple[float, int]]] = defaultdict(list)
    links = [(a, b, 1.0) for a, b in pairs_with_first(exact)]
    links += [(pair.a, pair.b, pair.similarity) for pair in near_duplicates]
    for a, b, value in links:
        partners[a].append((value, b))
        partners[b].append((value, a))
    for group in groups_of_equal(component_roots(len(photographs), [(a, b) for a, b, _ in links])):
        for members, later in _crossings(photographs, sorted(group, key=lambda i: photographs[i].name)):
            nearest = _nearest(members, partners)
            yield from ((nearest[i][1], i, nearest[i][0]) for i in later)


def _nearest(
    members: Sequence[int], partners: Mapping[int, Sequence[tuple[float, int]]]
) -> dict[int, tuple[float, int]]:
    """Return for each photograph connected to members, over as few links as possible: the weakest link, the member."""
    nearest = {i: (1.0, i) for i in members}
    frontier = list(members)
    while frontier:
        reached: dict[int, tuple[float, int]] = {}
        for i in frontier:
            so_far, member = nearest[i]
            for value, j in partners[i]:
                if j not in nearest and min(value, so_far) > reached.get(j, (0.0, 0))[0]:
                    reached[j] = min(value, so_far), member
        nearest |= reached
        frontier = list(reached)
    return nearest


def _burst(photographs: Sequence[KnownPhotograph], groups: Sequence[Sequence[int]]) -> _Pairs:
    def moment(i: int) -> tuple[str, str]:
        metadata = photographs[i].metadata
        return metadata.taken if metadata else "", photographs[i].name

    for group in groups:
        ordered = sorted(group, key=moment)
        position = {i: rank for rank, i in enumerate(ordered)}
        for members, later in _crossings(photographs, ordered):
            positions = [position[j] for j in members]
            for i in later:
                after = bisect(positions, position[i])
                around = positions[max(after - 1, 0) : after + 1]
                nearest = min(around, key=lambda rank: abs(rank - position[i]))
                yield ordered[nearest], i, math.nan
