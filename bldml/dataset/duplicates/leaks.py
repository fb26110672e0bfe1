"""Photographs of one split that are in another as well: equal, nearly equal, or of the same burst."""

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bldml.dataset.duplicates.bursts import burst_groups
from bldml.dataset.duplicates.find import components, exact_groups
from bldml.dataset.duplicates.phash import NO_PRINT, Near, Print, near_pairs
from bldml.dataset.files import show_path
from bldml.dataset.metadata import Metadata
from bldml.dataset.samples import SPLITS

Kind = Literal["exact", "near", "burst"]

_KINDS: tuple[Kind, ...] = ("exact", "near", "burst")
_WORDS = {"exact": "equal to", "near": "nearly the same as", "burst": "of the same burst as"}
_NAMED = 5


@dataclass(frozen=True, slots=True)
class KnownPhotograph:
    """What is known of one photograph.

    Attributes:
        name: Path below the data folder.
        split: Where it is.
        class_name: Empty where unknown.
        digest: SHA-256 of the content; empty where unknown.
        print: From `perceptual.fingerprint`; None where there is none.
        metadata: None where nothing is known.
    """

    name: str
    split: str
    class_name: str = ""
    digest: str = ""
    print: Print | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class Leak:
    """A photograph that another split has as well.

    Attributes:
        kind: Equal content, the same photograph, or the same burst.
        a: Name of the photograph of the earlier split.
        b: Name of the one of the later split.
        split_a: The earlier split: train before val before test before others.
        split_b: The later split.
        similarity: 1 for equal content, NEAR to 1 for near ones (of the weakest link where the two hang together
            through others); nan for a burst.
    """

    kind: Kind
    a: str
    b: str
    split_a: str
    split_b: str
    similarity: float


def find_leaks(
    photographs: Sequence[KnownPhotograph], near: Sequence[Near] | None = None, bursts: Sequence[str] | None = None
) -> list[Leak]:
    """Find photographs that an earlier split has as well.

    Each photograph is in one leak for each earlier split at most: of the strongest kind, with its nearest partner. So
    the number of leaks is the number of photographs concerned.

    Args:
        photographs: Of all splits.
        near: Near pairs, where they are known already.
        bursts: Group of each photograph from `burst_groups`, where known already.

    Returns:
        Exact ones first, then near, then burst; by splits, then names.
    """
    if len({photograph.split for photograph in photographs}) < 2:
        return []
    if near is None:
        prints = [NO_PRINT if photograph.print is None else photograph.print for photograph in photographs]
        near = near_pairs(np.stack(prints))
    if bursts is None:
        bursts = burst_groups([p.name for p in photographs], [p.metadata for p in photographs])
    found: dict[tuple[str, str], Leak] = {}
    exact = exact_groups([photograph.digest for photograph in photographs])
    for leak in (
        *_exact(photographs, exact),
        *_near(photographs, near, exact),
        *_burst(photographs, exact_groups(bursts)),
    ):
        found.setdefault((leak.b, leak.split_a), leak)
    return sorted(found.values(), key=lambda k: (_KINDS.index(k.kind), _rank(k.split_a), _rank(k.split_b), k.b, k.a))


def leak_counts(leaks: Iterable[Leak]) -> dict[tuple[str, str, str], int]:
    """Number of photographs by kind, earlier split and later split.

    >>> leak_counts([Leak("exact", "a.jpg", "b.jpg", "train", "val", 1.0)])
    {('exact', 'train', 'val'): 1}
    """
    return dict(Counter((leak.kind, leak.split_a, leak.split_b) for leak in leaks))


def leak_summary(leaks: Sequence[Leak], photographs: Sequence[KnownPhotograph] = ()) -> str:
    """Say in plain words how much leaks, naming the first few; empty if nothing does.

    Args:
        leaks: From `find_leaks`.
        photographs: All of them, so that shares can be given.

    >>> print(leak_summary([Leak("near", "train/a.jpg", "val/b.jpg", "train", "val", 0.98)]))
    1 photograph of val is nearly the same as one in train.
    Such as: val/b.jpg and train/a.jpg.
    """
    if not leaks:
        return ""
    sizes = Counter(photograph.split for photograph in photographs)
    lines = []
    for (kind, before, after), count in leak_counts(leaks).items():
        of_all = f" ({count / sizes[after]:.0%})" if sizes[after] else ""
        subject = "1 photograph" if count == 1 else f"{count} photographs"
        verb = "is" if count == 1 else "are"
        lines.append(f"{subject}{of_all} of {show_path(after)} {verb} {_WORDS[kind]} one in {show_path(before)}.")
    named = "; ".join(f"{show_path(leak.b)} and {show_path(leak.a)}" for leak in leaks[:_NAMED])
    more = f"; and {len(leaks) - _NAMED} more" if len(leaks) > _NAMED else ""
    return "\n".join([*lines, f"Such as: {named}{more}."])


def _rank(split: str) -> tuple[int, str]:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS), split


def _crossings(
    photographs: Sequence[KnownPhotograph], group: Sequence[int]
) -> Iterator[tuple[str, list[int], list[int]]]:
    """Each split in a group with its members and the members of later splits, in the order of the group."""
    splits: dict[str, list[int]] = defaultdict(list)
    for i in group:
        splits[photographs[i].split].append(i)
    if len(splits) > 1:
        for split, members in splits.items():
            yield split, members, [i for i in group if _rank(photographs[i].split) > _rank(split)]


def _leak(photographs: Sequence[KnownPhotograph], kind: Kind, a: int, b: int, value: float) -> Leak:
    one, other = photographs[a], photographs[b]
    return Leak(kind, one.name, other.name, one.split, other.split, value)


def _exact(photographs: Sequence[KnownPhotograph], groups: Sequence[Sequence[int]]) -> Iterator[Leak]:
    for group in groups:
        ordered = sorted(group, key=lambda i: photographs[i].name)
        for _, members, later in _crossings(photographs, ordered):
            yield from (_leak(photographs, "exact", members[0], i, 1.0) for i in later)


def _near(
    photographs: Sequence[KnownPhotograph], near: Sequence[Near], exact: Sequence[Sequence[int]]
) -> Iterator[Leak]:
    partners: dict[int, list[tuple[float, int]]] = defaultdict(list)
    links = [(group[0], i, 1.0) for group in exact for i in group[1:]]
    links += [(pair.a, pair.b, pair.similarity) for pair in near]
    for a, b, value in links:
        partners[a].append((value, b))
        partners[b].append((value, a))
    for group in components(len(photographs), [(a, b) for a, b, _ in links]):
        ordered = sorted(group, key=lambda i: photographs[i].name)
        for _, members, later in _crossings(photographs, ordered):
            nearest = _nearest(members, partners)
            yield from (_leak(photographs, "near", nearest[i][1], i, nearest[i][0]) for i in later)


def _nearest(
    members: Sequence[int], partners: Mapping[int, Sequence[tuple[float, int]]]
) -> dict[int, tuple[float, int]]:
    """For each photograph linked to members, over as few links as possible: the weakest link, and which member."""
    nearest = {i: (1.0, i) for i in members}
    edge = list(members)
    while edge:
        reached: dict[int, tuple[float, int]] = {}
        for i in edge:
            so_far, member = nearest[i]
            for value, j in partners[i]:
                if j not in nearest and min(value, so_far) > reached.get(j, (0.0, 0))[0]:
                    reached[j] = min(value, so_far), member
        nearest |= reached
        edge = list(reached)
    return nearest


def _burst(photographs: Sequence[KnownPhotograph], groups: Sequence[Sequence[int]]) -> Iterator[Leak]:
    def moment(i: int) -> tuple[str, str]:
        metadata = photographs[i].metadata
        return metadata.taken if metadata else "", photographs[i].name

    for group in groups:
        ordered = sorted(group, key=moment)
        position = {i: place for place, i in enumerate(ordered)}
        for _, members, later in _crossings(photographs, ordered):
            places = [position[j] for j in members]
            for i in later:
                after = bisect(places, position[i])
                around = places[max(after - 1, 0) : after + 1]
                nearest = ordered[min(around, key=lambda place: abs(place - position[i]))]
                yield _leak(photographs, "burst", nearest, i, math.nan)
