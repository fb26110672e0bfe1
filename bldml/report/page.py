"""Write the report of a run: one page that opens offline, with its figures and tables as separate files."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bldml.errors import RunError
from bldml.io.atomic import write_atomically
from bldml.io.text import counted, plain
from bldml.metrics.assessment import Assessment
from bldml.report import evaluation_tables
from bldml.report import photographs as report_photographs
from bldml.report import summary as report_summary
from bldml.report import training as report_training
from bldml.report.figures import ReportFigure, evaluation_figures, training_figure
from bldml.report.html import page_template
from bldml.report.tables import Table, precise_number, write_tables
from bldml.run.card import read_card
from bldml.run.files import text_at
from bldml.run.folder import RunFolder
from bldml.run.gallery import GalleryPicture, read_gallery
from bldml.run.reader import Evaluation, RunData, read_run

TableAndSentences = tuple[Table | None, list[str]]

PICTURE_BYTES = 20 * 2**20  # maximum of all pictures on a page; in Base64 they are a third larger
GALLERY_TITLES = {
    "error": "Errors, most certain first",
    "uncertain": "Least certain predictions",
    "correct": "Correct predictions, for comparison",
}


@dataclass(frozen=True)
class ShownPhotograph:
    """One photograph of the gallery, as text for the page.

    Args:
        path: Path of the photograph.
        true_class: Its class.
        predicted_class: Its predicted class.
        probability: Probability of the positive class.
        pictures: (data URL, alternative text) of the photograph and of its Grad-CAM heat map; empty where the page has
            reached its maximum size.
    """

    path: str
    true_class: str
    predicted_class: str
    probability: str
    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class EvaluationSection:
    """The section of one evaluation on the page."""

    name: str
    role: str
    description: str
    differences: tuple[str, ...]
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[ReportFigure, ...]
    sample_size: str
    n_errors: int
    gallery: tuple[tuple[str, tuple[ShownPhotograph, ...]], ...]


def write_report(run: RunFolder) -> Path:
    """Write `report.html`, `figures/` and `tables/` into a run folder, from the other files in it.

    Args:
        run: The run folder.

    Returns:
        The path of the page.

    Raises:
        RunError: A file of the run is damaged or was changed by hand, or the report cannot be written.
    """
    data = read_run(run)
    assessed = [(evaluation, evaluation.assess(data.classes)) for evaluation in data.evaluations]
    budget = PictureBudget(PICTURE_BYTES)
    common = _run_tables(data, assessed)
    # The training split appears in the table of all sets only: it is no evidence for new photographs.
    sections = [
        _section(data, evaluation, assessment, budget)
        for evaluation, assessment in assessed
        if evaluation.role != "training"
    ]
    for section in sections:
        write_tables(run.path / "tables" / section.name, section.tables)
    write_tables(run.path / "tables" / "run", [table for table, _ in common.values() if table])
    curves = training_figure(data, run.path / "figures" / "run")
    path = run.path / "report.html"
    write_atomically(path, _page(data, assessed, sections, common, curves))
    return path


class PictureBudget:
    """The bytes of pictures that a page may still embed.

    Args:
        free: Remaining bytes.
    """

    def __init__(self, free: int) -> None:
        self.free = free

    def take(self, paths: Iterable[Path]) -> list[str]:
        """Return the pictures as data URLs; none of them if they exceed the budget or one is neither JPEG nor PNG.

        Raises:
            RunError: A picture cannot be read.
        """
        contents = []
        for path in paths:
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                message = f"Cannot read {path}: {error.strerror}. Repeat the evaluation."
                raise RunError(message, "report-source-unreadable", path=path, reason=error.strerror) from error
        media_types = [_media_type(content) for content in contents]
        size = sum(map(len, contents))
        if size > self.free or not all(media_types):
            return []
        self.free -= size
        return [
            f"data:{media_type};base64,{base64.b64encode(content).decode()}"
            for media_type, content in zip(media_types, contents, strict=True)
        ]


def _media_type(content: bytes) -> str:
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/png" if content.startswith(b"\x89PNG\r\n\x1a\n") else ""


def _section(data: RunData, evaluation: Evaluation, assessment: Assessment, budget: PictureBudget) -> EvaluationSection:
    tables = [
        evaluation_tables.confusion_table(assessment, data.classes),
        evaluation_tables.threshold_metrics_table(assessment),
        evaluation_tables.probability_metrics_table(assessment),
        evaluation_tables.predictive_values_table(assessment),
        evaluation_tables.groups_table(assessment, evaluation),
    ]
    figures = evaluation_figures(evaluation, assessment, data.classes, data.run.path / "figures" / evaluation.name)
    groups = f" from {counted(assessment.n_groups, 'group')}" if assessment.n_groups else ""
    positive = plain(data.classes.positive)
    description = (
        f"{counted(assessment.n, 'photograph')}{groups}, {assessment.n_positive:,} of them {positive}. "
        f"Evaluated {plain(evaluation.provenance.created) or 'at an unknown time'}."
    )
    return EvaluationSection(
        name=evaluation.name,
        role=report_summary.role_sentence(evaluation),
        description=description,
        differences=tuple(report_photographs.difference_sentences(data, evaluation)),
        warnings=assessment.warnings,
        tables=tuple(table for table in tables if table is not None),
        figures=tuple(figures),
        sample_size=evaluation_tables.sample_size_sentences(assessment),
        n_errors=assessment.counts["fp"] + assessment.counts["fn"],
        gallery=_gallery(read_gallery(evaluation.folder), budget),
    )


def _gallery(
    pictures: list[GalleryPicture], budget: PictureBudget
) -> tuple[tuple[str, tuple[ShownPhotograph, ...]], ...]:
    return tuple(
        (title, tuple(_photograph(picture, budget) for picture in pictures if picture.kind == kind))
        for kind, title in GALLERY_TITLES.items()
        if any(picture.kind == kind for picture in pictures)
    )


def _photograph(picture: GalleryPicture, budget: PictureBudget) -> ShownPhotograph:
    row = picture.prediction
    urls = budget.take((picture.photograph, picture.overlay))
    path, true_class, predicted_class = plain(row.path), plain(row.true_class), plain(row.predicted_class)
    texts = (f"Photograph {path}: {true_class}, predicted {predicted_class}", f"Grad-CAM heat map of {path}")
    embedded = tuple(zip(urls, texts, strict=False))
    return ShownPhotograph(path, true_class, predicted_class, precise_number(row.probability), embedded)


def _plain_lines(text: str) -> str:
    return "\n".join(plain(line) for line in text.splitlines())


def _run_tables(data: RunData, assessed: list[evaluation_tables.Assessed]) -> dict[str, TableAndSentences]:
    photographs = [
        report_photographs.unit_sentence(data),
        report_photographs.groups_sentence(data),
        report_photographs.leaks_sentence(data),
    ]
    cameras, dates = report_photographs.cameras_table(data)
    return {
        "photographs": (report_photographs.counts_table(data), photographs),
        "cameras": (cameras, [dates]),
        "excluded": (report_photographs.excluded_photographs_table(data), []),
        "training": (report_training.settings_table(data), []),
        "operating_point": report_training.operating_point_table(data),
        "sets": (evaluation_tables.sets_table(data, assessed), []),
        "ledger": report_training.evaluation_history(data),
        "environment": (report_training.environment_table(data), []),
        "files": (report_photographs.files_table(data), []),
    }


def _page(
    data: RunData,
    assessed: list[evaluation_tables.Assessed],
    sections: list[EvaluationSection],
    common: dict[str, TableAndSentences],
    curves: ReportFigure,
) -> str:
    values: dict[str, Any] = {
        "name": data.name,
        "negative": plain(data.classes.negative),
        "positive": plain(data.classes.positive),
        "backbone": data.setting("model", "backbone") or "architecture not stated",
        "created": text_at(data.environment, "created"),
        "version": text_at(data.environment, "versions", "bldml"),
        "summary": report_summary.summary(data, assessed),
        "card": [(title, text and _plain_lines(text)) for title, text in read_card(data.config).items()],
        "tables": {name: table for name, (table, _) in common.items()},
        "sentences": {name: sentences for name, (_, sentences) in common.items()},
        "curves": curves,
        "sections": sections,
        "unlabelled": [(plain(one.name), len(one.rows)) for one in data.unlabelled],
        "commands": report_training.commands(data),
        "not_assessed": report_summary.not_assessed(data, assessed),
    }
    return page_template("report.html").render(values)
