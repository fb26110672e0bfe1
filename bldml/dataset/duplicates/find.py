"""Find the same photograph more than once: equal files, near duplicates, the same name, copies."""

from collections.abc import Sequence
from dataclasses import dataclass

from bldml.dataset.duplicates.graph import component_roots, components, groups_of_equal
from bldml.dataset.duplicates.names import Copy, copies_by_name, same_name_groups
from bldml.dataset.duplicates.phash import NearDuplicate, PHashes, find_near_duplicates


@dataclass(frozen=True)
class Duplicates:
    """Photographs that occur more than once; all numbers are indexes.

    Attributes:
        exact: Groups of equal content.
        near_duplicates: Pairs of the same photograph whose contents are not equal.
        same_name: Groups whose names differ only in case or suffix, whatever their content.
        copies: Photographs named as copies that are exact or near duplicates of their originals.
        groups: Groups of the same photograph: exact and near duplicates joined.
        two_classes: Those of `groups` that contain more than one class.
    """

    exact: tuple[tuple[int, ...], ...]
    near_duplicates: tuple[NearDuplicate, ...]
    same_name: tuple[tuple[int, ...], ...]
    copies: tuple[Copy, ...]
    groups: tuple[tuple[int, ...], ...]
    two_classes: tuple[tuple[int, ...], ...]


def find_duplicates(
    names: Sequence[str],
    class_names: Sequence[str],
    digests: Sequence[str],
    phashes: PHashes | None = None,
    near_duplicates: Sequence[NearDuplicate] | None = None,
) -> Duplicates:
    """Find photographs that occur more than once.

    Args:
        names: Paths below the data folder.
        class_names: Class of each photograph; empty where unknown.
        digests: SHA-256 of each file; empty where unknown, which equals nothing.
        phashes: Perceptual hash of each photograph, to search for near duplicates.
        near_duplicates: Near duplicates, where known already; `phashes` are then not searched again.
    """
    if near_duplicates is None:
        near_duplicates = [] if phashes is None else find_near_duplicates(phashes)
    exact = exact_groups(digests)
    links = [(group[0], i) for group in exact for i in group[1:]] + [(pair.a, pair.b) for pair in near_duplicates]
    root = component_roots(len(names), links)
    groups = components(len(names), links)
    return Duplicates(
        exact=tuple(exact),
        near_duplicates=tuple(
            pair for pair in near_duplicates if not digests[pair.a] or digests[pair.a] != digests[pair.b]
        ),
        same_name=tuple(same_name_groups(names)),
        copies=tuple(copy for copy in copies_by_name(names) if root[copy.original] == root[copy.copy]),
        groups=tuple(groups),
        two_classes=tuple(group for group in groups if len({class_names[i] for i in group} - {""}) > 1),
    )


def exact_groups(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Return groups of equal content; an empty digest equals nothing.

    >>> exact_groups(["a", "b", "a", "", ""])
    [(0, 2)]
    """
    return groups_of_equal([digest or i for i, digest in enumerate(digests)])
