"""Everything that an audit came to, before it is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.audit.checks.balance import find_imbalance, tables
from bldml.audit.checks.condition import blurred, find_changed, find_odd, find_unreadable
from bldml.audit.checks.repeats import Repeats, burst_note, find_repeats, report_repeats
from bldml.audit.checks.shortcuts import Shortcut, find_shortcuts, report_shortcuts
from bldml.audit.division import of_built_in
from bldml.audit.findings import SEVERITIES, AuditFinding, ordered
from bldml.audit.reading import Row
from bldml.dataset.samples import Collection
from bldml.report.tables import Table


@dataclass(frozen=True)
class Audited:
    """What was found in a set of photographs.

    Attributes:
        root: The data folder.
        manifest: The manifest that divides it; None where folders or names do.
        undivided: Whether nobody divided the photographs, so that the division is fit's own.
        collection: The photographs as fit would find them.
        rows: All of them, examined.
        readable: Those that can be used.
        repeats: What belongs together; places are of `readable`.
        shortcuts: How well the label is predicted without a look at the leaf; empty without two classes.
        positive_class: The class that was predicted, against all others; empty without two classes.
        findings: The worst first.
        tables: Counts.
        blurred: Names of photographs that are far less sharp than the others.
    """

    root: Path
    manifest: Path | None
    undivided: bool
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
        """Number of findings of each severity."""
        return {severity: sum(one.severity == severity for one in self.findings) for severity in SEVERITIES}

    def untried(self) -> str:
        """Why nothing is known of shortcuts; empty where they were looked for."""
        if self.shortcuts:
            notes = {one.estimate.note for one in self.shortcuts if one.estimate.value is None}
            tried = any(one.estimate.value is not None for one in self.shortcuts)
            return "" if tried else f"Shortcuts could not be looked for: {'; '.join(sorted(notes))}."
        count = len(self.collection.class_names)
        if count > 2:
            return f"Shortcuts were not looked for: there are {count} classes, and --positive_class names none of them."
        return "Shortcuts were not looked for: there are fewer than two classes."


def judge_photographs(
    root: Path,
    manifest: Path | None,
    collection: Collection,
    rows: Sequence[Row],
    positive_class: str,
    *,
    undivided: bool = False,
) -> Audited:
    """Find what is wrong with photographs that have been examined.

    Args:
        root: The data folder.
        manifest: The manifest that divides it, if any.
        collection: The photographs.
        rows: The same, examined.
        positive_class: The class to be predicted against all others; empty for none.
        undivided: Whether nobody divided the photographs, so that the division is fit's own.
    """
    readable = [row for row in rows if not row.found.reason]
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
        *find_odd(readable),
        *_notes(repeats, collection, positive_class),
    ]
    if undivided:
        findings = of_built_in(findings, root)
    return Audited(
        root,
        manifest,
        undivided,
        collection,
        rows,
        readable,
        repeats,
        shortcuts,
        positive_class,
        ordered(findings),
        tables(readable, repeats.units) if readable else [],
        frozenset(row.name for row in blurred(readable)),
    )


def _notes(repeats: Repeats, collection: Collection, positive_class: str) -> list[AuditFinding]:
    found = [note] if (note := burst_note(repeats, collection.root)) else []
    if not positive_class and len(collection.class_names) > 2:
        found.append(
            AuditFinding(
                "note",
                "no_positive_class",
                f"Shortcuts were not looked for: there are {len(collection.class_names)} classes",
                f"Found: {', '.join(collection.class_names[:20])}.",
                "Name the class to be told from all others: `--positive_class NAME`.",
            )
        )
    if collection.ignored:
        counts = sorted(collection.ignored.items(), key=lambda item: (-item[1], item[0]))
        found.append(
            AuditFinding(
                "note",
                "ignored",
                "Not looked at, of what lies there too: "
                f"{(count := sum(collection.ignored.values())):,} thing{'' if count == 1 else 's'}",
                "; ".join(f"{number:,} × {reason}" for reason, number in counts) + ".",
            )
        )
    return found
