"""What the command `split` says on the screen."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from shlex import quote

from bldml.dataset.duplicates.find import Duplicates
from bldml.dataset.files import show_path
from bldml.dataset.samples import SPLITS, Collection, Sample
from bldml.dataset.splitting.groups import Join, Link, Why
from bldml.dataset.splitting.previous import Kept
from bldml.dataset.splitting.splits import SplitRequest
from bldml.io.text import counted

WORDS: dict[Why, str] = {
    "the same content": "with the same content as another",
    "near duplicates": "nearly alike",
    "twins by name": "with names that differ in case or suffix alone",
    "a copy by name": "named as copies",
    "one burst": "in bursts",
}
FEW = 5
FAR = 0.02  # a share that is missed by as much is explained
HEALTHY = ("no", "healthy", "control", "0")  # how the class begins that is not looked for
CONFIG = Path("configs/efficientnet.yaml")


def tell_left_out(found: Collection, unreadable: Sequence[tuple[str, str]]) -> list[str]:
    """What was found and not used, or cannot be read (names and reasons)."""
    lines = []
    if unreadable:
        names = some([f"{show_path(name)} ({reason})" for name, reason in unreadable])
        lines.append(
            f"Warning: {counted(len(unreadable), 'photograph')} cannot be read: {names}. They are in the manifest "
            "without sha256, and a fit stops at them unless it is told --data.unreadable exclude."
        )
    if found.heif:
        names = some([show_path(path.relative_to(found.root)) for path in found.heif])
        count = counted(len(found.heif), "HEIC photograph")
        lines.append(
            f"Warning: {count} {'is' if len(found.heif) == 1 else 'are'} left out: {names}. Install bldml[heif]."
        )
    if found.ignored:
        ignored = ", ".join(f"{count} × {reason}" for reason, count in sorted(found.ignored.items()))
        lines.append(f"Left out because they are no photographs of a class: {ignored}.")
    return lines


def tell_two_classes(duplicates: Duplicates, names: Sequence[str]) -> list[str]:
    """Photographs whose copies have other labels."""
    if not duplicates.two_classes:
        return []
    pairs = [" and ".join(show_path(names[i]) for i in group) for group in duplicates.two_classes]
    times = counted(len(pairs), "time")
    return [f"Warning: the same photograph lies in two classes, {times}: {some(pairs)}. One label is wrong."]


def tell_folders(names: Sequence[str], groups: Sequence[str], depth: int) -> list[str]:
    """How many folders became how many groups; `depth` is that of the class folders.

    >>> tell_folders(["BLD/tree1/1.jpg", "No_BLD/tree1/2.jpg", "No_BLD/tree2/3.jpg"], ["tree1", "tree1", "tree2"], 1)[0]
    'Groups by folder: 3 folders, 2 names. Folders of one name in several places are one group.'
    """
    inside = [(PurePosixPath(n).parts[:depth], group) for n, group in zip(names, groups, strict=True) if group]
    n_folders, n_names = len(set(inside)), len({group for _, group in inside})
    more = " Folders of one name in several places are one group." if n_folders > n_names else ""
    return [f"Groups by folder: {counted(n_folders, 'folder')}, {counted(n_names, 'name')}.{more}"]


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
        lines.append(f"Groups joined, {counted(len(joins), 'time')}:")
        lines += [f"  {join}" for join in joins[:FEW]]
        lines += [f"  … and {len(joins) - FEW} more"] if len(joins) > FEW else []
    return lines


def tell_kept(kept: Kept | None, count: int) -> list[str]:
    """What of an earlier division was found among so many photographs."""
    if kept is None:
        return []
    new = count - len(kept.places)
    line = f"{_keep(len(kept.places))}, {_are(new)} new"
    if kept.copies:
        line += f" ({kept.copies} of them {'a copy' if kept.copies == 1 else 'copies'} of an old one)"
    line += f", {_are(kept.gone)} gone"
    lines = [f"{line}; {_have(kept.moved)} another name than before." if kept.moved else f"{line}."]
    if kept.changed:
        lines.append(f"Warning: {_have(len(kept.changed))} another content than before: {some(kept.changed)}.")
    if kept.relabelled:
        labels = some([f"{name} ({then} before, {now} now)" for name, then, now in kept.relabelled])
        lines.append(f"Warning: {_have(len(kept.relabelled))} another label than before: {labels}.")
    return lines


def tell_division(division: Collection, request: SplitRequest) -> list[str]:
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
    if rest:
        lines.append(
            f"Shares of the splits are of all {counted(len(everything), 'photograph')}, those of the folds of the "
            f"{len(rest)} outside the test split."
        )
    far = [
        f"{name} {_share(len(inside), len(among))} instead of {asked:.1%}".replace("%", " %").replace("  %", " %")
        for name, inside, among, asked in parts
        if abs(len(inside) / max(len(among), 1) - asked) >= FAR - 1e-9
    ]
    if far:
        group, size = Counter(s.group for s in everything).most_common(1)[0]
        largest = f"A group is never divided (the largest, {show_path(group)}, has {size} photographs)"
        lines.append(
            f"Shares that could not be met: {', '.join(far)}. "
            f"{largest if size > 1 else 'Photographs are few'}, no class may be missing from a split, and old "
            "photographs keep their places."
        )
    return lines


def tell_next(division: Collection, output: Path, request: SplitRequest, has_unreadable: bool) -> list[str]:
    """Where the manifest is, and the command that trains with it."""
    wrote, classes = f"Wrote {show_path(output)}.", division.class_names
    if request.folds:
        wrote += " --data.fold k replaces its column split: fold k is val, the other folds are train, test stays."
    if len(classes) != 2:
        found = f"here {'is' if len(classes) == 1 else 'are'} {len(classes)} ({some(classes)})"
        return [f"{wrote} A fit needs two classes; {found}. Give several folders one name by --class_aliases."]
    words = ["python -m bldml fit"]
    if CONFIG.is_file():
        words.append(f"--config {CONFIG}")
    words += [f"--data.root {_word(division.root)}", f"--data.manifest {_word(output)}"]
    words += ["--data.fold 0"] if request.folds else []
    words += ["--data.unreadable exclude"] if has_unreadable else []
    if classes == ("0", "1"):
        return [f"{wrote} Next:", f"  {' '.join(words)}"]
    looked_for = next((c for c in classes if not c.casefold().startswith(HEALTHY)), classes[0])
    words.append(f"--data.positive_class {_word(looked_for)}")
    return [f"{wrote} Next, where {show_path(looked_for)} is the class that you look for:", f"  {' '.join(words)}"]


def _word(value: str | os.PathLike[str]) -> str:
    r"""One word for a shell, on one line whatever is in it.

    >>> _word("my leaves"), _word("two\nlines"), _word("-x")
    ("'my leaves'", "$'two\\x0alines'", './-x')
    """
    text = os.fspath(value)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return quote(text)
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in "'\\" else f"\\x{b:02x}" for b in os.fsencode(text))
    return f"$'{''.join(plain)}'"


def _keep(number: int) -> str:
    return f"{counted(number, 'photograph')} {'keeps its place' if number == 1 else 'keep their places'}"


def _are(number: int) -> str:
    return f"{number} {'is' if number == 1 else 'are'}"


def _have(number: int) -> str:
    return f"{number} {'has' if number == 1 else 'have'}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many there are.

    >>> some(["a", "b"]), some(list("abcdefg"))
    ('a, b', 'a, b, c, d, e, … (7)')
    """
    return ", ".join(show_path(name) for name in names[:FEW]) + (f", … ({len(names)})" if len(names) > FEW else "")
