"""Which photographs must stay together: groups that the user names, joined where two hold the same photograph."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from bldml.dataset.duplicates.graph import UnionFind
from bldml.dataset.files import escape_text, show_path, unescape_path
from bldml.dataset.manifest import MOST_ROWS_SHOWN, read_rows
from bldml.errors import DatasetError
from bldml.io.csvfile import without_apostrophe
from bldml.io.text import counted

if TYPE_CHECKING:
    from bldml.dataset.duplicates.find import Duplicates

Why = Literal["the same content", "near duplicates", "twins by name", "a copy by name", "one burst"]
MOST_NAMES = 3


@dataclass(frozen=True)
class Link:
    """Two photographs that must not be separated.

    Attributes:
        a: Number of the one.
        b: Number of the other.
        why: What they have in common.
    """

    a: int
    b: int
    why: Why


@dataclass(frozen=True)
class Join:
    """Two groups of the user's that became one.

    Attributes:
        groups: Names of the two.
        names: Of the photographs, one of either side, that are the same or of one burst.
        why: What they have in common.
    """

    groups: tuple[str, str]
    names: tuple[str, str]
    why: Why

    def __str__(self) -> str:
        """Say it in a sentence's part."""
        return (
            f"{show_path(self.groups[0])} and {show_path(self.groups[1])} were joined: {self.why} "
            f"({show_path(self.names[0])}, {show_path(self.names[1])})"
        )


def folder_groups(names: Sequence[str], depth: int, level: int | None = None) -> list[str]:
    """The folders below the class folder as groups; empty for what lies in the class folder itself.

    Folders of the same name below two classes are one group: a tree may have healthy and diseased leaves. Where
    BLD/tree1 and No_BLD/tree1 are different trees, rename the folders or give a table of groups.

    Args:
        names: Paths below the data folder, as `escape_path` writes them.
        depth: Folders down to the class folder: 1, or 2 where split folders come first.
        level: How many folders below the class folder count, such as 1 for a site that holds trees; None for all.

    Raises:
        DatasetError: No photograph lies in such a folder, or none that deep.

    >>> folder_groups(["BLD/site/tree/1.jpg", "BLD/2.jpg", "No_BLD/site/tree/3.jpg"], 1)
    ['site/tree', '', 'site/tree']
    >>> folder_groups(["train/BLD/site/tree/1.jpg"], 2, level=1)
    ['site']
    """
    below = [PurePosixPath(name).parts[depth:-1] for name in names]
    groups = ["/".join(parts[:level]) for parts in below]
    if names and not any(groups):
        raise DatasetError(
            f"No photograph lies in a folder below its class folder, such as {PurePosixPath(names[0]).parent}/tree_1, "
            "so folders say nothing about groups. Give --group burst, or a table of groups: --group FILE.csv."
        )
    deepest = max(map(len, below), default=0)
    if names and level is not None and level > deepest:
        example = next(name for name, parts in zip(names, below, strict=True) if len(parts) == deepest)
        raise DatasetError(
            f"--group folder:{level} is deeper than the folders: below the class folders there {_levels(deepest)}, "
            f"such as in {show_path(example)}. Give --group folder:{deepest}, or folder for all of them."
        )
    return groups


def _levels(number: int) -> str:
    return "is 1 level of them" if number == 1 else f"are at most {number} levels of them"


def table_groups(table: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The groups that a CSV with the columns path and group names.

    A path starts from the data folder. Where it is no such path, it may be a file's name alone, or that without its
    suffix; all photographs of one folder that have this stem are meant.

    Args:
        table: The file.
        names: Paths below the data folder, as `escape_path` writes them.

    Returns:
        The group of each photograph, empty where its cell is; and the paths in the table that fit none.

    Raises:
        DatasetError: The table cannot be read, misses photographs, gives one two groups, or a name fits several.
    """
    lookup = _Lookup(names)
    groups: dict[int, str] = {}
    perhaps: set[int] = set()
    unknown: list[str] = []
    problems: list[str] = []
    for number, cells, is_too_wide in read_rows(table, ("path", "group"), noun="table of groups"):
        text, group = cells["path"].strip(), escape_text(without_apostrophe(cells["group"].strip()))
        found = lookup.find(text)
        if is_too_wide:
            problems.append(f"row {number}: more cells than row 1; a cell with a comma in it needs quotes")
        elif not found:
            unknown.append(show_path(text) or f"row {number}, without a path")
        elif len({PurePosixPath(names[i]).parent for i in found}) > 1:
            several = ", ".join(show_path(names[i]) for i in found[:MOST_NAMES])
            problems.append(f"row {number}: {show_path(text)} may be {several}; give the path")
            perhaps.update(found)
            continue
        problems += [
            f"row {number}: {show_path(names[i])} has two groups, {groups[i]} and {group}"
            for i in found
            if groups.setdefault(i, group) != group
        ]
    named = perhaps.union(groups)
    missing = [f"no group for {show_path(name)}" for i, name in enumerate(names) if i not in named]
    if problems or missing:
        shown = (problems + missing)[:MOST_ROWS_SHOWN]
        if more := len(problems) + len(missing) - len(shown):
            shown.append(f"… and {more} more")
        hint = f"\nIt names {len(unknown)} that are not there, first {unknown[0]}." if unknown and missing else ""
        wrong = [f"{counted(len(problems), 'fault')} in it"] if problems else []
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            wrong.append(f"{len(missing)} of {counted(len(names), 'photograph')} {verb} not in it")
        raise DatasetError(
            f"The table of groups {show_path(table)} cannot be used: {', '.join(wrong)}.\n  "
            + "\n  ".join(shown)
            + f"{hint}\nPaths start from the data folder; a file's name or its stem "
            "will do where it is the only one. A photograph by itself has a row with an empty group."
        )
    return [groups[i] for i in range(len(names))], unknown


class _Lookup:
    """Photographs by path, by file name and by stem."""

    def __init__(self, names: Sequence[str]) -> None:
        self.by: tuple[dict[str, list[int]], ...] = (defaultdict(list), defaultdict(list), defaultdict(list))
        for i, name in enumerate(names):
            path = PurePosixPath(unescape_path(name))
            for found, key in zip(self.by, (str(path), path.name, path.stem), strict=True):
                found[_same(key)].append(i)

    def find(self, text: str) -> list[int]:
        """Those that a cell means; it may be written by a program on Windows."""
        for spelling in (unescape_path(text), text, text.replace("\\", "/")):
            key = _same(str(PurePosixPath(spelling))) if spelling else ""
            for found in self.by:
                if key in found:
                    return found[key]
        return []


def _same(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def content_links(found: "Duplicates") -> list[Link]:
    """What ties photographs that are the same, or are named as if they were twins."""
    links = [Link(group[0], i, "the same content") for group in found.exact for i in group[1:]]
    links += [Link(pair.a, pair.b, "near duplicates") for pair in found.near_duplicates]
    links += [Link(copy.original, copy.copy, "a copy by name") for copy in found.copies]
    return links + [Link(group[0], i, "twins by name") for group in found.same_name for i in group[1:]]


def burst_links(bursts: Sequence[str]) -> list[Link]:
    """What ties the photographs of a burst.

    Args:
        bursts: The burst of each photograph, as `bursts.burst_groups` names them.
    """
    first: dict[str, int] = {}
    return [Link(first[burst], i, "one burst") for i, burst in enumerate(bursts) if first.setdefault(burst, i) != i]


def join_groups(names: Sequence[str], own: Sequence[str], links: Iterable[Link]) -> tuple[list[str], list[Join]]:
    """Join the user's groups where photographs of two of them must not be separated.

    Args:
        names: Of the photographs.
        own: The user's group of each; empty for none.
        links: What must stay together beside.

    Returns:
        The group of each photograph, named by the user's groups in it, else by the first of its photographs; and what
        was joined.

    >>> groups, joins = join_groups(["a", "b", "c", "d"], ["t1", "t1", "t2", ""], [Link(1, 2, "near duplicates")])
    >>> groups, str(joins[0])
    (['t1 + t2', 't1 + t2', 't1 + t2', 'd'], 't1 and t2 were joined: near duplicates (b, c)')
    """
    sets = UnionFind(len(names))
    label: dict[int, str] = {}  # by root: one of the user's groups in the set, for the message
    first: dict[str, int] = {}
    for i, group in enumerate(own):
        if group:
            label[sets.union(first.setdefault(group, i), i)] = group
    joins: list[Join] = []
    for link in links:
        a, b = sets.find(link.a), sets.find(link.b)
        if a == b:
            continue
        labels = [own[i] or label.get(root, "") for i, root in ((link.a, a), (link.b, b))]
        if all(labels):
            joins.append(Join((labels[0], labels[1]), (names[link.a], names[link.b]), link.why))
        root = sets.union(a, b)
        if group := label.get(a) or labels[1]:
            label[root] = group
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(names)):
        members[sets.find(i)].append(i)
    return _call(list(members.values()), names, own), joins


def _call(members: Sequence[Sequence[int]], names: Sequence[str], own: Sequence[str]) -> list[str]:
    """The name of each photograph's group; no two groups get the same."""
    taken = set(own)
    result = [""] * len(names)
    for inside in sorted(members, key=lambda inside: min(names[i] for i in inside)):
        groups = sorted({own[i] for i in inside if own[i]})
        more = f" + {len(groups) - MOST_NAMES} more" if len(groups) > MOST_NAMES else ""
        called = " + ".join(groups[:MOST_NAMES]) + more if groups else min(names[i] for i in inside)
        while len(groups) != 1 and called in taken:  # the user may have named a group like a photograph
            called += "'"
        taken.add(called)
        for i in inside:
            result[i] = called
    return result
