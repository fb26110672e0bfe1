"""What the command `split` says on the screen."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from bldml.dataset.duplicates import Duplicates
from bldml.dataset.earlier import Kept
from bldml.dataset.files import show_path
from bldml.dataset.grouping import Join, Link, Why
from bldml.dataset.samples import SPLITS, Collection, Sample
from bldml.dataset.splits import Request

WORDS: dict[Why, str] = {
    "the same content": "with the same content as another",
    "near duplicates": "nearly alike",
    "twins by name": "with names that differ in case or suffix alone",
    "a copy by name": "named as copies",
    "one burst": "in bursts",
}
FEW = 5
FAR = 0.05  # a share that is missed by more is explained


def tell_left_out(found: Collection, unreadable: Sequence[tuple[str, str]]) -> list[str]:
    """What was found and not used, or cannot be read (names and reasons)."""
    lines = []
    if unreadable:
        names = some([f"{show_path(name)} ({reason})" for name, reason in unreadable])
        lines.append(
            f"Warning: {len(unreadable)} photographs cannot be read: {names}. They are in the manifest "
            "without sha256, and a fit stops at them unless it is told --data.unreadable exclude."
        )
    if found.heif:
        names = some([show_path(path.relative_to(found.root)) for path in found.heif])
        lines.append(f"Warning: {len(found.heif)} HEIC photographs are left out: {names}. Install bldml[heif].")
    if found.ignored:
        ignored = ", ".join(f"{count} × {reason}" for reason, count in sorted(found.ignored.items()))
        lines.append(f"Left out because they are no photographs of a class: {ignored}.")
    return lines


def tell_two_classes(duplicates: Duplicates, names: Sequence[str]) -> list[str]:
    """Photographs whose copies have other labels."""
    if not duplicates.two_classes:
        return []
    pairs = [" and ".join(show_path(names[i]) for i in group) for group in duplicates.two_classes]
    return [f"Warning: the same photograph lies in two classes, {len(pairs)} times: {some(pairs)}. One label is wrong."]


def tell_together(links: Sequence[Link], joins: Sequence[Join]) -> list[str]:
    """How many photographs must not be separated, and which groups that has joined."""
    touched: dict[Why, set[int]] = defaultdict(set)
    for link in links:
        touched[link.why] |= {link.a, link.b}
    lines = []
    if touched:
        counts = ", ".join(f"{len(numbers)} {WORDS[why]}" for why, numbers in touched.items())
        lines.append(f"Photographs kept together: {counts}.")
    if joins:
        lines.append(f"Groups joined, {len(joins)} times:")
        lines += [f"  {join}" for join in joins[:FEW]]
        lines += [f"  … and {len(joins) - FEW} more"] if len(joins) > FEW else []
    return lines


def tell_kept(kept: Kept | None, count: int) -> list[str]:
    """What of an earlier division was found among so many photographs."""
    if kept is None:
        return []
    line = (
        f"{len(kept.places)} photographs keep their places, {count - len(kept.places)} are new, {kept.gone} are gone."
    )
    lines = [line[:-1] + f"; {kept.moved} have another name than before." if kept.moved else line]
    if kept.changed:
        lines.append(f"Warning: {len(kept.changed)} have another content than before: {some(kept.changed)}.")
    return lines


def tell_division(division: Collection, request: Request) -> list[str]:
    """Table of splits and folds: photographs, shares reached and asked for, classes, groups."""
    everything = [sample for split in division.splits.values() for sample in split]
    rest = [s for s in everything if s.name in division.folds]
    parts: list[tuple[str, list[Sample], list[Sample], float]] = [
        (split, list(division.splits.get(split, ())), everything, share)
        for split, share in zip(SPLITS, request.shares, strict=True)
        if share or split in division.splits
    ]
    for k in range(request.folds or 0):
        inside = [s for s in rest if division.folds[s.name] == str(k)]
        parts.append((f"fold {k}", inside, rest, 1 / (request.folds or 1)))
    whole = Counter(s.class_name for s in everything)
    rows = [["", "photographs", "share", "asked", *map(show_path, sorted(whole)), "groups"]]
    for name, inside, among, asked in parts:
        count, total = Counter(s.class_name for s in inside), Counter(s.class_name for s in among)
        classes = [f"{count[c]} ({_share(count[c], total[c])})" for c in sorted(whole)]
        row = [name, str(len(inside)), _share(len(inside), len(among)), f"{asked:.1%}".replace("%", " %")]
        rows.append([*row, *classes, str(len({s.group for s in inside}))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    far = [
        f"{name} {_share(len(inside), len(among))} instead of {asked:.1%}".replace("%", " %").replace("  %", " %")
        for name, inside, among, asked in parts
        if abs(len(inside) / max(len(among), 1) - asked) > FAR
    ]
    if far:
        group, size = Counter(s.group for s in everything).most_common(1)[0]
        lines.append(
            f"Shares that could not be met: {', '.join(far)}. A group is never divided (the largest, "
            f"{show_path(group)}, has {size} photographs), no class may be missing from a split, and old photographs "
            "keep their places."
        )
    return lines


def tell_next(root: Path, output: Path, request: Request) -> list[str]:
    """Where the manifest is, and the command that trains with it."""
    fold = " --data.fold 0" if request.folds else ""
    return [
        f"Wrote {show_path(output)}. Next:",
        "  python -m bldml fit --config configs/efficientnet.yaml "
        f"--data.root {quote(show_path(root))} --data.manifest {quote(show_path(output))}{fold}",
    ]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many there are.

    >>> some(["a", "b"]), some(list("abcdefg"))
    ('a, b', 'a, b, c, d, e, … (7)')
    """
    return ", ".join(show_path(name) for name in names[:FEW]) + (f", … ({len(names)})" if len(names) > FEW else "")
