"""Find the photographs that must stay together: the user's groups, joined if they share a photograph or a burst."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from bldml.dataset.duplicates.find import Duplicates, UnionFind, exact_groups, pairs_with_first
from bldml.dataset.files import escape_text, show_path, unescape_path
from bldml.dataset.manifest import TOO_MANY_CELLS, list_rows
from bldml.dataset.tables.paths import from_windows
from bldml.dataset.tables.reading import read_rows
from bldml.dataset.tables.values import CellValues
from bldml.errors import DatasetError, UsageError
from bldml.io.text import counted, first_few, without_apostrophe

LinkReason = Literal[
    "identical files", "near duplicates", "same name", "named as made from one photograph", "same burst"
]
MOST_NAMES = 3


class Link(NamedTuple):
    """Two photographs, by index, that must not be separated."""

    a: int
    b: int
    reason: LinkReason


class Join(NamedTuple):
    """Two of the user's groups that were joined, because a photograph of each must stay with the other."""

    groups: tuple[str, str]
    names: tuple[str, str]
    reason: LinkReason

    def __str__(self) -> str:
        groups, names = (" and ".join(map(show_path, self.groups)), ", ".join(map(show_path, self.names)))
        return f"{groups} were joined: {self.reason} ({names})"


def folder_groups(names: Sequence[str], depth: int, level: int | None = None) -> list[str]:
    """Return the folder below the class folder as the group of each photograph; empty if there is none.

    Folders of the same name in two classes form one group: a tree may have healthy and diseased leaves. If BLD/tree1
    and No_BLD/tree1 are different trees, rename the folders or use a table of groups.

    Args:
        names: Paths below the data folder, as `escape_path` writes them.
        depth: Depth of the class folders: 1, or 2 below split folders.
        level: Number of folders that form a group, such as 1 for sites that contain trees; None for all.

    Raises:
        DatasetError: No photograph is in such a folder, or none is that deep.

    >>> folder_groups(["BLD/site/tree/1.jpg", "BLD/2.jpg", "No_BLD/site/tree/3.jpg"], 1)
    ['site/tree', '', 'site/tree']
    >>> folder_groups(["train/BLD/site/tree/1.jpg"], 2, level=1)
    ['site']
    """
    below = [PurePosixPath(name).parts[depth:-1] for name in names]
    deepest = max(map(len, below), default=0)
    if names and not deepest:
        raise DatasetError(
            f"--group folder needs folders below the class folders, such as {PurePosixPath(names[0]).parent}/tree_1; "
            "there are none. Use --group burst, or a table of groups: --group FILE.csv.",
            "group-folders-none",
        )
    if names and level is not None and level > deepest:
        example = next(name for name, parts in zip(names, below, strict=True) if len(parts) == deepest)
        levels = "is 1 folder level" if deepest == 1 else f"are at most {deepest} folder levels"
        message = (
            f"--group folder:{level} is too deep: there {levels} below the class folders, for example in "
            f"{show_path(example)}. Use --group folder:{deepest}, or --group folder for all levels."
        )
        raise DatasetError(message, "group-level-too-deep", found=level, expected=deepest)
    return ["/".join(parts[:level]) for parts in below]


def name_groups(names: Sequence[str], expression: str) -> list[str]:
    r"""Return what the first group of a regular expression finds in the name of each file; empty without a match.

    Names are searched without their folders, so photographs of two classes may be in one group, as for `folder_groups`.

    Raises:
        UsageError: The expression is none, has no group, or matches no name.

    >>> name_groups(["BLD/IMG_3060_1.jpg", "BLD/IMG_3060_2.jpg", "BLD/leaf.jpg"], r"^(IMG_\d+)")
    ['IMG_3060', 'IMG_3060', '']
    """
    example = r"Write one such as name:^(IMG_\d+): what its first brackets find in the file name is the group."
    try:
        compiled = re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        message = f"--group name:{expression} is not a regular expression: {error}. {example}"
        raise UsageError(message, "group-expression-wrong", found=expression, reason=str(error)) from error
    if not compiled.groups:
        message = f"--group name:{expression} has no brackets. {example}"
        raise UsageError(message, "group-expression-without-group", found=expression)
    found = [compiled.search(unescape_path(name.rpartition("/")[2])) for name in names]
    groups = [escape_text(match[1] or "") if match else "" for match in found]
    if names and not any(groups):
        first = show_path(names[0].rpartition("/")[2])
        count = counted(len(names), "file name")
        message = f"--group name:{expression} matches none of {count}, such as {first}. {example}"
        raise UsageError(message, "group-expression-unmatched", found=expression, example=names[0])
    return groups


def table_groups(table: Path, names: Sequence[str], notes: list[str] | None = None) -> tuple[list[str], list[str]]:
    """Read groups from a CSV with the columns path and group.

    A path is relative to the data folder. It may also be only a file name, or a file name without suffix, which stands
    for all photographs of one folder with this stem. What was read otherwise than it is written is added to `notes`.

    Returns:
        The group of each of `names`, empty if its cell is empty; and the paths in the table that match no photograph.

    Raises:
        DatasetError: The table cannot be read, lacks photographs, assigns two groups to one, or a name is ambiguous.
    """
    lookup = _Lookup(names)
    groups: dict[int, str] = {}
    ambiguous: set[int] = set()
    unknown: list[str] = []
    problems: list[tuple[int, str, str]] = []  # row, kind, text
    columns, noun = ("path", "group"), "table of groups"
    values = CellValues(lambda column: (cells[column] for _, cells, _ in read_rows(table, columns, noun=noun)))
    for number, cells, is_too_wide in read_rows(table, columns, noun=noun, notes=notes):
        text = cells["path"].strip()
        group = escape_text(without_apostrophe(values.group(cells["group"].strip(), as_bytes=False)))
        found = lookup.find(text)
        if is_too_wide:
            problems.append((number, *TOO_MANY_CELLS))
        elif not found:
            unknown.append(show_path(text) or f"row {number} (empty path)")
        elif len({PurePosixPath(names[i]).parent for i in found}) > 1:
            several = ", ".join(show_path(names[i]) for i in found[:MOST_NAMES])
            problems.append((number, "path-ambiguous", f"{show_path(text)} is ambiguous ({several}); write the path"))
            ambiguous.update(found)
            continue
        problems += [
            (number, "group-twice", f"{show_path(names[i])} has two groups, {groups[i]} and {group}")
            for i in found
            if groups.setdefault(i, group) != group
        ]
    missing = [name for i, name in enumerate(names) if i not in groups and i not in ambiguous]
    if problems or missing:
        raise _wrong_table(table, problems, missing, unknown, len(names))
    if notes is not None:
        notes += [f"The table of groups {show_path(table)}: {note}" for note in (*lookup.notes(), *values.notes())]
    return [groups[i] for i in range(len(names))], unknown


def _wrong_table(
    table: Path, problems: Sequence[tuple[int, str, str]], missing: Sequence[str], unknown: Sequence[str], count: int
) -> DatasetError:
    rows = [f"row {number}: {text}" for number, _, text in problems]
    rows += [f"no group for {show_path(name)}" for name in missing]
    listed = list_rows(rows)
    if unknown and missing:
        verb = "matches" if len(unknown) == 1 else "match"
        listed += f"\n  {counted(len(unknown), 'path')} in the table {verb} no photograph, first {unknown[0]}"
    wrong = [counted(len(problems), "wrong row")] if problems else []
    wrong += [f"{len(missing)} of {counted(count, 'photograph')} missing"] if missing else []
    return DatasetError(
        f"The table of groups {show_path(table)} has errors: {', '.join(wrong)}.\n  {listed}\n"
        "Write one row per photograph: the path relative to the data folder (or the file name, with or without suffix, "
        "where it is unique) and the group (empty for a photograph of its own).",
        "group-table-wrong",
        path=table,
        found=[(number, kind) for number, kind, _ in problems],
        missing=[*missing],
        unknown=[*unknown],
    )


class _Lookup:
    """Indexes of photographs by path, by file name and by stem, in Unicode form NFC; then in any capitals."""

    def __init__(self, names: Sequence[str]) -> None:
        self.tables: tuple[dict[str, list[int]], ...] = tuple(defaultdict(list) for _ in range(6))
        self.read = 0  # paths found only by their last folders, or without regard to capitals
        for i, name in enumerate(names):
            path = PurePosixPath(unicodedata.normalize("NFC", unescape_path(name)))
            keys = (str(path), path.name, path.stem)
            for table, key in zip(self.tables, (*keys, *map(str.casefold, keys)), strict=True):
                table[key].append(i)

    def notes(self) -> list[str]:
        """Return how paths were read that are no path as they are written."""
        if not self.read:
            return []
        count = counted(self.read, "path was", "paths were")
        return [f"{count} read in other capitals, or without folders at the beginning or a “.0” at the end."]

    def find(self, text: str) -> list[int]:
        """Return the photographs that a cell refers to; its path may have been written on Windows."""
        for spelling in (unescape_path(text), text, text.replace("\\", "/")):
            key = unicodedata.normalize("NFC", str(PurePosixPath(spelling))) if spelling else ""
            for table in self.tables[:3]:
                if key in table:
                    return table[key]
        self.read += 1
        path = PurePosixPath(unicodedata.normalize("NFC", from_windows(text).replace("\\", "/")).casefold())
        tails = ["/".join(path.parts[start:]) for start in range(max(1, len(path.parts) - 1))]
        for tail in (*tails, re.sub(r"(?<=\d)\.0$", "", str(path))):
            for table in self.tables[3:]:
                if tail in table:
                    return table[tail]
        self.read -= 1
        return []


def find_links(duplicates: Duplicates, sources: Sequence[Sequence[int]], bursts: Sequence[str]) -> list[Link]:
    """Return the links between duplicates and photographs of one name, within `sources`, and `bursts` if not empty."""
    links: list[tuple[LinkReason, Iterable[tuple[int, int]]]] = [
        ("identical files", pairs_with_first(duplicates.exact)),
        ("near duplicates", ((pair.a, pair.b) for pair in duplicates.near_duplicates)),
        ("same name", pairs_with_first(duplicates.same_name)),
        ("named as made from one photograph", pairs_with_first(sources)),
        ("same burst", pairs_with_first(exact_groups(bursts))),
    ]
    return [Link(a, b, reason) for reason, pairs in links for a, b in pairs]


def join_groups(names: Sequence[str], own: Sequence[str], links: Iterable[Link]) -> tuple[list[str], list[Join]]:
    """Join the user's groups (`own`, empty for none) wherever photographs of two groups must not be separated.

    Returns:
        The group of each photograph, named after the user's groups in it or else after its first photograph; and the
        joins.

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
        one, other = own[link.a] or label.get(a, ""), own[link.b] or label.get(b, "")
        if one and other:
            joins.append(Join((one, other), (names[link.a], names[link.b]), link.reason))
        root = sets.union(a, b)
        if group := label.get(a) or other:
            label[root] = group
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(names)):
        members[sets.find(i)].append(i)
    return _group_names(list(members.values()), names, own), joins


def _group_names(members: Sequence[Sequence[int]], names: Sequence[str], own: Sequence[str]) -> list[str]:
    """Return the name of each photograph's group; names are unique."""
    taken = set(own)
    result = [""] * len(names)
    for indexes in sorted(members, key=lambda indexes: min(names[i] for i in indexes)):
        groups = sorted({own[i] for i in indexes if own[i]})
        group = first_few(groups, MOST_NAMES, " + ", " + ") or min(names[i] for i in indexes)
        while len(groups) != 1 and group in taken:  # a group of the user's may have the name of a photograph
            group += "'"
        taken.add(group)
        for i in indexes:
            result[i] = group
    return result
