"""The sheet for review: one page that opens offline, with the photographs that a person should look at first."""

import hashlib
import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from bldml.dataset.files import show_path, unescape_path
from bldml.errors import DatasetError
from bldml.inference.classifier import Classifier
from bldml.inference.pictures import overlay
from bldml.io.text import with_apostrophe
from bldml.report.html import TEMPLATES, page_template, script_hash
from bldml.survey.rows import SurveyRow
from bldml.survey.thumbnails import data_url, thumbnail
from bldml.training.checkpoint import Header

MOST_UNREADABLE = 100
NEAR = 1.0  # distance of the logit from that of the threshold within which a prediction is called near it


@dataclass(frozen=True)
class SheetCard:
    """One photograph on the page; its pictures are data URLs of pixels alone, without metadata."""

    row: SurveyRow
    predicted: str  # class names and unit as in a CSV cell
    other: str
    unit: str
    why: str  # why it is among the first; empty for no particular reason
    photograph: str
    heat: str


def first_to_look_at(rows: Sequence[SurveyRow], header: Header, count: int) -> list[tuple[SurveyRow, str]]:
    """Return the photographs of the page in order, each with the reason: unlike, uncertain, near the threshold, others.

    Within a reason, those nearest to the threshold come first.
    """

    def key(index: int) -> tuple[int, float, int]:
        row = rows[index]
        distance = _distance(row, header)
        return _reasons(row, distance)[0], distance, index

    readable = (index for index, row in enumerate(rows) if row.probability is not None)
    chosen = heapq.nsmallest(count, map(key, readable))
    return [(rows[index], _reasons(rows[index], distance)[1]) for _, distance, index in chosen]


def _distance(row: SurveyRow, header: Header) -> float:
    """Return how far the logit is from that of the threshold."""
    probability, threshold = (min(max(p, 1e-9), 1 - 1e-9) for p in (row.probability or 0.0, header.threshold))
    return abs(math.log(probability / (1 - probability)) - math.log(threshold / (1 - threshold)))


def _reasons(row: SurveyRow, distance: float) -> tuple[int, str]:
    if row.familiar is False:
        return 0, "unlike the training photographs"
    if row.band == "uncertain":
        return 1, "uncertain"
    return (2, "near the threshold") if distance < NEAR else (3, "")


def triage_page(
    rows: Sequence[SurveyRow], root: Path, classifier: Classifier, count: int, model: str, version: str
) -> str:
    """Return the page with at most `count` photographs, which are read and explained once more."""
    header, script = classifier.header, (TEMPLATES / "triage.js").read_text(encoding="utf-8").strip()
    unreadable = [row for row in rows if row.unreadable]
    cards = list(_cards(first_to_look_at(rows, header, count), root, classifier))
    return page_template(
        "triage.html"
    ).render(
        root=show_path(root.resolve().name),  # a page names no path of this machine
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version,
        model=model,
        # Verdicts in the browser belong to these photographs and this model.
        survey=hashlib.sha256("\n".join([model, *(row.path for row in rows)]).encode()).hexdigest()[:16],
        total=len(rows),
        shown=len(cards),
        order="photographs unlike the training photographs and uncertain ones, if the checkpoint can tell them; then "
        "those nearest to the threshold",
        positive=header.positive_class,
        cards=cards,
        unreadable=unreadable[:MOST_UNREADABLE],
        unreadable_total=len(unreadable),
        script=script,
        script_hash=script_hash(script),
    )


def _cards(chosen: Sequence[tuple[SurveyRow, str]], root: Path, classifier: Classifier) -> Iterator[SheetCard]:
    names = {with_apostrophe(name) for name in classifier.header.class_names}
    for row, why in tqdm(chosen, desc="Heat maps", unit="photo", leave=False, disable=None):
        path, predicted = root / unescape_path(row.path), with_apostrophe(row.label)
        try:
            _, cam = classifier.verdict_with_map(path)
            picture = thumbnail(path)
        except DatasetError:  # changed since it was judged
            continue
        (other,) = names - {predicted}
        unit = with_apostrophe(row.unit)
        yield SheetCard(row, predicted, other, unit, why, data_url(picture), data_url(overlay(picture, cam)))
