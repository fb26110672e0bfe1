"""The report of a run: one page that opens offline, with its figures and tables as files beside it."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bldml.errors import RunError
from bldml.io.atomic import write_atomically
from bldml.io.text import counted, plain
from bldml.metrics.assessment import Assessment
from bldml.report import photographs as report_photographs
from bldml.report import scores as report_scores
from bldml.report import training as report_training
from bldml.report import words as report_words
from bldml.report.figures import ReportFigure, evaluation_figures, training_figure
from bldml.report.html import page_template
from bldml.report.tables import Table, fine, write_tables
from bldml.run.card import read_card
from bldml.run.files import text_at
from bldml.run.folder import RunFolder
from bldml.run.gallery import GalleryPicture, read_gallery
from bldml.run.reader import Evaluation, RunData, read_run

Section = tuple[Table | None, list[str]]  # with the sentences that go with it

PICTURES_BYTES = 20 * 2**20  # of all pictures on a page; as text they are a third larger
KINDS = {
    "error": "Errors, the most certain first",
    "uncertain": "The least certain",
    "correct": "Correct ones, for comparison",
}


@dataclass(frozen=True)
class ShownPhotograph:
    """One photograph of the gallery, as it is shown.

    Args:
        path: Of the photograph.
        truth: Its class.
        called: What it was called.
        probability: Of the positive class.
        pictures: (address, alternative text) of the photograph and its Grad-CAM; empty where the page is full.
    """

    path: str
    truth: str
    called: str
    probability: str
    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Part:
    """What the page shows of one evaluation."""

    name: str
    kind: str
    about: str
    difference: tuple[str, ...]
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[ReportFigure, ...]
    size: str
    errors: int
    gallery: tuple[tuple[str, tuple[ShownPhotograph, ...]], ...]


def write_report(run: RunFolder) -> Path:
    """Write `report.html`, `figures/` and `tables/` into a run folder from what else is in it.

    Args:
        run: The run folder.

    Returns:
        The place of the page.

    Raises:
        RunError: A file of the run is damaged or was changed by hand, or the report cannot be written.
    """
    data = read_run(run)
    assessed = [(evaluation, evaluation.assess(data.classes)) for evaluation in data.evaluations]
    room = Room(PICTURES_BYTES)
    common = _tables(data, assessed)
    # The training split is shown beside the other sets and no further: it says nothing of new photographs.
    parts = [_part(data, evaluation, found, room) for evaluation, found in assessed if evaluation.role != "training"]
    for part in parts:
        write_tables(run.path / "tables" / part.name, part.tables)
    write_tables(run.path / "tables" / "run", [table for table, _ in common.values() if table])
    curves = training_figure(data, run.path / "figures" / "run")
    place = run.path / "report.html"
    write_atomically(place, _page(data, assessed, parts, common, curves))
    return place


class Room:
    """How many bytes of pictures a page may still take.

    Args:
        free: So many.
    """

    def __init__(self, free: int) -> None:
        self.free = free

    def take(self, paths: Iterable[Path]) -> list[str]:
        """Addresses with the pictures inside them; none where they are too many, or no pictures.

        Raises:
            RunError: One cannot be read.
        """
        found = []
        for path in paths:
            try:
                found.append(path.read_bytes())
            except OSError as error:
                message = f"Cannot read {path}: {error.strerror}. Run the evaluation again."
                raise RunError(message, "report-source-unreadable", path=path, reason=error.strerror) from error
        kinds = [_kind(content) for content in found]
        size = sum(map(len, found))
        if size > self.free or not all(kinds):
            return []
        self.free -= size
        return [
            f"data:{kind};base64,{base64.b64encode(content).decode()}"
            for kind, content in zip(kinds, found, strict=True)
        ]


def _kind(content: bytes) -> str:
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/png" if content.startswith(b"\x89PNG\r\n\x1a\n") else ""


def _part(data: RunData, evaluation: Evaluation, assessment: Assessment, room: Room) -> Part:
    tables = [
        report_scores.confusion_table(assessment, data.classes),
        report_scores.scores(assessment),
        report_scores.overall(assessment),
        report_scores.by_prevalence(assessment),
        report_scores.by_group(assessment, evaluation),
    ]
    figures = evaluation_figures(evaluation, assessment, data.classes, data.run.path / "figures" / evaluation.name)
    groups = f" of {counted(assessment.n_groups, 'group')}" if assessment.n_groups else ""
    positive = plain(data.classes.positive)
    about = (
        f"{counted(assessment.n, 'photograph')}{groups}, {assessment.n_positive:,} of them {positive}. "
        f"Evaluated {plain(evaluation.provenance.created) or 'at an unknown time'}."
    )
    return Part(
        name=evaluation.name,
        kind=report_words.kind(evaluation),
        about=about,
        difference=tuple(report_photographs.difference_sentences(data, evaluation)),
        warnings=assessment.warnings,
        tables=tuple(table for table in tables if table is not None),
        figures=tuple(figures),
        size=report_scores.sample_size(assessment),
        errors=assessment.counts["fp"] + assessment.counts["fn"],
        gallery=_gallery(read_gallery(evaluation.folder), room),
    )


def _gallery(shown: list[GalleryPicture], room: Room) -> tuple[tuple[str, tuple[ShownPhotograph, ...]], ...]:
    return tuple(
        (title, tuple(_photograph(one, room) for one in shown if one.kind == kind))
        for kind, title in KINDS.items()
        if any(one.kind == kind for one in shown)
    )


def _photograph(shown: GalleryPicture, room: Room) -> ShownPhotograph:
    row = shown.prediction
    addresses = room.take((shown.photograph, shown.overlay))
    path, truth, called = plain(row.path), plain(row.true_class), plain(row.predicted_class)
    texts = (f"Photograph {path}: {truth}, called {called}", f"Where the classifier looked in {path} (Grad-CAM)")
    pictures = tuple(zip(addresses, texts, strict=False))
    return ShownPhotograph(path, truth, called, fine(row.probability), pictures)


def _lines(text: str) -> str:
    return "\n".join(plain(line) for line in text.splitlines())


def _tables(data: RunData, assessed: list[report_scores.Assessed]) -> dict[str, Section]:
    photographs = [
        report_photographs.unit_sentence(data),
        report_photographs.groups_sentence(data),
        report_photographs.leaks_sentence(data),
    ]
    cameras, dates = report_photographs.cameras(data)
    return {
        "photographs": (report_photographs.counts(data), photographs),
        "cameras": (cameras, [dates]),
        "excluded": (report_photographs.excluded(data), []),
        "training": (report_training.settings(data), []),
        "operating_point": report_training.operating_point(data),
        "sets": (report_scores.side_by_side(data, assessed), []),
        "ledger": report_training.looks(data),
        "environment": (report_training.environment_table(data), []),
        "files": (report_photographs.files(data), []),
    }


def _page(
    data: RunData,
    assessed: list[report_scores.Assessed],
    parts: list[Part],
    sections: dict[str, Section],
    curves: ReportFigure,
) -> str:
    values: dict[str, Any] = {
        "name": data.name,
        "negative": plain(data.classes.negative),
        "positive": plain(data.classes.positive),
        "backbone": data.setting("model", "backbone") or "architecture not stated",
        "created": text_at(data.environment, "created"),
        "version": text_at(data.environment, "versions", "bldml"),
        "summary": report_words.summary(data, assessed),
        "card": [(title, text and _lines(text)) for title, text in read_card(data.config).items()],
        "tables": {name: table for name, (table, _) in sections.items()},
        "sentences": {name: sentences for name, (_, sentences) in sections.items()},
        "curves": curves,
        "parts": parts,
        "unlabelled": [(plain(one.name), len(one.rows)) for one in data.unlabelled],
        "commands": report_training.commands(data),
        "limits": report_words.limits(data, assessed),
    }
    return page_template("report.html").render(values)
