"""The page of an audit: one file that opens offline and contains thumbnails only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bldml.audit.checks.shortcuts import shortcuts_table
from bldml.audit.default_split import DEFAULT_SPLIT_NOTE
from bldml.audit.findings import SEVERITIES, AuditFinding
from bldml.audit.pictures import contact_sheets, draw_thumbnails, names_to_draw
from bldml.audit.result import AuditResult
from bldml.dataset.files import show_path
from bldml.io.text import counted, plain
from bldml.report.html import page_template

HEADINGS = {"error": "Errors", "warning": "Warnings", "info": "Information"}
_EXPLAINED = {
    "error": "Metrics from these photographs would be wrong, or fit would not run.",
    "warning": "Please check these before training.",
    "info": "For information; nothing has to be done.",
}


@dataclass(frozen=True)
class SheetPicture:
    """One photograph as the page shows it.

    Attributes:
        name: Name of the photograph.
        url: Data URL of its thumbnail; empty if there is none.
    """

    name: str
    url: str


@dataclass(frozen=True)
class Example:
    """One photograph, or two that belong together, with a remark."""

    pictures: tuple[SheetPicture, ...]
    detail: str


@dataclass(frozen=True)
class ShownFinding:
    """A finding as the page shows it."""

    title: str
    text: str
    advice: tuple[tuple[str, bool], ...]  # parts of the text, and whether each is code
    command: str
    examples: tuple[Example, ...]
    left_out: bool


def audit_page(result: AuditResult, version: str, workers: int) -> str:
    """Return the page as HTML.

    Args:
        result: The audit.
        version: Version of bldml.
        workers: Number of threads that draw thumbnails.
    """
    sheets = contact_sheets(result.readable)
    urls = draw_thumbnails(result.readable, names_to_draw(result.findings, sheets), workers)
    sections = [
        (severity, HEADINGS[severity], _EXPLAINED[severity], findings)
        for severity in SEVERITIES
        if (findings := [_show(found, urls) for found in result.findings if found.severity == severity])
    ]
    return page_template("audit.html").render(
        root=show_path(result.root),
        manifest="" if result.manifest is None else show_path(result.manifest),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version,
        summary=_summary(result),
        default_split=DEFAULT_SPLIT_NOTE if result.default_split else "",
        sections=sections,
        shortcuts=shortcuts_table(result.shortcuts) if result.shortcuts else None,
        positive=plain(result.positive_class),
        tables=result.tables,
        bursts=result.repeats.evidence.sentence(),
        sheets=[
            (plain(name), sum(row.sample.class_name == name for row in result.readable), _pictures(sheet, urls))
            for name, sheet in sheets.items()
        ],
    )


def pieces(advice: str) -> tuple[tuple[str, bool], ...]:
    """Return the parts of a text with code between backticks, and whether each is code.

    >>> pieces("Fit with `--seed 1`.")
    (('Fit with ', False), ('--seed 1', True), ('.', False))
    """
    return tuple((plain(piece), index % 2 == 1) for index, piece in enumerate(advice.split("`")) if piece)


def _show(finding: AuditFinding, urls: dict[str, str]) -> ShownFinding:
    details = (*finding.details, *[""] * len(finding.examples))
    examples = tuple(
        Example(tuple(SheetPicture(plain(name), urls.get(name, "")) for name in example), plain(detail))
        for example, detail in zip(finding.examples, details, strict=False)
    )
    shown = len({name for example in finding.examples for name in example})
    return ShownFinding(
        plain(finding.title),
        plain(finding.text),
        pieces(finding.advice),
        plain(finding.command),
        examples,
        bool(examples) and shown < finding.count,
    )


def _pictures(sheet: Sequence[object], urls: dict[str, str]) -> list[SheetPicture]:
    names = [getattr(row, "name", "") for row in sheet]
    return [SheetPicture(plain(name), urls[name]) for name in names if name in urls]


def _summary(result: AuditResult) -> str:
    counts = result.counts()
    readable, unreadable = len(result.readable), len(result.rows) - len(result.readable)
    were = "was" if readable == 1 else "were"
    read = f"{counted(readable, 'photograph')} of {counted(len(result.collection.class_names), 'class', 'classes')} "
    read += f"{were} read completely"
    read += f"; {counted(unreadable, 'photograph')} could not be read." if unreadable else "."
    if counts["error"]:
        conclusion = (
            f"{counted(counts['error'], 'error')}: metrics of a classifier trained on these photographs could not be "
            "defended."
        )
    elif counts["warning"]:
        conclusion = f"No errors, {counted(counts['warning'], 'warning')}."
    else:
        conclusion = (
            "No errors and no warnings. This does not prove that the photographs are sound: labels were not checked, "
            "and nobody looked at the photographs."
        )
    return " ".join(filter(None, (read, conclusion, result.why_no_shortcuts())))
