"""Repeated photographs: duplicates, copies, near duplicates, equal file names, bursts, leaks between splits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bldml.audit.findings import SHOWN, AuditFinding, Severity, count_groups, percentage, split_command
from bldml.audit.reading import Row
from bldml.dataset.duplicates.bursts import BurstEvidence, burst_evidence, burst_groups
from bldml.dataset.duplicates.find import Duplicates, component_roots, find_duplicates
from bldml.dataset.duplicates.leaks import KnownPhotograph, Leak, find_leaks, leak_counts
from bldml.dataset.duplicates.phash import PHASH_BYTES, find_near_duplicates
from bldml.io.text import counted

SPLIT_AGAIN = "Split the photographs again, with duplicates and bursts kept in one split."
ONE_OF_EACH = "Keep one of each. The audit deletes nothing."


@dataclass(frozen=True)
class Repeats:
    """Photographs that belong together; numbers are indices in the list of readable rows.

    Attributes:
        duplicates: Equal and nearly equal photographs.
        leaks: Pairs of photographs in two different splits.
        bursts: Burst of each photograph.
        evidence: How many photographs have what bursts are recognised by.
        units: Independent unit of each photograph: photographs joined by burst, duplicates or group have the same
            number and must stay in one split.
    """

    duplicates: Duplicates
    leaks: tuple[Leak, ...]
    bursts: tuple[str, ...]
    evidence: BurstEvidence
    units: tuple[int, ...]


def find_repeats(rows: Sequence[Row]) -> Repeats:
    """Compare all photographs with each other.

    Args:
        rows: Readable photographs.
    """
    names = [row.name for row in rows]
    classes = [row.sample.class_name for row in rows]
    metadata = [row.file.metadata for row in rows]
    hashes = np.stack([row.file.phash for row in rows]) if rows else np.zeros((0, PHASH_BYTES), np.uint8)
    near = find_near_duplicates(hashes)
    bursts = burst_groups(names, metadata)
    duplicates = find_duplicates(names, classes, [row.file.digest for row in rows], near_duplicates=near)
    described = [
        KnownPhotograph(row.name, row.split, row.sample.class_name, row.file.digest, row.file.phash, row.file.metadata)
        for row in rows
    ]
    pairs = [(pair.a, pair.b) for pair in near]
    pairs += [(group[0], other) for group in duplicates.groups for other in group[1:]]
    pairs += _same_value(bursts) + _same_value([row.sample.group for row in rows])
    return Repeats(
        duplicates,
        tuple(find_leaks(described, near_duplicates=near, bursts=bursts)),
        tuple(bursts),
        burst_evidence(names, metadata, bursts),
        tuple(component_roots(len(rows), pairs)),
    )


def _same_value(values: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of the first index of a value and each later one; empty values are ignored.

    >>> _same_value(["a", "", "a", "", "a"])
    [(0, 2), (0, 4)]
    """
    first: dict[str, int] = {}
    return [
        (first[value], index) for index, value in enumerate(values) if value and first.setdefault(value, index) != index
    ]


def report_repeats(rows: Sequence[Row], repeats: Repeats, root: Path) -> list[AuditFinding]:
    """Return findings on repeated photographs.

    Args:
        rows: Readable photographs, as passed to `find_repeats`.
        repeats: The result of `find_repeats`.
        root: The data folder, for commands.
    """
    names = [row.name for row in rows]
    duplicates = repeats.duplicates
    in_two_classes = {index for group in duplicates.two_classes for index in group}
    exact = [group for group in duplicates.exact if not in_two_classes.issuperset(group)]
    near = [pair for pair in duplicates.near_duplicates if not (pair.a in in_two_classes and pair.b in in_two_classes)]
    findings = [
        _groups("error", "two_classes", duplicates.two_classes, rows,
                "of duplicates with different classes", "Duplicates or near duplicates are labelled as two classes, so "
                "at least one label is wrong.",
                "Check each pair and correct the label, or remove both photographs."),
        *_leaks(rows, repeats, root),
        _groups("warning", "exact", exact, rows, "of identical files",
                "The files are identical in every byte. Counted more than once, they make intervals too narrow.",
                ONE_OF_EACH),
        _pairs("warning", "near", [(pair.a, pair.b) for pair in near], names,
               [f"similarity {pair.similarity:.2f}" for pair in near], "of near duplicates",
               "The same photograph resized, compressed again, rotated, mirrored or slightly cropped; or two "
               "photographs of one scene. Counted more than once, they make intervals too narrow.", ONE_OF_EACH),
        _groups("warning", "same_name", duplicates.same_name, rows, "of files with the same name",
                "Two files of one folder have names that differ in case or suffix only, such as a.JPG and a.jpg.",
                "Check whether they are the same photograph. Windows and macOS usually cannot keep two names "
                "that differ in case only."),
        _pairs("warning", "copies", duplicates.copies, names, [],
               "of original and copy (by name and content)",
               "For example “leaf - Copy.jpg” and “leaf.jpg”.", ONE_OF_EACH),
    ]  # fmt: skip
    return [finding for finding in findings if finding is not None]


def _groups(
    severity: Severity,
    name: str,
    groups: Sequence[tuple[int, ...]],
    rows: Sequence[Row],
    what: str,
    text: str,
    advice: str,
) -> AuditFinding | None:
    pairs = []
    for group in groups:
        # Of duplicates with different classes, show one of each class.
        other = next((i for i in group[1:] if rows[i].sample.class_name != rows[group[0]].sample.class_name), group[1])
        pairs.append((group[0], other))
    details = [" and ".join(dict.fromkeys(rows[i].sample.class_name for i in pair)) for pair in pairs]
    names = [row.name for row in rows]
    return _pairs(severity, name, pairs, names, details, what, text, advice, groups)


def _pairs(
    severity: Severity,
    name: str,
    pairs: Sequence[tuple[int, int]],
    names: Sequence[str],
    details: Sequence[str],
    what: str,
    text: str,
    advice: str,
    groups: Sequence[tuple[int, ...]] | None = None,
) -> AuditFinding | None:
    if not pairs:
        return None
    together = pairs if groups is None else groups
    number = len({index for group in together for index in group})
    examples = tuple((names[a], names[b]) for a, b in pairs[:SHOWN])
    title = f"{count_groups([len(group) for group in together])} {what}: {counted(number, 'photograph')}"
    return AuditFinding(severity, name, title, text, advice, number, examples, tuple(details[:SHOWN]))


_LEAK_TITLES = {"exact": "identical files", "near": "near duplicates", "burst": "same burst"}
_LEAK_TEXTS = {
    "exact": "Identical files are in both splits.",
    "near": "Near duplicates are in both splits: resized, compressed again, rotated, mirrored or slightly cropped.",
    "burst": "Photographs of one burst (taken seconds apart, or with consecutive frame numbers) are in both splits.",
}


def _leaks(rows: Sequence[Row], repeats: Repeats, root: Path) -> list[AuditFinding]:
    sizes = Counter(row.split for row in rows)
    found = []
    for (kind, early, late), count in leak_counts(repeats.leaks).items():
        of_kind = [leak for leak in repeats.leaks if (leak.kind, leak.split_a, leak.split_b) == (kind, early, late)]
        found.append(
            AuditFinding(
                "error",
                f"leak_{kind}_{early}_{late}",
                f"Leak from {early} to {late} ({_LEAK_TITLES[kind]}): {counted(count, 'photograph')}, "
                f"{percentage(count, sizes[late])} of {late}",
                f"{_LEAK_TEXTS[kind]} A classifier that has memorised {early} is correct in {late} without recognising "
                "the disease, so metrics are too high.",
                SPLIT_AGAIN,
                count,
                tuple((leak.a, leak.b) for leak in of_kind[:SHOWN]),
                tuple(f"{leak.split_a} and {leak.split_b}" for leak in of_kind[:SHOWN]),
                split_command(root),
            )
        )
    return found


def weak_bursts(repeats: Repeats, root: Path) -> AuditFinding | None:
    """Return a finding if too little is known to find bursts reliably; else None."""
    if not repeats.evidence.weak:
        return None
    return AuditFinding(
        "info",
        "bursts_weak",
        "Bursts cannot be found reliably",
        repeats.evidence.sentence(),
        "If you know which photographs show one tree, plant or visit, write a table of groups and use it.",
        command=split_command(root, "--group", "tree.csv"),
    )
