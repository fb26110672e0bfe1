"""The files that an audit writes: one row per photograph, one row per pair, everything as JSON."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime

from bldml.audit.checks.power import power_json
from bldml.audit.examine import Row
from bldml.audit.findings import DEFAULT_SPLIT_NOTE
from bldml.audit.result import AuditResult
from bldml.dataset.files import show_path
from bldml.io.system import hash_of_path
from bldml.io.text import Cell, counted, csv_text
from bldml.report.tables import estimate_cells
from bldml.run.baselines import verdict_of

PHOTOGRAPHS = (
    "path", "sha256", "bytes", "format", "mode", "width", "height", "orientation", "frames", "icc", "quantization",
    "camera", "taken", "subsec", "has_gps", "status", "reason", "class", "split", "group", "burst", "same_as",
    "sharpness", "brightness", "odd",
)  # fmt: skip
PAIRS = ("kind", "path_a", "path_b", "similarity", "split_a", "split_b", "class_a", "class_b")


def photographs_csv(result: AuditResult) -> str:
    """Return one row per photograph; `same_as` names the first of its duplicates, `odd` lists what looks unusual."""
    names = [row.name for row in result.readable]
    burst = dict(zip(names, result.repeats.bursts, strict=True))
    same_as = {names[index]: names[group[0]] for group in result.repeats.duplicates.groups for index in group}
    odd = defaultdict(list)
    for what, found in result.odd.items():
        for row in found:
            odd[row.name].append(what)

    def cells(row: Row) -> list[Cell]:
        file, metadata = row.file, row.metadata
        measured: list[Cell] = [file.sharpness, file.brightness] if not file.reason else [None, None]
        return [
            row.name, file.digest, file.size, metadata.format, metadata.mode, metadata.width or None,
            metadata.height or None, metadata.orientation or None, metadata.frames, metadata.icc,
            metadata.quantization or None, metadata.camera, metadata.taken, metadata.subsec,
            "yes" if metadata.has_gps else "no", "unreadable" if file.reason else "ok",
            file.reason, row.sample.class_name, row.split, row.sample.group, burst.get(row.name, ""),
            same_as.get(row.name, ""), *measured, " ".join(odd.get(row.name, ())),
        ]  # fmt: skip

    return csv_text(PHOTOGRAPHS, map(cells, result.rows))


def pairs_csv(result: AuditResult) -> str:
    """Return all pairs that were found; a group of n as n - 1 pairs with its first member."""
    duplicates, names = result.repeats.duplicates, [row.name for row in result.readable]
    pairs: list[tuple[str, str, str, float | None]]
    pairs = [("exact", names[group[0]], names[other], 1.0) for group in duplicates.exact for other in group[1:]]
    pairs += [("near", names[pair.a], names[pair.b], round(pair.similarity, 3)) for pair in duplicates.near_duplicates]
    pairs += [("copy", names[original], names[copy], None) for original, copy in duplicates.copies]
    pairs += [
        ("same name", names[group[0]], names[other], None) for group in duplicates.same_name for other in group[1:]
    ]
    sources = result.repeats.sources.groups
    pairs += [("source", names[group[0]], names[other], None) for group in sources for other in group[1:]]
    pairs += [
        (f"leak {leak.kind}", leak.a, leak.b, None if math.isnan(leak.similarity) else round(leak.similarity, 3))
        for leak in result.repeats.leaks
    ]
    pairs += [("lookalike", names[pair.a], names[pair.b], pair.strength) for pair in result.look_alikes.pairs]
    split = {row.name: row.split for row in result.readable}
    label = {row.name: row.sample.class_name for row in result.readable}
    return csv_text(PAIRS, [[kind, a, b, value, split[a], split[b], label[a], label[b]] for kind, a, b, value in pairs])


def audit_json(result: AuditResult, version: str) -> str:
    """Return findings, shortcuts and counts, for other programs."""
    root, evidence = result.collection.root, result.repeats.evidence
    content = {
        "bldml": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "root": show_path(root),
        "root_hash": hash_of_path(root),
        "splits": "default" if result.default_split else "folders" if result.manifest is None else "manifest",
        "manifest": None if result.manifest is None else show_path(result.manifest),
        "photographs": len(result.rows),
        "readable": len(result.readable),
        "positive_class": result.positive_class or None,
        "counts": {split: dict(sorted(count.items())) for split, count in result.collection.counts().items()},
        "findings_by_severity": result.counts(),
        "findings": [asdict(finding) for finding in result.findings],
        "shortcuts": [
            {
                "source": shortcut.source.name,
                **dict(zip(("auroc", "low", "high", "method"), estimate_cells(shortcut.estimate), strict=True)),
                "verdict": verdict_of(shortcut.source.name, shortcut.estimate),
            }
            for shortcut in result.shortcuts
        ],
        "power": None if result.power is None else power_json(result.power),
        "bursts": {**asdict(evidence), "weak": evidence.weak, "independent": len(set(result.repeats.units))},
        "look_alikes": {
            "searched_by": "keypoints" if result.look_alikes.searched else None,
            "pairs": len(result.look_alikes.pairs),
            "photographs_with_few_keypoints": result.look_alikes.plain,
        },
        "tables": {table.name: {"header": list(table.raw[0]), "rows": list(table.raw[1])} for table in result.tables},
    }
    # A number that JSON does not know is NumPy's.
    return json.dumps(content, indent=2, ensure_ascii=False, default=lambda number: number.item()) + "\n"


def summary_text(result: AuditResult, written: Iterable[str]) -> str:
    """Return the summary for the terminal, with the paths of the files written."""
    counts = result.counts()
    lines = [f"{counted(len(result.rows), 'photograph')}, {len(result.rows) - len(result.readable):,} unreadable."]
    lines += result.collection.notes
    lines += [DEFAULT_SPLIT_NOTE] if result.default_split else []
    lines += [f"  {finding.severity:7}  {finding.title}" for finding in result.findings if finding.severity != "info"]
    lines += [reason] if (reason := result.why_no_shortcuts()) else []
    lines += [result.power.sentence()] if result.power else []
    errors, warnings = counted(counts["error"], "error"), counted(counts["warning"], "warning")
    lines.append(f"{errors}, {warnings}, {counts['info']} for information.")
    return "".join(f"{line}\n" for line in (*lines, *(f"Wrote {path}" for path in written)))
