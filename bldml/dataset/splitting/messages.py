"""Text that the command `split` prints."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bldml.dataset.duplicates.find import Duplicates
from bldml.dataset.files import shell_word, show_path
from bldml.dataset.samples import SPLITS, Collection, Sample
from bldml.dataset.splitting.groups import Join, Link, LinkReason
from bldml.dataset.splitting.previous import KeptAssignments
from bldml.dataset.splitting.splits import SplitRequest
from bldml.io.text import counted

WORDS: dict[LinkReason, str] = {
    "identical files": "identical files",
    "near duplicates": "near duplicates",
    "same name": "with names that differ only in case or suffix",
    "copy by name": "named as copies",
    "same burst": "in bursts",
}
FEW = 5
FAR = 0.02  # deviation from a requested proportion that is explained
HEALTHY = ("no", "healthy", "control", "0")  # beginnings of the name of the negative class
CONFIG = Path("configs/efficientnet.yaml")


def describe_left_out(found: Collection, unreadable: Sequence[tuple[str, str]]) -> list[str]:
    """Describe files that were ignored or cannot be read (names and reasons)."""
    lines = []
    if unreadable:
        names = some([f"{show_path(name)} ({reason})" for name, reason in unreadable])
        lines.append(
            f"Warning: {counted(len(unreadable), 'photograph')} cannot be read: {names}. They are in the manifest "
            "without sha256; fit refuses them unless --data.unreadable exclude is set."
        )
    if found.heif:
        names = some([show_path(path.relative_to(found.root)) for path in found.heif])
        count = counted(len(found.heif), "HEIC photograph")
        lines.append(
            f"Warning: {count} {'was' if len(found.heif) == 1 else 'were'} skipped: {names}. Install bldml[heif]."
        )
    if found.ignored:
        ignored = ", ".join(f"{count} × {reason}" for reason, count in sorted(found.ignored.items()))
        lines.append(f"Ignored: {ignored}.")
    return lines


def describe_two_classes(duplicates: Duplicates, names: Sequence[str]) -> list[str]:
    """Describe photographs that occur in two classes."""
    if not duplicates.two_classes:
        return []
    pairs = [" and ".join(show_path(names[i]) for i in group) for group in duplicates.two_classes]
    times = counted(len(pairs), "time")
    return [f"Warning: the same photograph is in two classes, {times}: {some(pairs)}. One label is wrong."]


def describe_folders(names: Sequence[str], groups: Sequence[str], depth: int) -> list[str]:
    """Describe how many folders form how many groups; `depth` is that of the class folders.

    >>> describe_folders(
    ...     ["BLD/tree1/1.jpg", "No_BLD/tree1/2.jpg", "No_BLD/tree2/3.jpg"], ["tree1", "tree1", "tree2"], 1
    ... )[0]
    'Groups by folder: 3 folders, 2 names. Folders with the same name form one group.'
    """
    inside = [(PurePosixPath(n).parts[:depth], group) for n, group in zip(names, groups, strict=True) if group]
    n_folders, n_names = len(set(inside)), len({group for _, group in inside})
    more = " Folders with the same name form one group." if n_folders > n_names else ""
    return [f"Groups by folder: {counted(n_folders, 'folder')}, {counted(n_names, 'name')}.{more}"]


def describe_together(links: Sequence[Link], joins: Sequence[Join]) -> list[str]:
    """Describe how many photographs must stay together, and which groups were joined for that."""
    linked: dict[LinkReason, set[int]] = defaultdict(set)
    for link in links:
        linked[link.reason] |= {link.a, link.b}
    lines = []
    if linked:
        counts = ", ".join(f"{len(indexes)} {WORDS[reason]}" for reason, indexes in linked.items())
        lines.append(f"Photographs kept together: {counts}.")
    if joins:
        lines.append(f"Groups joined, {counted(len(joins), 'time')}:")
        lines += [f"  {join}" for join in joins[:FEW]]
        lines += [f"  … and {len(joins) - FEW} more"] if len(joins) > FEW else []
    return lines


def describe_kept(kept: KeptAssignments | None, count: int) -> list[str]:
    """Describe which of `count` photographs keep their previous assignment."""
    if kept is None:
        return []
    new = count - len(kept.assignments)
    line = f"{_keep(len(kept.assignments))}, {_are(new)} new"
    if kept.copies:
        line += f" ({kept.copies} of them {'a copy' if kept.copies == 1 else 'copies'} of an old one)"
    line += f", {_are(kept.missing)} missing"
    lines = [f"{line}; {_were(kept.renamed)} renamed." if kept.renamed else f"{line}."]
    if kept.changed:
        changed = counted(len(kept.changed), "photograph")
        lines.append(f"Warning: the content of {changed} has changed: {some(kept.changed)}.")
    if kept.relabelled:
        labels = some([f"{name} ({then} before, {now} now)" for name, then, now in kept.relabelled])
        lines.append(f"Warning: the label of {counted(len(kept.relabelled), 'photograph')} has changed: {labels}.")
    return lines


def describe_division(division: Collection, request: SplitRequest) -> list[str]:
    """Return the table of splits and folds: photographs, reached and requested proportions, classes, groups."""
    everything = [sample for split in division.splits.values() for sample in split]
    rest = [s for s in everything if s.name in division.folds]
    parts: list[tuple[str, list[Sample], list[Sample], float]] = [
        (split, list(division.splits.get(split, ())), everything, fraction)
        for split, fraction in zip(SPLITS, request.fractions, strict=True)
        if fraction or split in division.splits
    ]
    for k in range(request.folds or 0):
        inside = [s for s in rest if division.folds[s.name] == str(k)]
        parts.append((f"fold {k}", inside, rest, 1 / (request.folds or 1)))
    whole = Counter(s.class_name for s in everything)
    rows = [["", "photographs", "proportion", "requested", *map(show_path, sorted(whole)), "groups"]]
    for name, inside, among, requested in parts:
        count, total = Counter(s.class_name for s in inside), Counter(s.class_name for s in among)
        classes = [f"{count[c]} ({_percent(count[c], total[c])})" for c in sorted(whole)]
        row = [name, str(len(inside)), _percent(len(inside), len(among)), _percent(requested, 1)]
        rows.append([*row, *classes, str(len({s.group for s in inside}))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if rest:
        lines.append(
            f"Proportions of the splits refer to all {counted(len(everything), 'photograph')}, those of the folds to "
            f"the {counted(len(rest), 'photograph')} outside the test split."
        )
    far = [
        f"{name} {_percent(len(inside), len(among))} instead of {_percent(requested, 1)}"
        for name, inside, among, requested in parts
        if abs(len(inside) / max(len(among), 1) - requested) >= FAR - 1e-9
    ]
    if far:
        group, size = Counter(s.group for s in everything).most_common(1)[0]
        largest = f"a group is never divided (the largest, {show_path(group)}, has {size} photographs)"
        lines.append(
            f"Proportions that could not be met: {', '.join(far)}. Possible reasons: "
            f"{largest if size > 1 else 'there are few photographs'}, every split needs every class, and existing "
            "assignments are kept."
        )
    return lines


def describe_next(division: Collection, output: Path, request: SplitRequest, has_unreadable: bool) -> list[str]:
    """Describe where the manifest is, and the command that trains with it."""
    wrote, classes = f"Wrote {show_path(output)}.", division.class_names
    if request.folds:
        wrote += " With --data.fold k, fold k is the val split and the other folds are the train split; test stays."
    if len(classes) != 2:
        found = f"found {len(classes)} ({some(classes)})"
        return [f"{wrote} Training needs two classes; {found}. Merge folders into one class with --class_aliases."]
    words = ["python -m bldml fit"]
    if CONFIG.is_file():
        words.append(f"--config {CONFIG}")
    words += [f"--data.root {shell_word(division.root)}", f"--data.manifest {shell_word(output)}"]
    words += ["--data.fold 0"] if request.folds else []
    words += ["--data.unreadable exclude"] if has_unreadable else []
    if classes == ("0", "1"):
        return [f"{wrote} Next:", f"  {' '.join(words)}"]
    positive = next((c for c in classes if not c.casefold().startswith(HEALTHY)), classes[0])
    words.append(f"--data.positive_class {shell_word(positive)}")
    return [f"{wrote} Next, with {show_path(positive)} as the positive class:", f"  {' '.join(words)}"]


def _keep(number: int) -> str:
    return f"{counted(number, 'photograph')} {'keeps its assignment' if number == 1 else 'keep their assignments'}"


def _are(number: int) -> str:
    return f"{number} {'is' if number == 1 else 'are'}"


def _were(number: int) -> str:
    return f"{number} {'was' if number == 1 else 'were'}"


def _percent(part: float, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many there are.

    >>> some(["a", "b"]), some(list("abcdefg"))
    ('a, b', 'a, b, c, d, e, … (7)')
    """
    return ", ".join(show_path(name) for name in names[:FEW]) + (f", … ({len(names)})" if len(names) > FEW else "")
