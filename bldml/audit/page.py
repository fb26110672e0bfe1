"""The page of an audit: opens offline, asks for nothing, holds small pictures only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import bldml.report
from bldml.audit.audited import Audited
from bldml.audit.checks.shortcuts import shortcuts_table
from bldml.audit.division import BUILT_IN
from bldml.audit.findings import SEVERITIES, AuditFinding, photographs
from bldml.audit.pictures import contact_sheets, draw, wanted
from bldml.dataset.files import show_path
from bldml.io.text import plain

TEMPLATES = Path(bldml.report.__file__).parent / "templates"
HEADINGS = {"wrong": "Wrong", "doubtful": "Doubtful", "note": "To note"}
_EXPLAINED = {
    "wrong": "Figures from these photographs would be false, or a fit would stop.",
    "doubtful": "Somebody should look at these.",
    "note": "Good to know; nothing need be done.",
}


@dataclass(frozen=True)
class SheetPicture:
    """One photograph as shown.

    Attributes:
        name: Its name.
        address: With the picture inside it; empty where there is none.
    """

    name: str
    address: str


@dataclass(frozen=True)
class Example:
    """One or two photographs that belong together, and what is said of them."""

    pictures: tuple[SheetPicture, ...]
    detail: str


@dataclass(frozen=True)
class Told:
    """A finding as the page shows it."""

    title: str
    text: str
    advice: tuple[tuple[str, bool], ...]  # pieces of text, and whether each is code
    command: str
    examples: tuple[Example, ...]
    left_out: bool


def audit_page(audited: Audited, version: str, workers: int) -> str:
    """The page as text.

    Args:
        audited: What was found.
        version: Of bldml.
        workers: Threads that draw small pictures.
    """
    import jinja2

    sheets = contact_sheets(audited.readable)
    addresses = draw(audited.readable, wanted(audited.findings, sheets), workers)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        (severity, HEADINGS[severity], _EXPLAINED[severity], told)
        for severity in SEVERITIES
        if (told := [_tell(one, addresses) for one in audited.findings if one.severity == severity])
    ]
    return environment.get_template("audit.html").render(
        root=show_path(audited.root),
        manifest="" if audited.manifest is None else show_path(audited.manifest),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version,
        summary=_summary(audited),
        undivided=BUILT_IN if audited.undivided else "",
        sections=sections,
        shortcuts=shortcuts_table(audited.shortcuts) if audited.shortcuts else None,
        positive=plain(audited.positive_class),
        tables=audited.tables,
        bursts=audited.repeats.evidence.sentence(),
        sheets=[
            (plain(name), sum(row.sample.class_name == name for row in audited.readable), _pictures(sheet, addresses))
            for name, sheet in sheets.items()
        ],
    )


def pieces(advice: str) -> tuple[tuple[str, bool], ...]:
    """The pieces of a text with code between backticks, and whether each is code.

    >>> pieces("Fit with `--seed 1`.")
    (('Fit with ', False), ('--seed 1', True), ('.', False))
    """
    return tuple((plain(piece), index % 2 == 1) for index, piece in enumerate(advice.split("`")) if piece)


def _tell(finding: AuditFinding, addresses: dict[str, str]) -> Told:
    details = (*finding.details, *[""] * len(finding.examples))
    examples = tuple(
        Example(tuple(SheetPicture(plain(name), addresses.get(name, "")) for name in example), plain(detail))
        for example, detail in zip(finding.examples, details, strict=False)
    )
    shown = len({name for example in finding.examples for name in example})
    return Told(
        plain(finding.title),
        plain(finding.text),
        pieces(finding.advice),
        plain(finding.command),
        examples,
        bool(examples) and shown < finding.count,
    )


def _pictures(sheet: Sequence[object], addresses: dict[str, str]) -> list[SheetPicture]:
    names = [getattr(row, "name", "") for row in sheet]
    return [SheetPicture(plain(name), addresses[name]) for name in names if name in addresses]


def _summary(audited: Audited) -> str:
    counts = audited.counts()
    found, bad = len(audited.readable), len(audited.rows) - len(audited.readable)
    classes = len(audited.collection.class_names)
    were = "was" if found == 1 else "were"
    read = f"{photographs(found)} of {classes} {'class' if classes == 1 else 'classes'} {were} read whole"
    read += f"; {photographs(bad)} could not be read." if bad else "."
    if counts["wrong"]:
        verdict = (
            f"{counts['wrong']} {'thing is' if counts['wrong'] == 1 else 'things are'} wrong: figures from a training "
            "on these photographs could not be defended."
        )
    elif counts["doubtful"]:
        verdict = "Nothing was found to be wrong; some things are doubtful."
    else:
        verdict = (
            "Nothing was found to be wrong. That does not show that nothing is: labels were not checked, and nobody "
            "looked at the photographs."
        )
    return " ".join(filter(None, (read, verdict, audited.untried())))
