"""The page of an audit: one file that opens offline, with thumbnails that contain no metadata of the photographs."""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from PIL import Image

from bldml.audit.checks.power import power_table
from bldml.audit.checks.shortcuts import shortcuts_table
from bldml.audit.examine import Row
from bldml.audit.findings import DEFAULT_SPLIT_NOTE, SEVERITIES, AuditFinding
from bldml.audit.result import AuditResult
from bldml.dataset.files import show_path
from bldml.dataset.images import UnreadableImage
from bldml.dataset.unchanged import load_unchanged
from bldml.figures.days import photographs_by_day
from bldml.figures.style import to_svg
from bldml.io.text import counted
from bldml.report.html import page_template

SIDE = 160  # pixels of the longer side of a thumbnail
QUALITY = 80
PER_SHEET = 48  # photographs of one class
MAX_THUMBNAILS = 600  # on the page
MAX_BYTES = 20 * 2**20  # of all thumbnails together, base64-encoded
HEADINGS = {
    "error": ("Errors", "Metrics from these photographs would be wrong, or fit would not run."),
    "warning": ("Warnings", "Please check these before training."),
    "info": ("Information", "For information; nothing has to be done."),
}


def audit_page(result: AuditResult, version: str, workers: int) -> str:
    """Return the page as HTML; `workers` threads draw its thumbnails."""
    sheets = contact_sheets(result.readable)
    urls = draw_thumbnails(result.readable, names_to_draw(result.findings, sheets), workers)
    in_class = Counter(row.sample.class_name for row in result.readable)
    by_severity = {
        severity: [finding for finding in result.findings if finding.severity == severity] for severity in SEVERITIES
    }
    return page_template("audit.html").render(
        root=show_path(result.collection.root),
        manifest="" if result.manifest is None else show_path(result.manifest),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version,
        summary=_summary(result),
        default_split=DEFAULT_SPLIT_NOTE if result.default_split else "",
        sections=[(severity, *HEADINGS[severity], found) for severity, found in by_severity.items() if found],
        shortcuts=shortcuts_table(result.shortcuts) if result.shortcuts else None,
        positive=result.positive_class,
        power=power_table(result.power) if result.power else None,
        tables=result.tables,
        days=_days(result),
        bursts=result.repeats.evidence.sentence(),
        look_alikes=result.look_alikes.sentence(),
        sheets=[
            (name, in_class[name], [row.name for row in sheet if row.name in urls]) for name, sheet in sheets.items()
        ],
        urls=urls,
    )


def _days(result: AuditResult) -> str:
    """Return the chart of photographs by day as SVG; empty if fewer than two days are known."""
    taken = [(row.metadata.taken[:10], row.sample.class_name) for row in result.readable if row.metadata.taken]
    if len({day for day, _ in taken}) < 2:
        return ""
    description = (
        f"{len(taken):,} of {counted(len(result.readable), 'photograph')} have a day; the table has the numbers."
    )
    return to_svg(photographs_by_day(taken), title="Photographs by day and class", description=description)


def _summary(result: AuditResult) -> str:
    counts = result.counts()
    readable, unreadable = len(result.readable), len(result.rows) - len(result.readable)
    were = "was" if readable == 1 else "were"
    read = f"{counted(readable, 'photograph')} of {counted(len(result.collection.class_names), 'class', 'classes')} "
    read += f"{were} read completely"
    read += f"; {counted(unreadable, 'photograph')} could not be read." if unreadable else "."
    if counts["error"]:
        errors = counted(counts["error"], "error")
        conclusion = f"{errors}: metrics of a classifier trained on these photographs could not be defended."
    elif counts["warning"]:
        conclusion = f"No errors, {counted(counts['warning'], 'warning')}."
    else:
        conclusion = (
            "No errors and no warnings. This does not prove that the photographs are sound: labels were not checked, "
            "and nobody looked at the photographs."
        )
    return " ".join(filter(None, (read, conclusion, result.why_no_shortcuts())))


def contact_sheets(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return some photographs of each class, those with the smallest hashes: the same set gives the same sheets."""
    sheets: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"sheet {row.file.digest}".encode()).digest()):
        sheets.setdefault(row.sample.class_name, []).append(row)
    size = max(1, min(PER_SHEET, MAX_THUMBNAILS // 2 // max(1, len(sheets))))
    return {name: sheets[name][:size] for name in sorted(sheets)[: MAX_THUMBNAILS // 2]}


def names_to_draw(findings: Iterable[AuditFinding], sheets: dict[str, list[Row]]) -> list[str]:
    """Return the names of the photographs on the page: at most half for the findings and half for the sheets."""
    of_findings = dict.fromkeys(name for finding in findings for example in finding.examples for name in example)
    of_sheets = [row.name for sheet in sheets.values() for row in sheet]
    return list(dict.fromkeys([*list(of_findings)[: MAX_THUMBNAILS // 2], *of_sheets[: MAX_THUMBNAILS // 2]]))


def draw_thumbnails(rows: Iterable[Row], names: Sequence[str], workers: int) -> dict[str, str]:
    """Return data URLs of thumbnails by name; those that cannot be read or exceed `MAX_BYTES` are missing."""
    by_name = {row.name: row for row in rows}
    shown = [by_name[name] for name in names if name in by_name]
    urls: dict[str, str] = {}
    free = MAX_BYTES
    with ThreadPoolExecutor(workers) as pool:
        for row, url in zip(shown, pool.map(_draw, shown), strict=True):
            free -= len(url)
            if url and free >= 0:
                urls[row.name] = url
    return urls


def _draw(row: Row) -> str:
    try:
        picture = load_unchanged(row.sample.path, row.file.digest, SIDE)
    except UnreadableImage:  # changed since it was examined
        return ""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
