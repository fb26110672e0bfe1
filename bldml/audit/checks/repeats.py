"""Repeated photographs: duplicates, copies, near duplicates, equal file names, bursts, leaks between splits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bldml.audit.examine import Row
from bldml.audit.findings import SHOWN, AuditFinding, Severity, about_photographs, percentage, split_command
from bldml.dataset.duplicates.bursts import BurstEvidence, burst_evidence, burst_groups
from bldml.dataset.duplicates.find import Duplicates, component_roots, exact_groups, find_duplicates
from bldml.dataset.duplicates.leaks import KnownPhotograph, Leak, find_leaks, leak_counts
from bldml.dataset.duplicates.names import Beginnings, Sources, find_sources
from bldml.dataset.duplicates.phash import PHASH_BYTES, find_near_duplicates
from bldml.dataset.duplicates.pixels import pairs_of_equal_pixels
from bldml.dataset.files import shell_word
from bldml.io.text import counted

SPLIT_AGAIN = "Split the photographs again, with duplicates and bursts kept in one split."
ONE_OF_EACH = "Keep one of each. The audit deletes nothing."


@dataclass(frozen=True)
class Repeats:
    """Photographs that belong together; numbers are indices in the list of readable rows."""

    duplicates: Duplicates
    leaks: tuple[Leak, ...]
    bursts: tuple[str, ...]  # burst of each photograph
    evidence: BurstEvidence
    sources: Sources
    equal_pixels: tuple[tuple[int, int], ...]  # near duplicates whose pixels are equal
    # Of each photograph; joined by burst, duplicates, source by name or group, a unit must stay in one split.
    units: tuple[int, ...]


def find_repeats(rows: Sequence[Row]) -> Repeats:
    """Compare all readable photographs with each other."""
    names = [row.name for row in rows]
    classes = [row.sample.class_name for row in rows]
    metadata = [row.file.metadata for row in rows]
    hashes = np.stack([row.file.phash for row in rows]) if rows else np.zeros((0, PHASH_BYTES), np.uint8)
    near = find_near_duplicates(hashes)
    bursts = burst_groups(names, metadata)
    digests = [row.file.digest for row in rows]
    # First those for which it matters most whether it is the same photograph.
    apart = sorted(
        (pair for pair in near if digests[pair.a] != digests[pair.b]),
        key=lambda pair: (classes[pair.a] == classes[pair.b], rows[pair.a].split == rows[pair.b].split),
    )
    equal_pixels = pairs_of_equal_pixels([row.sample.path for row in rows], apart)
    duplicates = find_duplicates(names, classes, digests, near, equal_pixels)
    described = [
        KnownPhotograph(row.name, row.split, row.sample.class_name, row.file.digest, row.file.phash, row.file.metadata)
        for row in rows
    ]
    sources = find_sources(names)
    own = exact_groups([row.sample.group for row in rows])
    together = [*duplicates.groups, *sources.groups, *exact_groups(bursts), *own]
    pairs = [(group[0], other) for group in together for other in group[1:]]
    return Repeats(
        duplicates,
        tuple(find_leaks(described, near_duplicates=near, bursts=bursts)),
        tuple(bursts),
        burst_evidence(names, metadata, bursts),
        sources,
        tuple(equal_pixels),
        tuple(component_roots(len(rows), pairs)),
    )


# Severity, what the photographs are, text, advice.
_REPEATS: dict[str, tuple[Severity, str, str, str]] = {
    "two_classes": (
        "error",
        "of duplicates with different classes",
        "Files with equal content or equal pixels are labelled as two classes, so at least one label is wrong.",
        "Check each pair and correct the label, or remove both photographs.",
    ),
    "near_two_classes": (
        "warning",
        "of near duplicates with different classes",
        "Their details agree, but not every pixel. If they are the same photograph, at least one label is wrong.",
        "Look at each pair. If both show the same leaf at the same time, correct the label or remove both.",
    ),
    "exact": (
        "warning",
        "of identical files",
        "The files are identical in every byte. Counted more than once, they make intervals too narrow.",
        ONE_OF_EACH,
    ),
    "near": (
        "warning",
        "of near duplicates",
        "Their details agree: one may be the other, resized, compressed again, rotated, mirrored, slightly cropped or "
        "padded, or both show one scene. Counted more than once, the same leaf makes intervals too narrow.",
        "Look at each pair. " + ONE_OF_EACH,
    ),
    "same_name": (
        "warning",
        "of files with the same name",
        "Two files of one folder have names that differ in case or suffix only, such as a.JPG and a.jpg.",
        "Check whether they are the same photograph. Windows and macOS usually cannot keep two names that differ in "
        "case only.",
    ),
    "copies": (
        "warning",
        "of original and copy (by name and content)",
        "For example “leaf - Copy.jpg” and “leaf.jpg”.",
        ONE_OF_EACH,
    ),
    "sources": (
        "warning",
        "of files named as made from one photograph",
        "An export, an editor or an augmentation names files like this: augmented copies, tiles, crops, frames of one "
        "video. This is known from the names alone. Counted as different photographs, they make intervals too narrow.",
        "Keep them in one split: `bldml split` does. If they are augmented copies, use the originals: fit augments.",
    ),
}
# What the photographs are, text.
_LEAKS = {
    "exact": ("identical files", "Identical files are in both splits."),
    "near": (
        "near duplicates",
        "Near duplicates are in both splits: their details agree. Look at them: one may be the other, resized, "
        "compressed again, rotated, mirrored, slightly cropped or padded.",
    ),
    "source": (
        "named as made from one photograph",
        "Files in both splits are named as made from one photograph: augmented copies, tiles, crops, video frames.",
    ),
    "burst": (
        "same burst",
        "Photographs of one burst (taken seconds apart, or with consecutive frame numbers) are in both splits.",
    ),
}


def report_repeats(rows: Sequence[Row], repeats: Repeats, root: Path) -> list[AuditFinding]:
    """Return findings on repeated photographs; `root` is the data folder, for commands."""
    duplicates = repeats.duplicates
    labelled_twice = (*duplicates.two_classes, *duplicates.near_two_classes)
    in_two_classes = {index for group in labelled_twice for index in group}
    exact = [group for group in duplicates.exact if not in_two_classes.issuperset(group)]
    near = [pair for pair in duplicates.near_duplicates if not in_two_classes.issuperset((pair.a, pair.b))]
    # What is a duplicate by its content needs no name.
    same = [set(group) for group in duplicates.groups]
    sources = [group for group in repeats.sources.groups if not any(found.issuperset(group) for found in same)]
    equal = set(repeats.equal_pixels)
    similarities = [
        "equal pixels" if (pair.a, pair.b) in equal else f"similarity {pair.similarity:.2f}" for pair in near
    ]
    return [
        *_report("two_classes", duplicates.two_classes, rows),
        *_report("near_two_classes", duplicates.near_two_classes, rows),
        *_report_leaks(rows, repeats, root),
        *_report("exact", exact, rows),
        *_report("near", [(pair.a, pair.b) for pair in near], rows, similarities),
        *_report("same_name", duplicates.same_name, rows),
        *_report("copies", duplicates.copies, rows, []),
        *_report("sources", sources, rows, []),
        *_report_beginnings(repeats.sources.beginnings, rows, root),
    ]


def _report_beginnings(found: Beginnings | None, rows: Sequence[Row], root: Path) -> list[AuditFinding]:
    if found is None or all(rows[i].sample.group for i in found.photographs):
        return []
    names = [rows[i].name for i in found.photographs]
    command = split_command(root, "--group", shell_word(f"name:{found.expression}"))
    text = "The names are numbered like parts of a photograph, or photographs of one plant. They do not tell which."
    advice = "If they are parts of one photograph or show one plant, keep them together with the option --group."
    return [about_photographs("warning", "beginnings", found.title(), text, advice, names, command=command)]


def _report(
    name: str, groups: Sequence[tuple[int, ...]], rows: Sequence[Row], details: Sequence[str] | None = None
) -> list[AuditFinding]:
    """Return a finding on groups that belong together; without `details`, its examples show their classes."""
    if not groups:
        return []
    severity, what, text, advice = _REPEATS[name]
    label = [row.sample.class_name for row in rows]
    # Of duplicates with different classes, show one of each class.
    pairs = [
        (first, next((other for other in others if label[other] != label[first]), others[0]))
        for first, *others in groups[:SHOWN]
    ]
    if details is None:
        details = [" and ".join(dict.fromkeys((label[a], label[b]))) for a, b in pairs]
    number = len({index for group in groups for index in group})
    noun = "pair" if all(len(group) == 2 for group in groups) else "group"
    title = f"{counted(len(groups), noun)} {what}: {counted(number, 'photograph')}"
    examples = tuple((rows[a].name, rows[b].name) for a, b in pairs)
    return [AuditFinding(severity, name, title, text, advice, number, examples, tuple(details[:SHOWN]))]


def _report_leaks(rows: Sequence[Row], repeats: Repeats, root: Path) -> list[AuditFinding]:
    sizes = Counter(row.split for row in rows)
    equal = {frozenset((rows[a].name, rows[b].name)) for a, b in repeats.equal_pixels}
    found = []
    for (kind, early, late), count in leak_counts(repeats.leaks).items():
        what, text = _LEAKS[kind]
        of_kind = [leak for leak in repeats.leaks if (leak.kind, leak.split_a, leak.split_b) == (kind, early, late)]
        certain = len([leak for leak in of_kind if frozenset((leak.a, leak.b)) in equal])
        possible = kind != "exact" and not certain  # names, times and details are hints
        text += f" Of {certain:,} of them, all pixels are equal." if certain else ""
        text += " If they show the same leaf, a" if possible else " A"
        text += f" classifier that has memorised {early} is correct in {late} without recognising the disease, "
        text += f"so metrics {'would be' if possible else 'are'} too high."
        proportion = f"{percentage(count, sizes[late])} of {late}"
        begin = "Possible leak" if possible else "Leak"
        title = f"{begin} from {early} to {late} ({what}): {counted(count, 'photograph')}, {proportion}"
        examples = tuple((leak.a, leak.b) for leak in of_kind[:SHOWN])
        details = (f"{early} and {late}",) * len(examples)
        name, command = f"leak_{kind}_{early}_{late}", split_command(root)
        severity: Severity = "warning" if possible else "error"
        found.append(AuditFinding(severity, name, title, text, SPLIT_AGAIN, count, examples, details, command))
    return found


def weak_bursts(repeats: Repeats, root: Path) -> list[AuditFinding]:
    """Return a finding if too little is known to find bursts reliably."""
    if not repeats.evidence.weak:
        return []
    title = "Bursts cannot be found reliably"
    advice = "If you know which photographs show one tree, plant or visit, write a table of groups and use it."
    command = split_command(root, "--group", "tree.csv")
    return [AuditFinding("info", "bursts_weak", title, repeats.evidence.sentence(), advice, command=command)]
