"""Find what occurs more than once: equal files, near duplicates, the same name, copies by name."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from bldml.dataset.duplicates.marks import plain_stem
from bldml.dataset.duplicates.names import folder_without_split, source_name
from bldml.dataset.duplicates.phash import NearDuplicate


@dataclass(frozen=True)
class Duplicates:
    """Photographs that occur more than once, or seem to; all numbers are indexes.

    Equal content is a fact. Near duplicates and names are reasons to look at the photographs.
    """

    exact: tuple[tuple[int, ...], ...]  # groups of equal content
    near_duplicates: tuple[NearDuplicate, ...]  # pairs whose contents are not equal
    same_name: tuple[tuple[int, ...], ...]  # groups whose names differ only in case or suffix, whatever their content
    copies: tuple[tuple[int, int], ...]  # original and copy by name, where they are exact or near duplicates
    groups: tuple[tuple[int, ...], ...]  # exact and near duplicates joined
    two_classes: tuple[tuple[int, ...], ...]  # equal content or pixels with more than one class: a label is wrong
    near_two_classes: tuple[tuple[int, ...], ...]  # those of `groups` with more than one class, but not equal


def find_duplicates(
    names: Sequence[str],
    class_names: Sequence[str],
    digests: Sequence[str],
    near_duplicates: Sequence[NearDuplicate],
    equal_pixels: Sequence[tuple[int, int]] = (),
) -> Duplicates:
    """Find photographs that occur more than once, or seem to.

    Args:
        names: Paths below the data folder.
        class_names: Class of each photograph; empty where unknown.
        digests: SHA-256 of each file; empty where unknown, which equals nothing.
        near_duplicates: Result of `find_near_duplicates`.
        equal_pixels: Those near duplicates whose pixels are known to be equal.
    """
    exact = exact_groups(digests)
    root = component_roots(len(names), pairs_with_first(exact) + [(pair.a, pair.b) for pair in near_duplicates])
    groups = groups_of_equal(root)
    equal = groups_of_equal(component_roots(len(names), [*pairs_with_first(exact), *equal_pixels]))

    def in_two_classes(found: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return [group for group in found if len({class_names[i] for i in group} - {""}) > 1]

    two_classes = in_two_classes(equal)
    return Duplicates(
        exact=tuple(exact),
        near_duplicates=tuple(
            pair for pair in near_duplicates if not digests[pair.a] or digests[pair.a] != digests[pair.b]
        ),
        same_name=tuple(same_name_groups(names)),
        copies=tuple((original, copy) for original, copy in copies_by_name(names) if root[original] == root[copy]),
        groups=tuple(groups),
        two_classes=tuple(two_classes),
        near_two_classes=tuple(group for group in in_two_classes(groups) if group not in two_classes),
    )


def exact_groups(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Return groups of equal content; an empty digest equals nothing."""
    return groups_of_equal([digest or i for i, digest in enumerate(digests)])


# Connected components: which of many items are linked, directly or through others.


class UnionFind:
    """Disjoint sets of the integers 0 to n - 1; the root of a set is its smallest member."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, item: int) -> int:
        """Return the root of the set that holds an item."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def union(self, a: int, b: int) -> int:
        """Merge the sets of two items and return the root of the merged set."""
        root, other = sorted((self.find(a), self.find(b)))
        self._parent[other] = root
        return root


def component_roots(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each of n items the smallest item of its connected component."""
    sets = UnionFind(n)
    for a, b in links:
        sets.union(a, b)
    return [sets.find(item) for item in range(n)]


def groups_of_equal(keys: Sequence[Hashable]) -> list[tuple[int, ...]]:
    """Return the indexes of equal keys as groups, without keys that occur once; in the order of the first index.

    >>> groups_of_equal(["a", "b", "a", "c"])
    [(0, 2)]
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        members[key].append(i)
    return [tuple(group) for group in members.values() if len(group) > 1]


def pairs_with_first(groups: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Return the first member of each group paired with each other member.

    >>> pairs_with_first([(0, 2, 5), (1, 3)])
    [(0, 2), (0, 5), (1, 3)]
    """
    return [(group[0], member) for group in groups for member in group[1:]]


# What names of files reveal.


def same_name_groups(names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return groups of files in one folder whose names differ only in case, suffix or Unicode form."""
    return groups_of_equal([(name.rpartition("/")[0], plain_stem(name)) for name in names])


def copies_by_name(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return each photograph that is named as a copy of another in its folder, as (original, copy), sorted.

    A name alone proves nothing. Split folders are ignored: `val/BLD/a (1).jpg` may be a copy of `train/BLD/a.jpg`.

    >>> copies_by_name(["BLD/a.jpg", "BLD/a - Copy (2).jpg", "BLD/Kopie von a.jpg", "BLD/b.jpg"])
    [(0, 1), (0, 2)]
    """
    families: dict[tuple[str, str], list[tuple[int, str, int]]] = defaultdict(list)
    for i, name in enumerate(names):
        stem = plain_stem(name)
        bare = source_name(name)
        families[folder_without_split(name), bare].append((len(stem) - len(bare), name, i))
    copies = []
    for family in families.values():
        (_, _, original), *others = sorted(family)
        copies += [(original, i) for marks, _, i in others if marks]
    return sorted(copies)
