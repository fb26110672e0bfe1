"""Write the report of a run: one page that opens offline, with its figures and tables as separate files."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bldml.errors import RunError
from bldml.io.atomic import write_atomically
from bldml.io.locks import SHORTLY_S, hold_output
from bldml.io.safe_points import safe_point
from bldml.io.text import plain
from bldml.report import certainty, claims, evaluation_tables, run_claims
from bldml.report import photographs as report_photographs
from bldml.report import training as report_training
from bldml.report.evaluation_tables import Assessed
from bldml.report.figures import evaluation_figures, subgroup_figure, training_figures
from bldml.report.headline import SETS_SHOWN, Part, headline_parts, headline_table, read_parts, warnings
from bldml.report.html import page_template
from bldml.report.tables import Table, write_tables
from bldml.run.card import read_card
from bldml.run.evidence import evidence_of_run
from bldml.run.files import text_at
from bldml.run.folder import RunFolder
from bldml.run.gallery import GalleryPicture, read_gallery
from bldml.run.reader import RunData, read_run
from bldml.run.subgroups import original_classes, subgroups_of

PICTURE_BYTES = 20 * 2**20  # maximum of all pictures on a page; in Base64 they are a third larger
FIRST_ERRORS = 4  # pictures of errors that are not folded
MEDIA_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}  # by first bytes
GALLERY_TITLES = {
    "error": "Errors, most certain first",
    "uncertain": "Least certain predictions",
    "correct": "Correct predictions, for comparison",
}


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
        urls, size = [], 0
        for path in paths:
            try:
                content = path.read_bytes()
            except OSError as error:
                message = f"Cannot read {path}: {error.strerror}. Repeat the evaluation."
                raise RunError(message, "report-source-unreadable", path=path, reason=error.strerror) from error
            media_type = next((name for start, name in MEDIA_TYPES.items() if content.startswith(start)), None)
            size += len(content)
            if media_type is None or size > self.free:
                return []
            urls.append(f"data:{media_type};base64,{base64.b64encode(content).decode()}")
        self.free -= size
        return urls


def write_report(run: RunFolder) -> Path:
    """Write `report.html`, `figures/` and `tables/` into a run folder, from the other files in it.

    Returns:
        The path of the page.

    Raises:
        RunError: A file of the run is damaged or was changed by hand, or the report cannot be written.
    """
    with hold_output(run.path, wait=SHORTLY_S, option=""):  # an evaluation consists of several files
        return _write_report(run)


def _write_report(run: RunFolder) -> Path:
    data = read_run(run)
    parts = read_parts(data)
    shown = headline_parts(data, parts)
    operating_point, point_warnings = report_training.operating_point_table(data)
    positive, negative = plain(data.classes.positive), plain(data.classes.negative)
    tables = _tables(data, [part[:2] for part in parts], operating_point)
    tables["headline"] = headline_table(shown, positive) if shown else None
    budget = PictureBudget(PICTURE_BYTES)
    # The training split appears in the table of all sets only: it is no evidence for new photographs.
    sections = [_section(data, part, budget) for part in parts if part.evaluation.role != "training"]
    for section in sections:
        write_tables(run.path / "tables" / section["evaluation"].name, section["tables"])
    write_tables(run.path / "tables" / "run", [table for table in tables.values() if table])
    of_run, found = evidence_of_run(data), [part.evidence for part in parts]
    page = page_template("report.html").render(
        data=data,
        warnings=warnings(data, of_run, shown, point_warnings),
        n_hidden=max(0, len(shown) - SETS_SHOWN),
        first=parts[0] if parts else None,
        evaluated=claims.name_of(found[0], data.evaluations[0].name) if found else "",
        repeated=claims.repetition(found[0]) if found else "",
        limits=f"{claims.test_split(of_run, found)} {claims.external_validation(found)}".strip(),
        of_run={
            "photographs": run_claims.photographs(of_run),
            "taken": run_claims.taken(of_run),
            "history": run_claims.siblings(of_run),
            "not_assessed": claims.not_assessed(of_run, found) + certainty.not_recorded(found),
        },
        tables=tables,
        sections=sections,
        negative=negative,
        positive=positive,
        backbone=data.setting("model", "backbone") or "architecture not stated",
        created=text_at(data.environment, "created"),
        version=text_at(data.environment, "versions", "bldml"),
        card=read_card(data.config),
        curves=training_figures(data, run.path / "figures" / "run"),
        commands=report_training.commands(data),
        again=report_training.command_to_train_again(data),
        methods=report_training.methods(data, shown[0] if shown else None),
    )
    path = run.path / "report.html"
    write_atomically(path, page)
    return path


def _section(data: RunData, part: Part, budget: PictureBudget) -> dict[str, Any]:
    """Return what the page shows of one evaluation."""
    safe_point()
    evaluation, assessment, evidence, baselines, _ = part
    subgroups, folder = subgroups_of(data, evaluation), data.run.path / "figures"
    figures = evaluation_figures(evaluation, assessment, data.classes, folder)
    if forest := subgroup_figure(subgroups, folder / evaluation.name):
        figures.append(forest)
    tables = [
        evaluation_tables.confusion_table(assessment, data.classes),
        evaluation_tables.threshold_metrics_table(assessment),
        evaluation_tables.probability_metrics_table(assessment, evaluation.point),
        certainty.certainty_table(evaluation, assessment, evidence, data.classes),
        evaluation_tables.predictive_values_table(assessment),
        evaluation_tables.subgroups_table(subgroups),
        evaluation_tables.groups_table(assessment, evaluation),
    ]
    if baselines:
        tables.append(evaluation_tables.baselines_table(baselines))
    original = original_classes(data, evaluation)
    galleries = list(_galleries(read_gallery(evaluation.folder), original))
    of_errors = sum(kind == "error" for kind, _, _ in galleries)
    gallery = [
        (title, [(one.prediction, budget.take((one.photograph, one.overlay))) for one in shown],
         max(1, FIRST_ERRORS // of_errors) if kind == "error" else 0)
        for kind, title, shown in galleries
    ]  # fmt: skip
    return {
        "evaluation": evaluation,
        "standing": claims.standing(evidence),
        "units": claims.units(evidence),
        "sampling": claims.sampling(evidence),
        "assessment": assessment,
        "without_leaf": claims.without_leaf(baselines) if baselines else "",
        "at_chance": claims.at_chance(assessment.overall["auroc"]),
        "certainty": certainty.doubts(evidence) if evidence.bands or evidence.flagged else "",
        "differences": report_photographs.difference_sentences(data, evaluation),
        "tables": [table for table in tables if table],
        "figures": figures,
        "limits": evaluation_tables.limits_without_errors(assessment),
        "gallery": gallery,
        "original": {path: plain(name) for path, name in original.items()},
    }


def _galleries(
    pictures: list[GalleryPicture], original: Mapping[str, str]
) -> Iterator[tuple[str, str, list[GalleryPicture]]]:
    """Yield kind, title and pictures of each gallery that has any; each original class has its errors."""
    for kind, title in GALLERY_TITLES.items():
        of_kind = [one for one in pictures if one.kind == kind]
        names: list[str | None] = (
            [*sorted({original.get(one.prediction.path, "") for one in of_kind})] if kind == "error" else [None]
        )
        for name in names:
            shown = [one for one in of_kind if name is None or original.get(one.prediction.path, "") == name]
            if shown:
                yield kind, f"{title}: {plain(name)}" if name else title, shown


def _tables(data: RunData, assessed: list[Assessed], operating_point: Table | None) -> dict[str, Table | None]:
    """Return the tables about the run, by the part of the page."""
    return {
        "photographs": report_photographs.counts_table(data),
        "cameras": report_photographs.cameras_table(data),
        "excluded": report_photographs.excluded_photographs_table(data),
        "training": report_training.settings_table(data),
        "operating_point": operating_point,
        "sets": evaluation_tables.sets_table(data, assessed),
        "ledger": report_training.ledger_table(data),
        "environment": report_training.environment_table(data),
        "files": report_photographs.files_table(data),
    }
