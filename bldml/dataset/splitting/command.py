"""The command `split`: write a manifest that assigns photographs to splits and folds, and say what was done."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from bldml.dataset.duplicates.find import Duplicates
from bldml.dataset.duplicates.names import Beginnings
from bldml.dataset.files import shell_word, show_path, subfolders
from bldml.dataset.folders import read_folders, require_folder
from bldml.dataset.formats.interruption import describe_interruption
from bldml.dataset.manifest import read_labels, to_manifest, unlisted
from bldml.dataset.samples import SPLITS, Collection, Sample, no_photographs
from bldml.dataset.splitting.groups import (
    Join,
    Link,
    LinkReason,
    folder_groups,
    name_groups,
    table_groups,
)
from bldml.dataset.splitting.previous import KeptAssignments, keep_assignments, read_previous
from bldml.dataset.splitting.splits import SplitRequest, assign_samples
from bldml.dataset.splitting.together import find_together
from bldml.errors import DatasetError, RunError, UsageError
from bldml.io.atomic import write_atomically
from bldml.io.locks import hold_output
from bldml.io.text import counted, first_few

REASONS: dict[LinkReason, str] = {
    "identical files": "identical files",
    "near duplicates": "near duplicates",
    "same name": "with names that differ only in case or suffix",
    "named as made from one photograph": "named as made from one photograph",
    "same burst": "in bursts",
}
BY_NAME = "name:"  # before a regular expression
FEW = 5
FAR = 0.02  # deviation from a requested proportion that is explained
HEALTHY = ("no", "healthy", "control", "0")  # beginnings of the name of the negative class
CONFIG = Path("configs/efficientnet.yaml")


def split_photographs(root: Path, output: Path, request: SplitRequest, **options: Any) -> str:
    """Assign the photographs in a folder to splits, write the manifest, and return the text to print.

    The arguments are those of the command (see `commands.split`). A BldmlError is raised, and no file was changed, if
    the request cannot be met or the manifest cannot be written.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        message = f"The folder {show_path(folder)} for --output does not exist. Create it first."
        if folder.exists():
            message = f"{show_path(folder)}, in which --output is to be, is not a folder. Choose another --output."
        raise RunError(message, "output-folder-missing", path=folder)
    with hold_output(output):  # a new manifest keeps what the one before it says
        return _split(root, output, request, **options)


def _split(
    root: Path,
    output: Path,
    request: SplitRequest,
    *,
    group: str = "burst",
    gap_seconds: float = 10.0,
    class_aliases: Mapping[str, str] | None = None,
    fresh: bool = False,
    manifest: Path | None = None,
) -> str:
    previous = read_previous(output, fresh)
    requested_folds, request = request.folds, request.following(previous)
    found = _labelled(root, manifest, class_aliases)
    samples = sorted(found.samples(), key=lambda s: s.name)
    if not samples:
        raise DatasetError(no_photographs(found), "photographs-none", path=root)
    names = [sample.name for sample in samples]
    own, notes = own_groups(group, names, root, gap_seconds)
    if group in ("burst", "none"):
        own = [sample.group for sample in samples]  # of the manifest
        notes += [f"Groups of the manifest: {len(set(own) - {''})}."] if any(own) else []
    notes = [*found.notes, *notes]
    if request.folds != requested_folds:
        notes.append(f"The {request.folds} folds in {show_path(output)} are kept (--fresh starts over).")
    together = find_together(root, samples, own, 0.0 if group == "none" else gap_seconds)
    kept = keep_assignments(previous, samples, together.digests, output) if previous else None
    notes += together.notes
    if together.beginnings and group in ("burst", "none"):
        notes.append(_describe_beginnings(together.beginnings))
    splits = assign_samples(root, together.samples, together.digests, request, kept, together.joins)
    write_atomically(output, to_manifest(splits))
    unreadable = [f"{show_path(r.sample.name)} ({r.reason})" for r in together.unreadable]
    interruption = describe_interruption(r.sample.path for r in together.unreadable)
    notes = [interruption, *notes] if interruption else notes
    lines = _describe_found(found, unreadable, together.duplicates, names) + notes
    lines += _describe_together(together.links, together.joins)
    lines += ([] if kept is None else _describe_kept(kept, len(samples))) + _describe_splits(splits, request)
    return "\n".join(lines + _describe_next(splits, output, request, bool(unreadable))) + "\n"


def _labelled(root: Path, manifest: Path | None, aliases: Mapping[str, str] | None) -> Collection:
    """Return the photographs with their labels, from folders or from a manifest, whose splits are not used."""
    if manifest is None:
        return read_folders(root, aliases=aliases)
    require_folder(root)
    found = read_labels(manifest.expanduser(), root, aliases)
    others = unlisted(found)
    if not others:
        return found
    note = f"{counted(len(others), 'photograph is', 'photographs are')} not in the manifest: "
    note += f"{_some([show_path(path.relative_to(found.root)) for path in others])}."
    return replace(found, notes=(*found.notes, note))


def own_groups(group: str, names: Sequence[str], root: Path, gap_seconds: float) -> tuple[list[str], list[str]]:
    """Return the user's group of each photograph, and text about the groups.

    The arguments are as for the command (see `commands.split`); names are below `root`.

    Raises:
        UsageError, DatasetError: The groups cannot be made so.
    """
    if not gap_seconds >= 0:
        message = f"--gap_seconds must be at least 0, not {gap_seconds:g}; 0 turns burst detection off."
        raise UsageError(message, "gap-negative", found=gap_seconds, expected=0)
    off = "--group none" if group == "none" else "--gap_seconds 0" if gap_seconds == 0 else ""
    notes = [f"Burst detection is off ({off})."] if off else []

    kind, _, level = group.partition(":")
    if kind == "folder":
        if level and (not level.isdecimal() or int(level) < 1):
            message = f"--group {group} is invalid. Write the number of folder levels, such as folder:1."
            raise UsageError(message, "group-level-wrong", found=group)
        depth = 1 if {folder.name for folder in subfolders(root)}.isdisjoint(SPLITS) else 2
        groups = folder_groups(names, depth, int(level) if level else None)
        folders = {(PurePosixPath(n).parts[:depth], g) for n, g in zip(names, groups, strict=True) if g}
        different = {name for _, name in folders}
        text = f"Groups by folder: {counted(len(folders), 'folder')}, {counted(len(different), 'name')}."
        more = " Folders with the same name form one group." if len(folders) > len(different) else ""
        return groups, [text + more, *notes]
    if group in ("burst", "none"):
        return [""] * len(names), notes
    if group.startswith(BY_NAME):
        groups = name_groups(names, group.removeprefix(BY_NAME))
        number, alone = len(set(groups) - {""}), groups.count("")
        text = f"Groups by name: {counted(number, 'group')} of {counted(len(names) - alone, 'photograph')}."
        more = f" {counted(alone, 'photograph does', 'photographs do')} not match: each is its own group."
        return groups, [text + more if alone else text, *notes]
    table = Path(group).expanduser()
    if not table.is_file():
        message = (
            f"--group must be burst, folder, name:EXPRESSION, none or an existing CSV file, not {show_path(group)!r}."
        )
        raise UsageError(message, "group-unknown", found=group)
    groups, unknown = table_groups(table, names, notes)
    if unknown:
        count = counted(len(unknown), f"photograph in {show_path(group)} is", f"photographs in {show_path(group)} are")
        notes.insert(0, f"{count} not in {show_path(root)}: {_some(unknown)}.")
    return groups, notes


def _describe_found(
    found: Collection, unreadable: Sequence[str], duplicates: Duplicates, names: Sequence[str]
) -> list[str]:
    """Describe files that are ignored or cannot be read, and photographs in two classes."""
    lines = []
    if unreadable:
        lines.append(
            f"Warning: {counted(len(unreadable), 'photograph')} cannot be read: {_some(unreadable)}. They are in the "
            "manifest without sha256; fit refuses them unless --data.unreadable exclude is set."
        )
    if found.heif:
        heif = _some([show_path(path.relative_to(found.root)) for path in found.heif])
        count = counted(len(found.heif), "HEIC photograph was", "HEIC photographs were")
        lines.append(f"Warning: {count} skipped: {heif}. Install bldml[heif].")
    if found.ignored:
        ignored = ", ".join(f"{count} × {reason}" for reason, count in sorted(found.ignored.items()))
        lines.append(f"Ignored: {ignored}.")
    if duplicates.two_classes:
        pairs, times = _pairs(duplicates.two_classes, names)
        lines.append(f"Warning: the same photograph is in two classes, {times}: {pairs}. One label is wrong.")
    if duplicates.near_two_classes:
        pairs, times = _pairs(duplicates.near_two_classes, names)
        lines.append(f"Warning: near duplicates are in two classes, {times}: {pairs}. Look at them.")
    return lines


def _describe_beginnings(found: Beginnings) -> str:
    """Ask whether numbered names are those of parts; only the user knows."""
    option = f"--group {shell_word(f'{BY_NAME}{found.expression}')}"
    return f"{found.title()} They were not kept together. If they are, or show one plant: {option}."


def _pairs(groups: Sequence[tuple[int, ...]], names: Sequence[str]) -> tuple[str, str]:
    """Return some groups by name, and how many there are."""
    return _some([" and ".join(show_path(names[i]) for i in group) for group in groups]), counted(len(groups), "time")


def _describe_together(links: Sequence[Link], joins: Sequence[Join]) -> list[str]:
    """Describe how many photographs must stay together, and which groups were joined for that."""
    linked: dict[LinkReason, set[int]] = defaultdict(set)
    for link in links:
        linked[link.reason] |= {link.a, link.b}
    lines = []
    if linked:
        counts = ", ".join(f"{len(indexes)} {REASONS[reason]}" for reason, indexes in linked.items())
        lines.append(f"Photographs kept together: {counts}.")
    if joins:
        listed = first_few([*map(str, joins)], FEW, "\n  ", "\n  … and ")
        lines.append(f"Groups joined, {counted(len(joins), 'time')}:\n  {listed}")
    return lines


def _describe_kept(kept: KeptAssignments, count: int) -> list[str]:
    """Describe which of `count` photographs keep their previous assignment."""
    old = len(kept.assignments)
    line = counted(old, "photograph keeps its assignment", "photographs keep their assignments")
    line += f", {counted(count - old, 'is', 'are')} new"
    if kept.copies:
        line += f" ({kept.copies} of them {'a copy' if kept.copies == 1 else 'copies'} of an old one)"
    line += f", {counted(kept.missing, 'is', 'are')} missing"
    lines = [f"{line}; {counted(kept.renamed, 'was', 'were')} renamed." if kept.renamed else f"{line}."]
    if kept.changed:
        changed = counted(len(kept.changed), "photograph")
        lines.append(f"Warning: the content of {changed} has changed: {_some(kept.changed)}.")
    if kept.relabelled:
        labels = _some([f"{name} ({then} before, {now} now)" for name, then, now in kept.relabelled])
        lines.append(f"Warning: the label of {counted(len(kept.relabelled), 'photograph')} has changed: {labels}.")
    return lines


def _describe_splits(splits: Collection, request: SplitRequest) -> list[str]:
    """Return the table of splits and folds: photographs, reached and requested proportions, classes, groups."""
    everything = [*splits.samples()]
    parts: list[tuple[str, Sequence[Sample], Sequence[Sample], float]] = [
        (split, splits.splits.get(split, ()), everything, fraction)
        for split, fraction in request.fractions.items()
        if fraction or split in splits.splits
    ]
    in_folds = [s for s in everything if s.name in splits.folds]
    for k in range(request.folds or 0):
        in_fold = [s for s in in_folds if splits.folds[s.name] == str(k)]
        parts.append((f"fold {k}", in_fold, in_folds, 1 / (request.folds or 1)))
    class_names = sorted({s.class_name for s in everything})
    rows = [["", "photographs", "proportion", "requested", *map(show_path, class_names), "groups"]]
    far = []
    for name, inside, among, requested in parts:
        count, total = Counter(s.class_name for s in inside), Counter(s.class_name for s in among)
        classes = [f"{count[c]} ({_percent(count[c], total[c])})" for c in class_names]
        reached, wanted = _percent(len(inside), len(among)), _percent(requested, 1)
        rows.append([name, str(len(inside)), reached, wanted, *classes, str(len({s.group for s in inside}))])
        if abs(len(inside) / max(len(among), 1) - requested) >= FAR - 1e-9:
            far.append(f"{name} {reached} instead of {wanted}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if in_folds:
        lines.append(
            f"Proportions of the splits refer to all {counted(len(everything), 'photograph')}, those of the folds to "
            f"the {counted(len(in_folds), 'photograph')} outside the test split."
        )
    if far:
        group, size = Counter(s.group for s in everything).most_common(1)[0]
        largest = f"a group is never divided (the largest, {show_path(group)}, has {size} photographs)"
        lines.append(
            f"Proportions that could not be met: {', '.join(far)}. Possible reasons: "
            f"{largest if size > 1 else 'there are few photographs'}, every split needs every class, and existing "
            "assignments are kept."
        )
    return lines


def _describe_next(splits: Collection, output: Path, request: SplitRequest, has_unreadable: bool) -> list[str]:
    """Describe where the manifest is, and the command that trains with it."""
    wrote, classes = f"Wrote {show_path(output)}.", splits.class_names
    if request.folds:
        wrote += " With --data.fold k, fold k is the val split and the other folds are the train split; test stays."
    if len(classes) != 2:
        found = f"found {len(classes)} ({_some(classes)})"
        return [f"{wrote} Training needs two classes; {found}. Merge folders into one class with --class_aliases."]
    words = ["python -m bldml fit"]
    words += [f"--config {CONFIG}"] if CONFIG.is_file() else []
    words += [f"--data.root {shell_word(splits.root)}", f"--data.manifest {shell_word(output)}"]
    words += ["--data.fold 0"] if request.folds else []
    words += ["--data.unreadable exclude"] if has_unreadable else []
    if classes == ("0", "1"):
        return [f"{wrote} Next:", f"  {' '.join(words)}"]
    positive = next((c for c in classes if not c.casefold().startswith(HEALTHY)), classes[0])
    words.append(f"--data.positive_class {shell_word(positive)}")
    return [f"{wrote} Next, with {show_path(positive)} as the positive class:", f"  {' '.join(words)}"]


def _percent(part: float, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _some(names: Sequence[str]) -> str:
    """Return the first few names, and how many there are.

    >>> _some(["a", "b"]), _some(list("abcdefg"))
    ('a, b', 'a, b, c, d, e, … (7)')
    """
    return ", ".join(show_path(name) for name in names[:FEW]) + (f", … ({len(names)})" if len(names) > FEW else "")
