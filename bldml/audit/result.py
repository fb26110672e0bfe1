"""The result of an audit: all checks on the examined photographs, before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bldml.audit.checks.balance import find_imbalance, tables
from bldml.audit.checks.condition import (
    find_changed,
    find_odd,
    find_unreadable,
    find_without_checksum,
    report_odd,
)
from bldml.audit.checks.lookalikes import LookAlikes, report_lookalikes, search_lookalikes
from bldml.audit.checks.power import Power, measure_power
from bldml.audit.checks.repeats import Repeats, find_repeats, report_repeats, weak_bursts
from bldml.audit.checks.shortcuts import Shortcut, find_shortcuts, report_shortcuts
from bldml.audit.examine import Row
from bldml.audit.findings import SEVERITIES, AuditFinding, soften_split_finding
from bldml.audit.keypoints import KeypointStore, StoredKeypoints
from bldml.dataset.files import subfolders
from bldml.dataset.samples import SPLITS, Collection
from bldml.io.safe_points import safe_point
from bldml.io.text import counted
from bldml.report.tables import Table


@dataclass(frozen=True)
class AuditResult:
    """Result of an audit."""

    manifest: Path | None  # None if folders or the default split decide
    default_split: bool  # no splits were given, so the default split of fit was checked
    collection: Collection  # the photographs as fit would find them
    rows: Sequence[Row]  # all photographs, examined
    readable: Sequence[Row]  # those that can be used
    odd: Mapping[str, Sequence[Row]]  # those that somebody should check, by what is unusual about them
    repeats: Repeats  # of the readable rows
    shortcuts: Sequence[Shortcut]  # empty without two classes
    positive_class: str  # predicted against all others; empty without two classes
    findings: Sequence[AuditFinding]  # the most severe first
    tables: Sequence[Table]
    look_alikes: LookAlikes
    power: Power | None = None  # None if it was not measured

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
    manifest: Path | None,
    collection: Collection,
    rows: Sequence[Row],
    positive_class: str,
    output: Path,
    keypoints: KeypointStore | None = None,
    *,
    power: bool,
    quiet: bool = False,
) -> AuditResult:
    """Run all checks on the photographs of a collection, which `rows` contain examined.

    Look-alikes are searched if there is a store of `keypoints`; `output` is the folder of the audit, for commands;
    `power` plants copies too.
    """
    root = collection.root
    readable = [row for row in rows if not row.file.reason]
    repeats, odd = find_repeats(readable), find_odd(readable)
    safe_point()
    shortcuts = find_shortcuts(readable, repeats.units, positive_class) if positive_class else []
    described = None
    look_alikes = LookAlikes(searched=False)
    if keypoints is not None:
        described = StoredKeypoints(keypoints, [row.file.digest for row in readable])
        look_alikes = search_lookalikes(readable, described, repeats, quiet=quiet)
    safe_point()
    findings = [
        *find_unreadable(collection, rows),
        *find_changed(collection, readable),
        *report_repeats(readable, repeats, root),
        *find_imbalance(collection, readable),
        *report_shortcuts(shortcuts, positive_class),
        *report_lookalikes(readable, look_alikes, root, output),
        *report_odd(odd, readable),
        *find_without_checksum(readable),
        *weak_bursts(repeats, root),
        *_information(collection, positive_class),
    ]
    default_split = manifest is None and not {folder.name for folder in subfolders(root)} & set(SPLITS)
    if default_split:
        findings = [soften_split_finding(finding, root) for finding in findings]
    # First what only new photographs repair: a new split costs a minute.
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), not finding.needs_new_photographs))
    counts = tables(readable, repeats.units) if readable else []
    safe_point()
    planted = measure_power(readable, repeats.units, described) if power else None
    return AuditResult(
        manifest, default_split, collection, rows, readable, odd, repeats, shortcuts, positive_class, findings, counts,
        look_alikes, planted,
    )  # fmt: skip


def _information(collection: Collection, positive_class: str) -> list[AuditFinding]:
    found = []
    names = collection.class_names
    if not positive_class and len(names) > 2:
        title = f"Shortcuts were not tested: there are {len(names)} classes"
        advice = "Name the class to predict against all others: `--positive_class NAME`."
        found.append(AuditFinding("info", "no_positive_class", title, f"Found: {', '.join(names[:20])}.", advice))
    if collection.ignored:
        counts = sorted(collection.ignored.items(), key=lambda item: (-item[1], item[0]))
        text = "; ".join(f"{number:,} × {reason}" for reason, number in counts)
        title = f"Ignored: {counted(sum(collection.ignored.values()), 'other file', 'other files or folders')}"
        found.append(AuditFinding("info", "ignored", title, f"{text}."))
    return found
