"""The result of an audit: all checks on the examined photographs, before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.audit.checks.balance import find_imbalance, tables
from bldml.audit.checks.condition import find_blurred, find_changed, find_unreadable, find_unusual
from bldml.audit.checks.repeats import Repeats, find_repeats, report_repeats, weak_bursts
from bldml.audit.checks.shortcuts import Shortcut, find_shortcuts, report_shortcuts
from bldml.audit.default_split import soften_split_findings, uses_default_split
from bldml.audit.findings import SEVERITIES, AuditFinding, sort_by_severity
from bldml.audit.reading import Row
from bldml.dataset.samples import Collection
from bldml.io.text import counted
from bldml.report.tables import Table


@dataclass(frozen=True)
class AuditResult:
    """Result of an audit.

    Attributes:
        root: The data folder.
        manifest: The manifest with the splits; None if folders or the default split decide.
        default_split: Whether no splits were given, so that the default split of fit was checked.
        collection: The photographs as fit would find them.
        rows: All photographs, examined.
        readable: The rows that can be used.
        repeats: Duplicates, leaks and bursts; their indices refer to `readable`.
        shortcuts: How well the class is predicted without looking at the leaf; empty without two classes.
        positive_class: The class that was predicted, against all others; empty without two classes.
        findings: The most severe first.
        tables: Counts.
        blurred: Names of photographs that are far less sharp than the others.
    """

    root: Path
    manifest: Path | None
    default_split: bool
    collection: Collection
    rows: Sequence[Row]
    readable: Sequence[Row]
    repeats: Repeats
    shortcuts: Sequence[Shortcut]
    positive_class: str
    findings: Sequence[AuditFinding]
    tables: Sequence[Table]
    blurred: frozenset[str]

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each severity."""
        return {severity: sum(found.severity == severity for found in self.findings) for severity in SEVERITIES}

    def why_no_shortcuts(self) -> str:
        """Return why shortcuts were not tested; empty if they were."""
        if self.shortcuts:
            notes = {shortcut.estimate.note for shortcut in self.shortcuts if shortcut.estimate.value is None}
            tested = any(shortcut.estimate.value is not None for shortcut in self.shortcuts)
            return "" if tested else f"Shortcuts could not be tested: {'; '.join(sorted(notes))}."
        count = len(self.collection.class_names)
        if count > 2:
            return f"Shortcuts were not tested: there are {count} classes and no --positive_class."
        return "Shortcuts were not tested: there are fewer than two classes."


def run_audit_checks(
    root: Path,
    manifest: Path | None,
    collection: Collection,
    rows: Sequence[Row],
    positive_class: str,
) -> AuditResult:
    """Run all checks on examined photographs.

    Args:
        root: The data folder.
        manifest: The manifest with the splits, if any.
        collection: The photographs.
        rows: The same photographs, examined.
        positive_class: The class to predict against all others; empty for none.
    """
    readable = [row for row in rows if not row.file.reason]
    repeats = find_repeats(readable)
    shortcuts: list[Shortcut] = []
    if positive_class:
        shortcuts = find_shortcuts(readable, repeats.units, positive_class)
    findings = [
        *find_unreadable(collection, rows),
        *find_changed(collection, rows),
        *report_repeats(readable, repeats, root),
        *find_imbalance(collection, readable),
        *report_shortcuts(shortcuts, positive_class),
        *find_unusual(readable),
        *_information(repeats, collection, positive_class),
    ]
    if default_split := uses_default_split(root, manifest):
        findings = soften_split_findings(findings, root)
    return AuditResult(
        root,
        manifest,
        default_split,
        collection,
        rows,
        readable,
        repeats,
        shortcuts,
        positive_class,
        sort_by_severity(findings),
        tables(readable, repeats.units) if readable else [],
        frozenset(row.name for row in find_blurred(readable)),
    )


def _information(repeats: Repeats, collection: Collection, positive_class: str) -> list[AuditFinding]:
    found = [finding] if (finding := weak_bursts(repeats, collection.root)) else []
    if not positive_class and len(collection.class_names) > 2:
        found.append(
            AuditFinding(
                "info",
                "no_positive_class",
                f"Shortcuts were not tested: there are {len(collection.class_names)} classes",
                f"Found: {', '.join(collection.class_names[:20])}.",
                "Name the class to predict against all others: `--positive_class NAME`.",
            )
        )
    if collection.ignored:
        counts = sorted(collection.ignored.items(), key=lambda item: (-item[1], item[0]))
        found.append(
            AuditFinding(
                "info",
                "ignored",
                f"Ignored: {counted(sum(collection.ignored.values()), 'other file', 'other files or folders')}",
                "; ".join(f"{number:,} × {reason}" for reason, number in counts) + ".",
            )
        )
    return found
