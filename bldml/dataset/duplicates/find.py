"""The same photograph more than once: equal files, twins by suffix, copies by name, near duplicates."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from bldml.dataset.duplicates.phash import Near, Prints, near_pairs
from bldml.dataset.samples import SPLITS

# What Windows, macOS, phones and photo programs add to a name, in English, German, French, Spanish and Italian.
_COPY = r"(?:copy|kopie|copie|copia)"
_EDITED = r"(?:edited|edit|bearbeitet|modifi[ée]e?|editad[oa]|modificat[oa])"
_MARKS = re.compile(
    rf"^{_COPY}(?: ?\(\d{{1,3}}\))? (?:of|von|de|di) "  # Copy of x, Copy (2) of x, Kopie von x
    rf"|(?: ?[-–_] ?| ){_COPY}(?: ?\(?\d{{1,3}}\)?)?$"  # x - Copy (2), x copy 2, x_copy
    rf"|[-_ ]{_EDITED}(?:-\d{{1,2}})?$"  # x_edited, x-bearbeitet
    r"|(?<=.) ?\(\d{1,3}\)$"  # x (1); Windows numbers whole selections so, too
    r"|(?<=.)~\d{1,2}$"  # x~2
)
_PHONE_EDITED = re.compile(r"^img_e(?=\d{4}$)")


@dataclass(frozen=True)
class Copy:
    """Two photographs of which one is named as a copy of the other.

    Attributes:
        original: Index of the one with the plainer name.
        copy: Index of the other.
    """

    original: int
    copy: int


@dataclass(frozen=True)
class Duplicates:
    """Photographs that are there more than once; numbers are indexes.

    Attributes:
        exact: Groups of equal content.
        near: Pairs of the same photograph whose content is not equal.
        twins: Groups of one name that differ in case or suffix alone, whatever their content.
        copies: What is named as a copy and is one, exact or near.
        groups: Exact and near joined: groups of the same photograph.
        two_classes: Those of `groups` that are in more than one class.
    """

    exact: tuple[tuple[int, ...], ...]
    near: tuple[Near, ...]
    twins: tuple[tuple[int, ...], ...]
    copies: tuple[Copy, ...]
    groups: tuple[tuple[int, ...], ...]
    two_classes: tuple[tuple[int, ...], ...]


def find_duplicates(
    names: Sequence[str],
    class_names: Sequence[str],
    digests: Sequence[str],
    prints: Prints | None = None,
    near: Sequence[Near] | None = None,
) -> Duplicates:
    """Find photographs that are there more than once.

    Args:
        names: Paths below the data folder.
        class_names: Of each; empty where unknown.
        digests: SHA-256 of each; empty where unknown, which equals nothing.
        prints: Of each, for near duplicates.
        near: Near pairs, where they are known already; `prints` are then not searched again.
    """
    if near is None:
        near = [] if prints is None else near_pairs(prints)
    exact = exact_groups(digests)
    links = [(group[0], i) for group in exact for i in group[1:]] + [(pair.a, pair.b) for pair in near]
    first = joined(len(names), links)
    groups = components(len(names), links)
    return Duplicates(
        exact=tuple(exact),
        near=tuple(pair for pair in near if not digests[pair.a] or digests[pair.a] != digests[pair.b]),
        twins=tuple(twins(names)),
        copies=tuple(pair for pair in copies_by_name(names) if first[pair.original] == first[pair.copy]),
        groups=tuple(groups),
        two_classes=tuple(group for group in groups if len({class_names[i] for i in group} - {""}) > 1),
    )


def joined(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Join what pairs link: for each of n things the smallest that it hangs together with.

    >>> joined(5, [(1, 3), (4, 3)])
    [0, 1, 2, 1, 1]
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(i) for i in range(n)]


def components(n: int, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Groups of two and more of n things that pairs link.

    >>> components(5, [(1, 3), (4, 3)])
    [(1, 3, 4)]
    """
    return _groups(joined(n, pairs))


def exact_groups(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Groups of equal content; an empty digest equals nothing.

    >>> exact_groups(["a", "b", "a", "", ""])
    [(0, 2)]
    """
    return _groups([digest or i for i, digest in enumerate(digests)])


def twins(names: Sequence[str]) -> list[tuple[int, ...]]:
    """Groups of files of one folder whose names differ in case, suffix or Unicode form alone.

    >>> twins(["BLD/a.jpg", "BLD/a.JPG", "BLD/A.jpeg", "No_BLD/a.jpg"])
    [(0, 1, 2)]
    """
    return _groups([(name.rpartition("/")[0], plain_stem(name)) for name in names])


def copies_by_name(names: Sequence[str]) -> list[Copy]:
    """What is named as a copy of another photograph of its folder; the names alone prove nothing.

    The folder of a split does not count: `val/BLD/a (1).jpg` may be a copy of `train/BLD/a.jpg`.

    >>> copies_by_name(["BLD/a.jpg", "BLD/a - Copy (2).jpg", "BLD/Kopie von a.jpg", "BLD/b.jpg"])
    [Copy(original=0, copy=1), Copy(original=0, copy=2)]
    """
    families: dict[tuple[str, str], list[tuple[int, str, int]]] = defaultdict(list)
    for i, name in enumerate(names):
        stem = plain_stem(name)
        bare = without_copy_marks(stem)
        families[place(name), bare].append((len(stem) - len(bare), name, i))
    found = []
    for family in families.values():
        if len(family) > 1:
            (_, _, original), *others = sorted(family)
            found += [Copy(original, i) for marks, _, i in others if marks]
    return sorted(found, key=lambda pair: (pair.original, pair.copy))


def place(name: str) -> str:
    """The folder of a photograph without that of its split.

    >>> place("train/BLD/tree 1/a.jpg"), place("BLD/a.jpg"), place("a.jpg")
    ('BLD/tree 1', 'BLD', '')
    """
    parts = name.removeprefix("./").split("/")[:-1]
    return "/".join(parts[1:] if parts and parts[0] in SPLITS else parts)


def plain_stem(name: str) -> str:
    """A file's name without folder and suffix, in one case and one Unicode form."""
    file = unicodedata.normalize("NFC", name.rpartition("/")[2])
    return (file.rpartition(".")[0] or file).casefold()


def without_copy_marks(stem: str) -> str:
    """A stem in lower case without what marks a copy.

    >>> [without_copy_marks(s) for s in ("a - copie (2)", "copy of a", "a (1)", "a-edited", "img_e0012", "leaf_1")]
    ['a', 'a', 'a', 'a', 'img_0012', 'leaf_1']
    """
    while (bare := _MARKS.sub("", stem, count=1)) != stem and bare:
        stem = bare
    return _PHONE_EDITED.sub("img_", stem)


def _groups(keys: Sequence[Hashable]) -> list[tuple[int, ...]]:
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        members[key].append(i)
    return [tuple(group) for group in members.values() if len(group) > 1]
