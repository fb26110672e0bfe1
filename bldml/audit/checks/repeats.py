"""The same photograph more than once: duplicates, twins, copies, near duplicates, leaks across splits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bldml.audit.findings import SHOWN, AuditFinding, Severity, pairs_or_groups, photographs, share, split_command
from bldml.audit.reading import Row
from bldml.dataset.duplicates.bursts import BurstEvidence, burst_evidence, burst_groups
from bldml.dataset.duplicates.find import Duplicates, find_duplicates, joined
from bldml.dataset.duplicates.leaks import KnownPhotograph, Leak, find_leaks, leak_counts
from bldml.dataset.duplicates.phash import PRINT_BYTES, near_pairs

DIVIDE = "Divide the photographs so that what belongs together stays together."
ONE_OF_EACH = "Keep one of each; nothing is deleted here."


@dataclass(frozen=True)
class Repeats:
    """What belongs together; numbers are places in the list of readable rows.

    Attributes:
        duplicates: Equal and nearly equal photographs.
        leaks: What lies in more than one split.
        bursts: Burst of each photograph.
        evidence: How much the bursts stand on.
        units: What must not be divided: burst, duplicates and group joined; a number for each photograph.
    """

    duplicates: Duplicates
    leaks: tuple[Leak, ...]
    bursts: tuple[str, ...]
    evidence: BurstEvidence
    units: tuple[int, ...]


def find_repeats(rows: Sequence[Row]) -> Repeats:
    """Compare all photographs with each other.

    Args:
        rows: Readable ones.
    """
    names = [row.name for row in rows]
    classes = [row.sample.class_name for row in rows]
    metadata = [row.found.metadata for row in rows]
    prints = np.stack([row.found.print for row in rows]) if rows else np.zeros((0, PRINT_BYTES), np.uint8)
    near = near_pairs(prints)
    bursts = burst_groups(names, metadata)
    duplicates = find_duplicates(names, classes, [row.found.digest for row in rows], near=near)
    described = [
        KnownPhotograph(
            row.name, row.split, row.sample.class_name, row.found.digest, row.found.print, row.found.metadata
        )
        for row in rows
    ]
    pairs = [(pair.a, pair.b) for pair in near]
    pairs += [(group[0], other) for group in duplicates.groups for other in group[1:]]
    pairs += _of_same(bursts) + _of_same([row.sample.group for row in rows])
    return Repeats(
        duplicates,
        tuple(find_leaks(described, near=near, bursts=bursts)),
        tuple(bursts),
        burst_evidence(names, metadata, bursts),
        tuple(joined(len(rows), pairs)),
    )


def _of_same(labels: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs that join what has the same label; nothing joins what has none.

    >>> _of_same(["a", "", "a", "", "a"])
    [(0, 2), (0, 4)]
    """
    first: dict[str, int] = {}
    return [
        (first[label], index) for index, label in enumerate(labels) if label and first.setdefault(label, index) != index
    ]


def report_repeats(rows: Sequence[Row], repeats: Repeats, root: Path) -> list[AuditFinding]:
    """Findings on what is there more than once.

    Args:
        rows: Readable ones, as given to `find_repeats`.
        repeats: What that returned.
        root: The data folder, for commands.
    """
    names = [row.name for row in rows]
    found = repeats.duplicates
    of_two = {index for group in found.two_classes for index in group}
    exact = [group for group in found.exact if not of_two.issuperset(group)]
    near = [pair for pair in found.near if not (pair.a in of_two and pair.b in of_two)]
    findings = [
        _groups("wrong", "two_classes", found.two_classes, rows,
                "in two classes", "The same photograph, or nearly the same, is labelled as both. One label is "
                "false, and a classifier cannot learn both.",
                "Look at each pair and correct the label, or take both away."),
        *_leaks(rows, repeats, root),
        _groups("doubtful", "exact", exact, rows, "of equal files",
                "Their files are equal to the last byte. Counted more than once, they make intervals too narrow.",
                ONE_OF_EACH),
        _pairs("doubtful", "near", [(pair.a, pair.b) for pair in near], names,
               [f"similarity {pair.similarity:.2f}" for pair in near], "nearly the same",
               "The same picture resized, compressed again, turned, mirrored or cut a little; or two pictures of one "
               "scene. Counted more than once, they make intervals too narrow.", ONE_OF_EACH),
        _groups("doubtful", "twins", found.twins, rows, "of twins by name",
                "Two files of one folder have the same name but for case or suffix, such as a.JPG and a.jpg.",
                "Look whether they are the same photograph. On Windows and macOS one would have replaced the other."),
        _pairs("doubtful", "copies", [(copy.original, copy.copy) for copy in found.copies], names, [],
               "of original and copy, by name and content",
               "Such as “leaf - Copy.jpg” beside “leaf.jpg”.", ONE_OF_EACH),
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
        # For the same photograph in two classes, one of each.
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
    title = f"{pairs_or_groups([len(group) for group in together])} {what}: {photographs(number)}"
    return AuditFinding(severity, name, title, text, advice, number, examples, tuple(details[:SHOWN]))


_LEAK_TITLES = {"exact": "the same file", "near": "nearly the same", "burst": "of the same burst"}
_LEAK_WORDS = {
    "exact": "The same file lies in both splits.",
    "near": "Nearly the same picture lies in both splits: resized, compressed again, turned, mirrored or cut a little.",
    "burst": "Photographs of one burst (taken seconds apart, or with neighbouring frame numbers) lie in both splits.",
}


def _leaks(rows: Sequence[Row], repeats: Repeats, root: Path) -> list[AuditFinding]:
    sizes = Counter(row.split for row in rows)
    found = []
    for (kind, early, late), count in leak_counts(repeats.leaks).items():
        of_kind = [leak for leak in repeats.leaks if (leak.kind, leak.split_a, leak.split_b) == (kind, early, late)]
        found.append(
            AuditFinding(
                "wrong",
                f"leak_{kind}_{early}_{late}",
                f"Leak from {early} to {late}: {photographs(count)}, {share(count, sizes[late])} of {late}, "
                f"{_LEAK_TITLES[kind]}",
                f"{_LEAK_WORDS[kind]} A classifier that remembers {early} is right in {late} without knowing the "
                "disease, so figures come out too good.",
                DIVIDE,
                count,
                tuple((leak.a, leak.b) for leak in of_kind[:SHOWN]),
                tuple(f"{leak.split_a} and {leak.split_b}" for leak in of_kind[:SHOWN]),
                split_command(root),
            )
        )
    return found


def burst_note(repeats: Repeats, root: Path) -> AuditFinding | None:
    """How far the search for bursts can be trusted, where it cannot."""
    if not repeats.evidence.weak:
        return None
    return AuditFinding(
        "note",
        "bursts_weak",
        "Bursts can hardly be found in these photographs",
        repeats.evidence.sentence(),
        "Where you know which photographs are of one tree, plant or visit, say so.",
        command=split_command(root, "--group", "tree.csv"),
    )
