"""Connected components: which of many items are linked, directly or through others."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence


class UnionFind:
    """Disjoint sets of the integers 0 to n - 1; the root of a set is its smallest member.

    Args:
        n: Number of items, each a set of its own at first.

    >>> sets = UnionFind(3)
    >>> sets.union(2, 1), sets.find(2)
    (1, 1)
    """

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
    """Return for each of n items the smallest item of its connected component.

    >>> component_roots(5, [(1, 3), (4, 3)])
    [0, 1, 2, 1, 1]
    """
    sets = UnionFind(n)
    for a, b in links:
        sets.union(a, b)
    return [sets.find(item) for item in range(n)]


def components(n: int, links: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Return the connected components that hold at least two of n items.

    >>> components(5, [(1, 3), (4, 3)])
    [(1, 3, 4)]
    """
    return groups_of_equal(component_roots(n, links))


def groups_of_equal(keys: Sequence[Hashable]) -> list[tuple[int, ...]]:
    """Return the indexes of equal keys as groups, without keys that occur once; in the order of the first index.

    >>> groups_of_equal(["a", "b", "a", "c"])
    [(0, 2)]
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        members[key].append(i)
    return [tuple(group) for group in members.values() if len(group) > 1]
