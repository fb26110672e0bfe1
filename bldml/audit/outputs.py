"""The tables that an audit writes: a row for each photograph, a row for each pair, and everything as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from bldml.audit.audited import Audited
from bldml.audit.checks.condition import flags
from bldml.audit.checks.shortcuts import shortcut_verdict
from bldml.audit.division import BUILT_IN
from bldml.audit.findings import photographs
from bldml.audit.place import place_of
from bldml.audit.reading import Row
from bldml.dataset.files import show_path
from bldml.io.text import Cell, csv_text

PHOTOGRAPHS = (
    "path", "sha256", "bytes", "format", "mode", "width", "height", "orientation", "frames", "icc", "quantization",
    "camera", "taken", "subsec", "has_gps", "status", "reason", "class", "split", "group", "burst", "same_as",
    "sharpness", "brightness", "odd",
)  # fmt: skip
PAIRS = ("kind", "path_a", "path_b", "similarity", "split_a", "split_b", "class_a", "class_b")


def photographs_csv(audited: Audited) -> str:
    """One row a photograph; `same_as` is the first of those that show the same, `odd` lists what is odd."""
    names = [row.name for row in audited.readable]
    burst = dict(zip(names, audited.repeats.bursts, strict=True))
    same_as = {names[index]: names[group[0]] for group in audited.repeats.duplicates.groups for index in group}
    lines: list[list[Cell]] = []
    for row in audited.rows:
        found, tells = row.found, row.metadata
        measured: list[Cell] = [found.sharpness, found.brightness] if not found.reason else [None, None]
        lines.append(
            [
                row.name, found.digest, found.size, tells.format, tells.mode, tells.width or None, tells.height or None,
                tells.orientation or None, tells.frames, tells.icc, tells.quantization or None, tells.camera,
                tells.taken, tells.subsec, "yes" if tells.has_gps else "no", "unreadable" if found.reason else "ok",
                found.reason, row.sample.class_name, row.split, row.sample.group, burst.get(row.name, ""),
                same_as.get(row.name, ""), *measured, " ".join(flags(row, audited.blurred)),
            ]
        )  # fmt: skip
    return csv_text(PHOTOGRAPHS, lines)


def pairs_csv(audited: Audited) -> str:
    """All pairs of photographs that are the same, nearly the same, or leak; a group of equal ones as pairs with one."""
    duplicates, names = audited.repeats.duplicates, [row.name for row in audited.readable]
    pairs: list[tuple[str, str, str, float | None]]
    pairs = [("exact", names[group[0]], names[other], 1.0) for group in duplicates.exact for other in group[1:]]
    pairs += [("near", names[pair.a], names[pair.b], round(pair.similarity, 3)) for pair in duplicates.near]
    pairs += [("copy", names[copy.original], names[copy.copy], None) for copy in duplicates.copies]
    pairs += [("twin", names[group[0]], names[other], None) for group in duplicates.twins for other in group[1:]]
    pairs += [
        (f"leak {leak.kind}", leak.a, leak.b, None if leak.kind == "burst" else round(leak.similarity, 3))
        for leak in audited.repeats.leaks
    ]
    row_of = {row.name: row for row in audited.readable}
    return csv_text(PAIRS, [_pair(row_of, *pair) for pair in pairs])


def _pair(row_of: dict[str, Row], kind: str, a: str, b: str, similarity: float | None) -> list[Cell]:
    one, two = row_of[a], row_of[b]
    return [kind, a, b, similarity, one.split, two.split, one.sample.class_name, two.sample.class_name]


def audit_json(audited: Audited, version: str) -> str:
    """Findings, shortcuts and counts, for other programs."""
    content = {
        "bldml": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "root": show_path(audited.root),
        "place": place_of(audited.root),
        "division": "built-in" if audited.undivided else "folders" if audited.manifest is None else "manifest",
        "manifest": None if audited.manifest is None else show_path(audited.manifest),
        "photographs": len(audited.rows),
        "readable": len(audited.readable),
        "positive_class": audited.positive_class or None,
        "counts": {split: dict(sorted(count.items())) for split, count in audited.collection.counts().items()},
        "findings_by_severity": audited.counts(),
        "findings": [asdict(finding) for finding in audited.findings],
        "shortcuts": _shortcuts(audited),
        "bursts": _bursts(audited),
        "tables": {table.name: {"header": list(table.raw[0]), "rows": list(table.raw[1])} for table in audited.tables},
    }
    return json.dumps(content, indent=2, ensure_ascii=False, default=_plain) + "\n"


def _shortcuts(audited: Audited) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for one in audited.shortcuts:
        interval = one.estimate.interval
        limits = (None, None) if interval is None else (interval.low, interval.high)
        found.append(
            {
                "source": one.source.name,
                "auroc": one.estimate.value,
                "low": limits[0],
                "high": limits[1],
                "method": interval.method if interval else one.estimate.note,
                "verdict": shortcut_verdict(one),
            }
        )
    return found


def _bursts(audited: Audited) -> dict[str, object]:
    evidence = audited.repeats.evidence
    return {**asdict(evidence), "weak": evidence.weak, "independent": len(set(audited.repeats.units))}


def _plain(value: Any) -> Any:
    return value.item()  # a NumPy number


def lines(audited: Audited, written: Iterable[object]) -> str:
    """What is said on the screen."""
    counts = audited.counts()
    told = [f"{photographs(len(audited.rows))}, {len(audited.rows) - len(audited.readable):,} of them unreadable."]
    told += [BUILT_IN] if audited.undivided else []
    told += [f"  {finding.severity:8}  {finding.title}" for finding in audited.findings if finding.severity != "note"]
    told += [untried] if (untried := audited.untried()) else []
    told.append(f"{counts['wrong']} wrong, {counts['doubtful']} doubtful, {counts['note']} to note.")
    return "".join(f"{line}\n" for line in (*told, *(f"Wrote {path}" for path in written)))
